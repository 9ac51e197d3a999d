// The push: one statement that is the commit point of a manifest.
//
// Its parts are chained by data, and only that chain orders them (a CTE that nothing reads never runs and locks
// nothing): repository (FOR KEY SHARE) -> the references' memberships and blobs (FOR SHARE, compared with what is
// required) -> manifest and references -> membership -> tags, seeded with the membership's h, in byte order -> history
// and outbox, selected from the tags' RETURNING. So an outbox id is drawn after the row lock of the register it tells
// of, a concurrent delete of anything the manifest needs either sees this push or is seen by it, and h, computed in
// DO UPDATE SET under the lock, exceeds every register it meets: the repository's and the membership's death, the
// membership's and the tag's last write. A push acknowledged after a delete from a region with a fast clock is alive.
//
// Every accepted push bumps its registers and writes its events, also when the bytes are the same: a push that is
// acknowledged later must win everywhere.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import { one, type Queryable, statement } from './statement.ts'

/** Manifests up to this size travel inside their event; larger ones are fetched by digest. */
export const INLINE_CONTENT_BYTES_MAX = 256 * 1024

export interface PushedReference {
  readonly kind: 'config' | 'layer' | 'child' | 'subject'
  readonly target: 'blob' | 'manifest'
  readonly position: number
  readonly digest: Digest
  /** Must be in the repository for the push to be accepted. */
  readonly mandatory: boolean
  /** Counts for completeness even if not mandatory, provided that it is here now. Foreign layers and subjects never do. */
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
  /** Of a manifest with a subject: what its referrers answer shows. */
  readonly artifactType: string | null
  readonly annotations: Readonly<Record<string, string>> | null
  readonly tags: readonly Tag[]
  /** Of an index, kept with its bytes: see ManifestFacts. */
  readonly singleImage: Digest | undefined
  /** The event's facts that do not depend on the database: size, descriptors, subject. */
  readonly facts: Readonly<Record<string, unknown>>
  /** The first tag must point to one of these now, or with '*' must exist (If-Match); null: no such condition. */
  readonly ifMatch: readonly string[] | null
  /** The first tag must not exist now (If-None-Match: *). */
  readonly ifNoneMatch: boolean
  readonly provenance: Provenance
}

export type PushOutcome =
  | { readonly kind: 'pushed'; readonly h: bigint; readonly outboxId: number }
  | { readonly kind: 'repository-missing' }
  | { readonly kind: 'references-missing'; readonly digests: readonly Digest[] }
  | { readonly kind: 'media-type-differs' }
  | { readonly kind: 'condition-failed' }

