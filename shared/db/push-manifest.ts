// The push: one statement that is the commit point of a manifest.
//
// Its parts are chained by data in the one lock order (registers.ts): repository (FOR KEY SHARE) -> memberships of the
// references, then the pushed manifest's own -> the references' blobs (FOR SHARE) -> manifest and references -> tags,
// in byte order -> history and outbox, selected from the tags' RETURNING. An outbox id is therefore drawn after the row
// lock of the register that the event tells of, and a concurrent delete of anything that the manifest needs either sees
// this push or is seen by it. h is computed in DO UPDATE SET under the lock and exceeds every register it meets: the
// repository's and the membership's death, the membership's and the tag's last write. A push that is acknowledged after
// a delete from a region with a fast clock is therefore alive.
//
// The membership is written before the blobs are locked. Whether the blobs exist is therefore judged by the snapshot
// and compared under their locks. If a blob went away in between, the statement begins again.
//
// Every accepted push raises the version of its registers and writes its events, even if the bytes are the same: a push
// that is acknowledged later must win everywhere.
//
// Conditions (If-Match, If-None-Match) are not part of the statement. A later statement of the transaction, which reads
// what the push overwrote, evaluates them.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import {
  ALIVE_AGAIN,
  isAlive,
  LIVE_REPOSITORY,
  linkShows,
  manifestShows,
  NEXT_EVENT_ID,
  numbered,
  RETURNING_TAG,
  recorded,
  sameCount,
  tagHistoryFrom,
  versionJson,
  type WritePosition,
} from './registers.ts'
import { one, type Queryable, type Statement, statement } from './statement.ts'

/** Manifests up to this size are included in their event. Larger ones are fetched by digest. */
export const INLINE_CONTENT_BYTES_MAX = 256 * 1024

export interface PushedReference {
  readonly kind: 'config' | 'layer' | 'child' | 'subject'
  readonly target: 'blob' | 'manifest'
  readonly position: number
  readonly digest: Digest
  /** Must be in the repository for the push to be accepted. */
  readonly mandatory: boolean
  /**
   * Counts for completeness even if not mandatory, provided that it is here now. Never set for foreign layers and
   * subjects.
   */
  readonly required: boolean
}

export interface ManifestPush {
  readonly repository: RepositoryName
  readonly shard: number
  readonly origin: string
  readonly digest: Digest
  readonly bytes: Buffer
  readonly mediaType: string
  readonly references: readonly PushedReference[]
  /** For a manifest with a subject: what the list of referrers shows. */
  readonly artifactType: string | null
  readonly annotations: Readonly<Record<string, string>> | null
  readonly tags: readonly Tag[]
  /** For an index, stored with its bytes: see ManifestFacts. */
  readonly singleImage: Digest | undefined
  /** What each event of the push includes that does not depend on the database: digest, size, type, subject. Small. */
  readonly facts: Readonly<Record<string, unknown>>
  /**
   * What only `manifest.put` includes in addition: the descriptors. As large as the manifest, so stored once per push.
   */
  readonly manifestFacts: Readonly<Record<string, unknown>>
  readonly provenance: Provenance
}

export type PushOutcome =
  | { readonly kind: 'pushed'; readonly h: bigint; readonly position: WritePosition }
  | { readonly kind: 'repository-missing' }
  | { readonly kind: 'references-missing'; readonly digests: readonly Digest[] }
  | { readonly kind: 'media-type-differs' }

interface PushRow {
  readonly repository: boolean
  readonly missing: Digest[]
  readonly h: string | null
  readonly outbox_id: number | null
  readonly epoch: number
}

const LINKED_MANIFEST = `
   -- Children, and the pushed manifest if it exists. All manifests of the stage in one pass.
   linked_manifest as (
     select m.digest, ${manifestShows('m', 'repo')} as shows
     from repo
     cross join unnest(:manifests::text[]) as wanted (digest)
     join membership as m on m.repository_id = repo.id and m.kind = 'manifest' and m.digest = wanted.digest
     where (select count(*) from linked_blob) >= 0
     order by m.digest
     for no key update of m
   ),`

const ABSENT = `
   -- What a sparse push left out. Other regions do not wait for it either.
   absent as (
     select case when count(*) = 0 then '{}'::jsonb
       else jsonb_build_object('absent', jsonb_agg(distinct reference.digest)) end as facts
     from reference
     where reference.required and not reference.mandatory and not exists (
       select from present where present.target = reference.target and present.digest = reference.digest)
   ),`

