// What pulls ask: the one statement behind the snapshot reader.
//
// A key is a repository with a tag, a manifest digest or a blob digest. A row says that the key exists *in this
// repository*, and what it is. The predicates of registers.ts decide what is visible.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { linkShows, manifestShows, tagShows } from './registers.ts'
import type { SnapshotQuery } from './snapshot-reader.ts'

export interface Lookup {
  readonly repository: RepositoryName
  readonly kind: 'tag' | 'manifest' | 'blob'
  /** Tag or digest, parsed. */
  readonly reference: string
}

export interface FoundManifest {
  readonly kind: 'manifest'
  readonly digest: Digest
  readonly mediaType: string
}

export interface FoundBlob {
  readonly kind: 'blob'
  readonly digest: Digest
  readonly store: string
  readonly key: string
  readonly size: number
  /** The object was found missing or wrong, and the blob has not been pushed again since. */
  readonly damaged: boolean
}

export type Found = FoundManifest | FoundBlob

export const lookups: SnapshotQuery<Lookup, Found> = {
  name: 'lookups',
  text: `
    select asked.ordinal::int, found.*
    from unnest($1::text[], $2::text[], $3::text[]) with ordinality as asked (repository, kind, reference, ordinal)
    join repository on repository.name = asked.repository
    cross join lateral (
      select 'm' as kind, membership.digest, membership.media_type, null::text as key, null::int8 as size,
        null::bool as damaged
      from tag
      join membership on membership.repository_id = tag.repository_id
        and membership.kind = 'manifest' and membership.digest = tag.digest
      where asked.kind = 'tag' and tag.repository_id = repository.id and tag.name = asked.reference
        and ${tagShows('tag', 'membership', 'repository')}
      union all
      select 'm', membership.digest, membership.media_type, null, null, null
      from membership
      where asked.kind = 'manifest' and membership.repository_id = repository.id
        and membership.kind = 'manifest' and membership.digest = asked.reference
        and ${manifestShows('membership', 'repository')}
      union all
      select 'b', blob.digest, blob.store, blob.key, blob.size, blob.state = 'damaged'
      from membership
      join blob on blob.digest = membership.digest and blob.state in ('ready', 'damaged')
      where asked.kind = 'blob' and membership.repository_id = repository.id
        and membership.kind = 'blob' and membership.digest = asked.reference
        and ${linkShows('membership', 'repository')}
    ) as found`,
  id: ({ repository, kind, reference }) => `${repository}\n${kind}\n${reference}`,
  parameters: (keys) => [
    keys.map(({ repository }) => repository),
    keys.map(({ kind }) => kind),
    keys.map(({ reference }) => reference),
  ],
  row: ([kind, digest, mediaTypeOrStore, key, size, damaged]) =>
    kind === 'm'
      ? { kind: 'manifest', digest: digest as Digest, mediaType: mediaTypeOrStore as string }
      : {
          kind: 'blob',
          digest: digest as Digest,
          store: mediaTypeOrStore as string,
          key: key as string,
          size: size as number,
          damaged: damaged as boolean,
        },
}
