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
export async function manifestBytes(db: Queryable, digests: readonly Digest[]): Promise<Map<Digest, Buffer>> {
  const rows = await db.rows(bytesOf, { digests })
  return new Map(rows.map(({ digest, bytes }) => [digest, bytes]))
}

export interface ReferrerRow {
  readonly digest: Digest
  readonly mediaType: string
  readonly size: number
  readonly artifactType: string | null
  /** The membership's version: pages are in its order. */
  readonly h: string
  /** JSON of the manifest's annotations. */
  readonly annotations: string | null
}

const referrers = statement<ReferrerRow>(
  'referrer-page',
  `select m.digest, m.media_type as "mediaType", manifest.size, reference.artifact_type as "artifactType",
     reference.annotations, m.alive_h::text as h
   from repository as r
   join manifest_reference as reference on reference.digest = :subject and reference.kind = 'subject'
   join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = reference.manifest
   join manifest on manifest.digest = m.digest
   where r.name = :repository and (m.alive_h, m.digest) > (:last_h::bigint, :last_digest::text)
     and (m.alive_h, m.alive_origin) > (m.dead_h, m.dead_origin)
     and (m.alive_h, m.alive_origin) > (r.dead_h, r.dead_origin)
     and (cardinality(:artifact_types::text[]) = 0 or reference.artifact_type = any (:artifact_types::text[]))
   order by m.alive_h, m.digest
   limit :limit`,
)

/** Live manifests of the repository whose subject this is, oldest first; no types means all types. */
export async function referrerPage(
  db: Queryable,
  options: {
    repository: RepositoryName
    subject: Digest
    artifactTypes: readonly string[]
    lastH: string
    lastDigest: string
    limit: number
  },
): Promise<ReferrerRow[]> {
  const { artifactTypes, lastH, lastDigest, ...rest } = options
  return db.rows(referrers, {
    ...rest,
    artifact_types: artifactTypes,
    last_h: lastH,
    last_digest: lastDigest,
  })
}