/**
 * The statement, in one form for each kind of manifest. Most manifests have no children and lack nothing. For them, the
 * setup that Postgres does for the other forms on each run would cost a fifth.
 */
function pushStatement({ hasChildren, mayLack }: { hasChildren: boolean; mayLack: boolean }) {
  return statement<PushRow>(
    `push-manifest${hasChildren ? '-with-children' : ''}${mayLack ? '-sparse' : ''}`,
    `with repo as (${LIVE_REPOSITORY}),
   reference as (
     select * from unnest(:kinds::text[], :targets::text[], :positions::int[], :digests::text[],
       :mandatory::bool[], :required::bool[])
       as r (kind, target, position, digest, mandatory, required)
   ),
   linked_blob as (
     select m.digest
     from repo
     cross join unnest(:blobs::text[]) as wanted (digest)
     join membership as m on m.repository_id = repo.id and m.kind = 'blob' and m.digest = wanted.digest
     where ${linkShows('m', 'repo')}
     order by m.digest
     for share of m
   ),
   ${hasChildren ? LINKED_MANIFEST : ''}
   present_blob as (
     select b.digest from linked_blob join blob as b on b.digest = linked_blob.digest where b.state = 'ready'
   ),
   present as (
     select 'blob' as target, digest from present_blob
     ${hasChildren ? "union all select 'manifest', digest from linked_manifest where shows" : ''}
   ),
   missing as (
     select reference.digest from reference
     where reference.mandatory and not exists (
       select from present where present.target = reference.target and present.digest = reference.digest)
   ),
   member as (
     insert into membership as m (repository_id, kind, digest, media_type, alive_h, alive_origin,
       alive_written_epoch, alive_written_id)
     select id, 'manifest', :digest, :media_type, greatest(hlc_now(), dead_h + 1), :origin,
       epoch, ${NEXT_EVENT_ID}
     from repo
     where (select count(*) from present) >= 0 and not exists (select from missing)
     on conflict (repository_id, kind, digest) do update
       set media_type = excluded.media_type, ${ALIVE_AGAIN}, alive_written_epoch = excluded.alive_written_epoch,
         alive_written_id = ${NEXT_EVENT_ID}, alive_events = null, alive_early = false
       where m.media_type = excluded.media_type
         or (select not ${isAlive('m', 'repo')} from repo)
     returning m.*
   ),
   stored as (
     select b.digest
     from member
     cross join linked_blob
     join blob as b on b.digest = linked_blob.digest
     where b.state = 'ready'
     order by b.digest
     for share of b
   ),
   bytes_stored as (
     insert into manifest (digest, bytes, size, single_image)
     select digest, :bytes::bytea, octet_length(:bytes::bytea), :single_image from member
     where ${sameCount('stored', 'present_blob', 'a blob that the manifest names went away')}
     on conflict (digest) do update set size = excluded.size, single_image = excluded.single_image
     returning digest
   ),
   ${mayLack ? ABSENT : ''}
   references_stored as (
     insert into manifest_reference as mr
       (manifest, kind, position, digest, target, required, artifact_type, annotations)
     select bytes_stored.digest, r.kind, r.position, r.digest, r.target,
       r.mandatory or (r.required and exists (
         select from present where present.target = r.target and present.digest = r.digest)),
       case when r.kind = 'subject' then :artifact_type::text end,
       case when r.kind = 'subject' then :annotations::text end
     from bytes_stored cross join reference as r
     order by r.kind, r.position
     on conflict (manifest, kind, position) do update set required = true
       where excluded.required and not mr.required
     returning 1
   ),
   tagged as (
     insert into tag as t (repository_id, name, digest, h, origin, alive, actor, at)
     select member.repository_id, wanted.name, member.digest, member.alive_h, :origin, true, :actor, clock_timestamp()
     from member
     cross join unnest(:tags::text[]) as wanted (name)
     where (select count(*) from bytes_stored) >= 0
     order by wanted.name collate "C"
     on conflict (repository_id, name) do update
       set digest = excluded.digest, h = greatest(hlc_now(), excluded.h, t.h + 1), origin = excluded.origin,
         prev_h = t.h, prev_origin = t.origin, alive = true, actor = excluded.actor, at = excluded.at
     ${RETURNING_TAG}
   ),
   event as (${numbered(`
     select 0 as place, null as name, alive_written_id as id, alive_written_epoch as epoch,
       'dev.portolan.registry.manifest.put.v1' as type,
       :repository || '@' || digest as subject, :content::bytea as content,
       :facts::jsonb || jsonb_build_object(
         'version', ${versionJson('member.alive')}, 'prev', ${versionJson('member.alive_prev')})
         || :manifest_facts::jsonb ${mayLack ? '|| (select facts from absent)' : ''} as payload
     from member
     where (select count(*) from tagged) >= 0
     union all
     select 1, name, null, (select alive_written_epoch from member), 'dev.portolan.registry.tag.set.v1',
       :repository || ':' || name, null,
       :facts::jsonb || jsonb_build_object('tag', name,
         'version', ${versionJson('tagged')}, 'prev', ${versionJson('tagged.prev')})
     from tagged
     union all
     select 2, null, null, alive_written_epoch, 'dev.portolan.registry.push.v1', :repository || '@' || digest, null,
       :facts::jsonb || jsonb_build_object('tags', :tags::text[])
     from member`)}
   ),
   history as (${tagHistoryFrom('tagged', 'event')}),
   recorded as (${recorded('event')})
   select exists (select from repo) as repository,
     array(select distinct digest from missing order by digest) as missing,
     (select alive_h::text from member) as h,
     (select max(outbox_id) from recorded) as outbox_id,
     coalesce((select epoch from repo), 0) as epoch`,
  )
}

