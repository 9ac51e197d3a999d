// Manifest bytes by digest, and what refers to a subject. Bytes never change: any connection may read them, and the
// cache above never asks twice. Whether a repository holds a digest is another question (lookups.ts).

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { type Queryable, statement } from './statement.ts'

const bytesOf = statement<{ digest: Digest; bytes: Buffer }>(
  'manifest-bytes',
  `select digest, bytes from manifest where digest = any (:digests::text[])`,
)

/** Bytes of those that are stored. The caller bounds the number of digests. */
export async function manifestBytes(
  db: Queryable,
  digests: readonly Digest[],
): Promise<Map<Digest, Buffer>> {
  const rows = await db.rows(bytesOf, { digests })
  return new Map(rows.map(({ digest, bytes }) => [digest, bytes]))
}

export interface ReferrerRow {
  readonly digest: Digest
  readonly mediaType: string
  readonly size: number
  readonly artifactType: string | null
  /** JSON of the manifest's annotations. */
  readonly annotations: string | null
}

const referrers = statement<ReferrerRow>(
  'referrer-page',
  `select m.digest, m.media_type as "mediaType", manifest.size, reference.artifact_type as "artifactType",
     reference.annotations
   from repository as r
   join manifest_reference as reference on reference.digest = :subject and reference.kind = 'subject'
   join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = reference.manifest
   join manifest on manifest.digest = m.digest
   where r.name = :repository and m.digest > :last
     and (m.alive_h, m.alive_origin) > (m.dead_h, m.dead_origin)
     and (m.alive_h, m.alive_origin) > (r.dead_h, r.dead_origin)
     and (cardinality(:artifact_types::text[]) = 0 or reference.artifact_type = any (:artifact_types::text[]))
   order by m.digest
   limit :limit`,
)

/** Live manifests of the repository whose subject this is, by digest after `last`; no types means all types. */
export async function referrerPage(
  db: Queryable,
  options: {
    repository: RepositoryName
    subject: Digest
    artifactTypes: readonly string[]
    last: string
    limit: number
  },
): Promise<ReferrerRow[]> {
  const { artifactTypes, ...rest } = options
  return db.rows(referrers, { ...rest, artifact_types: artifactTypes })
}

const among = statement<ReferrerRow>(
  'referrers-among',
  `select m.digest, m.media_type as "mediaType", manifest.size, reference.artifact_type as "artifactType",
     reference.annotations
   from repository as r
   join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = any (:digests::text[])
   join manifest on manifest.digest = m.digest
   join manifest_reference as reference
     on reference.manifest = m.digest and reference.kind = 'subject' and reference.digest = any (:subjects::text[])
   where r.name = :repository
     and (m.alive_h, m.alive_origin) > (m.dead_h, m.dead_origin)
     and (m.alive_h, m.alive_origin) > (r.dead_h, r.dead_origin)`,
)
/** Of the digests given, those that are live manifests of the repository with one of the subjects. */
export async function referrersAmong(
  db: Queryable,
  options: { repository: RepositoryName; digests: readonly Digest[]; subjects: readonly Digest[] },
): Promise<ReferrerRow[]> {
  return db.rows(among, { ...options })
}
