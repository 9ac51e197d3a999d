// Manifest bytes by digest, and what refers to a subject. Bytes never change: any connection may read them, and the
// cache above reads each only once. Whether a repository holds a digest is a separate question (lookups.ts).

import type { Digest } from '#shared/oci/digest.ts'
import type { ManifestFacts } from '#shared/oci/manifest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { manifestShows } from './registers.ts'
import { type Queryable, statement } from './statement.ts'

export interface StoredManifest {
  readonly bytes: Buffer
  /** undefined if a release that kept no facts stored the manifest, and its facts have not been needed since. */
  readonly facts: ManifestFacts | undefined
}

const manifests = statement<{ digest: Digest; bytes: Buffer; single_image: Digest | '' | null }>(
  'manifest-bytes',
  `select digest, bytes, single_image from manifest where digest = any (:digests::text[])`,
)

/** Returns the manifests that are stored. The caller bounds the number of digests. */
export async function storedManifests(
  db: Queryable,
  digests: readonly Digest[],
): Promise<Map<Digest, StoredManifest>> {
  const rows = await db.rows(manifests, { digests })
  return new Map(
    rows.map(({ digest, bytes, single_image }) => [
      digest,
      { bytes, facts: single_image === null ? undefined : { singleImage: single_image || undefined } },
    ]),
  )
}

const fillIn = statement(
  'fill-in-manifest-facts',
  `update manifest set single_image = :single_image where digest = :digest and single_image is null`,
)

/** Stores the facts of a manifest that was stored without them. */
export async function fillInFacts(db: Queryable, digest: Digest, facts: ManifestFacts): Promise<void> {
  await db.rows(fillIn, { digest, single_image: facts.singleImage ?? '' })
}

export interface ReferrerRow {
  readonly digest: Digest
  readonly mediaType: string
  /** Bytes of the manifest. */
  readonly size: number
  readonly artifactType: string | null
  /** The membership's version. Pages are in its order. */
  readonly h: string
  /** The manifest's annotations as JSON. null if there are none, or if they take more than `annotationsBytesMax`. */
  readonly annotations: string | null
}

// Two steps, as for the pages of the log. First, rows that could be on the page are measured without their annotations,
// whose length is known without reading them. Then only the rows that fit are read whole. 100 bytes are more than the
// punctuation, field names and size of a descriptor.
const referrers = statement<ReferrerRow & { candidates: number }>(
  'referrer-page',
  `with candidate as materialized (
     select m.alive_h, m.digest, m.media_type, manifest.size, reference.artifact_type,
       reference.annotations is not null and octet_length(reference.annotations) <= :annotations_bytes_max as annotated,
       100 + octet_length(m.media_type) + octet_length(m.digest) + coalesce(octet_length(reference.artifact_type), 0)
         + case when octet_length(reference.annotations) <= :annotations_bytes_max
             then octet_length(reference.annotations) else 0 end as bytes
     from repository as r
     join manifest_reference as reference on reference.digest = :subject and reference.kind = 'subject'
     join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = reference.manifest
     join manifest on manifest.digest = m.digest
     where r.name = :repository and (m.alive_h, m.digest) > (:last_h::bigint, :last_digest::text)
       and ${manifestShows('m', 'r')}
       and (cardinality(:artifact_types::text[]) = 0 or reference.artifact_type = any (:artifact_types::text[]))
     order by m.alive_h, m.digest
     limit :limit
   ),
   measured as (
     select *, sum(bytes) over (order by alive_h, digest) - bytes as before, count(*) over () as candidates
     from candidate
   )
   select measured.digest, media_type as "mediaType", size, measured.artifact_type as "artifactType",
     case when annotated then reference.annotations end as annotations, alive_h::text as h, candidates::int
   from measured
   join manifest_reference as reference
     on reference.manifest = measured.digest and reference.kind = 'subject' and reference.position = 0
   where before + bytes <= :bytes_max or before = 0
   order by alive_h, measured.digest`,
)

/**
 * Returns live manifests of the repository with this subject, oldest first. No types means all types. The rows take at
 * most `bytesMax` as descriptors in JSON, or are one row. `more`: there are more rows after these, or `limit` was
 * reached.
 */
export async function referrerPage(
  db: Queryable,
  options: {
    repository: RepositoryName
    subject: Digest
    artifactTypes: readonly string[]
    lastH: string
    lastDigest: string
    limit: number
    bytesMax: number
    annotationsBytesMax: number
  },
): Promise<{ rows: ReferrerRow[]; more: boolean }> {
  const rows = await db.rows(referrers, {
    repository: options.repository,
    subject: options.subject,
    artifact_types: options.artifactTypes,
    last_h: options.lastH,
    last_digest: options.lastDigest,
    limit: options.limit + 1,
    bytes_max: options.bytesMax,
    annotations_bytes_max: options.annotationsBytesMax,
  })
  const more = rows.length < (rows[0]?.candidates ?? 0) || rows.length > options.limit
  return { rows: rows.slice(0, options.limit), more }
}