const push = statement<{
  repository: boolean
  missing: Digest[]
  h: string | null
  tags: number
  outbox_id: number | null
}>(
  'push-manifest',
  `with repo as (
     select id, dead_h, dead_origin from repository
     where name = :repository and (alive_h, alive_origin) > (dead_h, dead_origin)
     for key share
   ),
   reference as (
     select * from unnest(:kinds::text[], :targets::text[], :positions::int[], :digests::text[],
       :mandatory::bool[], :required::bool[])
       as r (kind, target, position, digest, mandatory, required)
   ),
   linked as (
     select m.kind, m.digest
     from repo
     cross join (select distinct target, digest from reference where kind <> 'subject') as wanted
     join membership as m on m.repository_id = repo.id and m.kind = wanted.target and m.digest = wanted.digest
     where (m.alive_h, m.alive_origin) > (m.dead_h, m.dead_origin)
       and (m.alive_h, m.alive_origin) > (repo.dead_h, repo.dead_origin)
     order by m.kind, m.digest
     for share of m
   ),
   stored as (
     select b.digest from linked join blob as b on b.digest = linked.digest
     where linked.kind = 'blob' and b.state = 'ready'
     order by b.digest
     for share of b
   ),
   present as (
     select 'blob' as target, digest from stored
     union all
     select kind, digest from linked where kind = 'manifest'
   ),
   missing as (
     select distinct reference.digest from reference
     where reference.mandatory and not exists (
       select from present where present.target = reference.target and present.digest = reference.digest)
   ),
   ready as (
     select id, dead_h from repo where not exists (select from missing)
   ),
   bytes_stored as (
     insert into manifest (digest, bytes, size, single_image)
     select :digest, :bytes::bytea, octet_length(:bytes::bytea), :single_image from ready
     on conflict (digest) do update set size = excluded.size, single_image = excluded.single_image
     returning digest
   ),
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
   member as (
     insert into membership as m (repository_id, kind, digest, media_type, alive_h, alive_origin)
     select ready.id, 'manifest', bytes_stored.digest, :media_type, greatest(hlc_now(), ready.dead_h + 1), :origin
     from ready cross join bytes_stored
     on conflict (repository_id, kind, digest) do update
       set media_type = excluded.media_type,
         alive_h = greatest(hlc_now(), excluded.alive_h, m.alive_h + 1, m.dead_h + 1),
         alive_origin = excluded.alive_origin,
         alive_prev_h = greatest(m.alive_h, m.dead_h),
         alive_prev_origin = case when (m.alive_h, m.alive_origin) >= (m.dead_h, m.dead_origin)
           then m.alive_origin else m.dead_origin end
       where m.media_type = excluded.media_type
         or (m.alive_h, m.alive_origin) <= (m.dead_h, m.dead_origin)
         or (m.alive_h, m.alive_origin) <= (select dead_h, dead_origin from repo)
     returning m.repository_id, m.digest, m.alive_h, m.alive_origin, m.alive_prev_h, m.alive_prev_origin
   ),
   tagged as (
     insert into tag as t (repository_id, name, digest, h, origin, alive, actor, at)
     select member.repository_id, wanted.name, member.digest, member.alive_h, :origin, true, :actor, clock_timestamp()
     from member
     cross join unnest(:tags::text[]) with ordinality as wanted (name, ordinal)
     where wanted.ordinal > 1 or :if_match::text[] is null or exists (
       select from tag where repository_id = member.repository_id and tag.name = wanted.name)
     order by wanted.name collate "C"
     on conflict (repository_id, name) do update
       set digest = excluded.digest, h = greatest(hlc_now(), excluded.h, t.h + 1), origin = excluded.origin,
         prev_h = t.h, prev_origin = t.origin, alive = true, actor = excluded.actor, at = excluded.at
       where (not :if_none_match::bool and :if_match::text[] is null)
         or t.name <> (:tags::text[])[1]
         or case when t.alive
                  and (t.h, t.origin) > (select dead_h, dead_origin from repo)
                  and exists (select from membership as pointed
                    where pointed.repository_id = t.repository_id and pointed.kind = 'manifest'
                      and pointed.digest = t.digest
                      and (t.h, t.origin) > (pointed.dead_h, pointed.dead_origin))
             then not :if_none_match::bool and (:if_match::text[] is null
               or '*' = any (:if_match::text[]) or t.digest = any (:if_match::text[]))
             else :if_match::text[] is null end
     returning t.repository_id, t.name, t.digest, t.h, t.origin, t.prev_h, t.prev_origin, t.alive, t.actor, t.at
   ),
   history as (
     insert into tag_history (repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at)
     select repository_id, name, digest, h, origin, prev_h, prev_origin, alive, actor, at from tagged
     order by name
   ),
   event as (
     select 0 as place, '' as name, 'dev.portolan.registry.manifest.put.v1' as type,
       :repository || '@' || digest as subject, :content::bytea as content,
       jsonb_build_object(
         'version', jsonb_build_object('h', alive_h::text, 'origin', alive_origin),
         'prev', jsonb_build_object('h', alive_prev_h::text, 'origin', alive_prev_origin)) as registers
     from member
     union all
     select 1, name, 'dev.portolan.registry.tag.set.v1', :repository || ':' || name, null,
       jsonb_build_object('tag', name,
         'version', jsonb_build_object('h', h::text, 'origin', origin),
         'prev', jsonb_build_object('h', prev_h::text, 'origin', prev_origin))
     from tagged
     union all
     select 2, '', 'dev.portolan.registry.push.v1', :repository || '@' || digest, null,
       jsonb_build_object('tags', :tags::text[])
     from member
   ),
   recorded as (
     insert into outbox
       (repository, shard, type, subject, payload, content, actor, request, traceparent, instance)
     select :repository, :shard, type, subject, :facts::jsonb || registers, content,
       :actor, :request::jsonb, :traceparent, :instance
     from event
     where (select count(*) from tagged) = cardinality(:tags::text[])
     order by place, name collate "C"
     returning id
   )
   select exists (select from repo) as repository,
     array(select digest from missing order by digest) as missing,
     (select alive_h::text from member) as h,
     (select count(*)::int from tagged) as tags,
     (select max(id) from recorded) as outbox_id`,
)

/**
 * Runs the push. Anything but 'pushed' has to be rolled back by the caller when it ran in a transaction;
 * outside of one, only 'condition-failed' would leave something behind, so pushes with a condition need one.
 */
export async function pushManifestRow(db: Queryable, options: ManifestPush): Promise<PushOutcome> {
  const { references, bytes } = options
  const row = await one(db, push, {
    repository: options.repository,
    shard: options.shard,
    origin: options.origin,
    digest: options.digest,
    bytes,
    single_image: options.singleImage ?? '',
    content: bytes.length <= INLINE_CONTENT_BYTES_MAX ? bytes : null,
    media_type: options.mediaType,
    kinds: references.map(({ kind }) => kind),
    targets: references.map(({ target }) => target),
    positions: references.map(({ position }) => position),
    digests: references.map(({ digest }) => digest),
    mandatory: references.map(({ mandatory }) => mandatory),
    required: references.map(({ required }) => required),
    artifact_type: options.artifactType,
    annotations: options.annotations === null ? null : JSON.stringify(options.annotations),
    tags: options.tags,
    facts: JSON.stringify(options.facts),
    if_match: options.ifMatch,
    if_none_match: options.ifNoneMatch,
    ...provenanceParameters(options.provenance),
  })
  if (!row.repository) return { kind: 'repository-missing' }
  if (row.missing.length > 0) return { kind: 'references-missing', digests: row.missing }
  if (row.h === null) return { kind: 'media-type-differs' }
  if (row.tags !== options.tags.length || row.outbox_id === null) return { kind: 'condition-failed' }
  return { kind: 'pushed', h: BigInt(row.h), outboxId: row.outbox_id }
}
