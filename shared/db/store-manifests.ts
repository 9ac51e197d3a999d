// Stores manifests that came from other regions: their bytes and what they refer to. Content does not change and makes
// nothing visible by itself. It is therefore stored in a separate transaction, before the registers that make it
// visible. Within their transaction it would break the lock order, in which manifests come after memberships.

import type { PushedReference } from './push-manifest.ts'
import { type Queryable, statement } from './statement.ts'

export interface StoredContent {
  readonly digest: string
  readonly bytes: Buffer
  readonly singleImage: string
  readonly references: readonly Omit<PushedReference, 'mandatory'>[]
  readonly artifactType: string | null
  readonly annotations: string | null
}

const store = statement<never>(
  'store-manifests',
  `with stored as (
     insert into manifest (digest, bytes, size, single_image)
     select digest, bytes, octet_length(bytes), single_image
     from unnest(:digests::text[], :bytes::bytea[], :single_images::text[]) as m (digest, bytes, single_image)
     order by digest collate "C"
     on conflict (digest) do update set single_image = excluded.single_image
     returning digest
   )
   insert into manifest_reference as mr
     (manifest, kind, position, digest, target, required, artifact_type, annotations)
   select stored.digest, r.kind, r.position, r.digest, r.target, r.required, r.artifact_type, r.annotations
   from jsonb_to_recordset(:rows::jsonb) as r (manifest text, kind text, position integer, digest text, target text,
     required bool, artifact_type text, annotations text)
   join stored on stored.digest = r.manifest collate "C"
   order by stored.digest, r.kind collate "C", r.position
   on conflict (manifest, kind, position) do update set required = true
     where excluded.required and not mr.required`,
)

/** Stores each manifest once. The caller bounds their number and bytes. */
export async function storeManifests(db: Queryable, contents: readonly StoredContent[]): Promise<void> {
  if (contents.length === 0) return
  await db.rows(store, {
    digests: contents.map(({ digest }) => digest),
    bytes: contents.map(({ bytes }) => bytes),
    single_images: contents.map(({ singleImage }) => singleImage),
    rows: JSON.stringify(
      contents.flatMap(({ digest: manifest, references, artifactType, annotations }) =>
        references.map((reference) => ({
          manifest,
          ...reference,
          ...(reference.kind === 'subject' && { artifact_type: artifactType, annotations }),
        })),
      ),
    ),
  })
}