const PUSHES = Object.freeze({
  plain: pushStatement({ hasChildren: false, mayLack: false }),
  sparse: pushStatement({ hasChildren: false, mayLack: true }),
  withChildren: pushStatement({ hasChildren: true, mayLack: false }),
  sparseWithChildren: pushStatement({ hasChildren: true, mayLack: true }),
})

function pushOf(references: readonly PushedReference[]): Statement<PushRow> {
  const hasChildren = references.some(({ target, kind }) => target === 'manifest' && kind !== 'subject')
  const mayLack = references.some(({ required, mandatory }) => required && !mandatory)
  if (hasChildren) return mayLack ? PUSHES.sparseWithChildren : PUSHES.withChildren
  return mayLack ? PUSHES.sparse : PUSHES.plain
}

/** Runs the push. Any outcome other than 'pushed' has written nothing. */
export async function pushManifestRow(db: Queryable, options: ManifestPush): Promise<PushOutcome> {
  const { references, bytes, digest } = options
  const digestsOf = (target: PushedReference['target']) =>
    new Set(
      references.filter((one) => one.target === target && one.kind !== 'subject').map((one) => one.digest),
    )
  const children = digestsOf('manifest')
  const row = await one(db, pushOf(references), {
    repository: options.repository,
    shard: options.shard,
    origin: options.origin,
    digest,
    bytes,
    single_image: options.singleImage ?? '',
    content: bytes.length <= INLINE_CONTENT_BYTES_MAX ? bytes : null,
    media_type: options.mediaType,
    kinds: references.map(({ kind }) => kind),
    targets: references.map(({ target }) => target),
    // Without children the upsert is the whole stage and needs no lock before it.
    manifests: children.size === 0 ? [] : [...children, digest],
    blobs: [...digestsOf('blob')],
    positions: references.map(({ position }) => position),
    digests: references.map(({ digest }) => digest),
    mandatory: references.map(({ mandatory }) => mandatory),
    required: references.map(({ required }) => required),
    artifact_type: options.artifactType,
    annotations: options.annotations === null ? null : JSON.stringify(options.annotations),
    tags: options.tags,
    facts: JSON.stringify(options.facts),
    manifest_facts: JSON.stringify(options.manifestFacts),
    ...provenanceParameters(options.provenance),
  })
  if (!row.repository) return { kind: 'repository-missing' }
  if (row.missing.length > 0) return { kind: 'references-missing', digests: row.missing }
  if (row.h === null || row.outbox_id === null) return { kind: 'media-type-differs' }
  return { kind: 'pushed', h: BigInt(row.h), position: { epoch: row.epoch, outboxId: row.outbox_id } }
}
