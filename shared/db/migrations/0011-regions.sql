--! compatible
-- What registers need to know so that several regions agree, and what cannot be found out later.
--
-- written_*: what the writing region calls a write (epoch and outbox id). events: where its origin's log has it, a list of
-- {"epoch", "seq"}; null until it came by log, and always null in rows of this region, whose own log tells. early: merged
-- from what a peer answered, before its event came. dead_by: what the region that deleted knew (shared/convergence,
-- `Death`). Rows that an older release writes have the defaults, and deaths without dead_by saw everything.

alter table region add column lineage jsonb not null default '[]';
alter table region add column pruned_h bigint not null default 0;

alter table repository add column dead_by jsonb;

alter table membership
  add column alive_written_epoch integer not null default 0,
  add column alive_written_id bigint not null default 0,
  add column alive_events jsonb,
  add column alive_early boolean not null default false,
  add column dead_by jsonb;
create index membership_early on membership (repository_id, digest) where alive_early;

-- superseded: some version names this one as the one it overwrote. It is set when a tag is judged for lost races, so
-- pushes into a region without peers do not pay for it.
alter table tag_history
  add column written_epoch integer not null default 0,
  add column written_id bigint not null default 0,
  add column events jsonb,
  add column early boolean not null default false,
  add column superseded boolean not null default false;
-- A version is merged once however often it comes. The order of the columns also finds what a death of a digest kills.
-- It takes the place of the index on id, which nothing asked for: a push writes as many index entries as before.
create unique index tag_history_version on tag_history (repository_id, digest, name, h, origin, alive);
alter table tag_history drop constraint tag_history_pkey;
create index tag_history_early on tag_history (repository_id, digest) where early;

-- How far the log of an origin was applied in epochs before the one of peer_cursor.
create table peer_epoch (
  origin text collate "C" not null,
  shard smallint not null check (shard between 0 and 7),
  epoch integer not null,
  seq bigint not null,
  primary key (origin, shard, epoch)
);

alter table parked_event add column reason text;

-- Lost races of tags: candidates, each judged again when it is read, because a later push may say the same. The event
-- that tells of one is written once, by the region that lost.
create table tag_conflict (
  repository_id bigint not null references repository (id),
  name text collate "C" not null,
  digest text collate "C" not null,
  h bigint not null,
  origin text collate "C" not null,
  alive boolean not null,
  found_at timestamptz not null default clock_timestamp(),
  told_at timestamptz,
  primary key (repository_id, name, h, origin, digest, alive)
);

-- Writes that a death killed although the region that deleted had not seen them. subject: a tag or a manifest's digest.
create table delete_conflict (
  repository_id bigint not null references repository (id),
  subject text collate "C" not null,
  digest text collate "C" not null,
  h bigint not null,
  origin text collate "C" not null,
  dead_h bigint not null,
  dead_origin text collate "C" not null,
  found_at timestamptz not null default clock_timestamp(),
  told_at timestamptz,
  primary key (repository_id, subject, h, origin, digest, dead_h, dead_origin)
);

-- True when one of a write's events lies within what was applied of its origin's log.
create function is_seen(seen jsonb, written_by text, events jsonb) returns boolean language sql immutable parallel safe as $$
  select exists (
    select from jsonb_to_recordset(coalesce(events, '[]')) as event (epoch integer, seq bigint)
    join jsonb_to_recordset(coalesce(seen -> written_by, '[]')) as applied (epoch integer, seq bigint)
      on applied.epoch = event.epoch and event.seq <= applied.seq)
$$;

-- Both lists of places in a log, each place once; null for none.
create function both_events(a jsonb, b jsonb) returns jsonb language sql immutable parallel safe as $$
  select case when a is null or a = b then b when b is null then a else (
    select jsonb_agg(place order by (place -> 'epoch')::integer, (place -> 'seq')::bigint)
    from (select jsonb_array_elements(a) as place union select jsonb_array_elements(b)) as places) end
$$;

-- What is known of two deaths with one version, which a restored region may have given: what both saw.
create function both_deaths(a jsonb, b jsonb) returns jsonb language sql immutable parallel safe as $$
  select case when a is null or a = b then b when b is null then a else a || jsonb_build_object(
    'seen', (
      select coalesce(jsonb_object_agg(written_by, places), '{}') from (
        select a_seen.key as written_by, jsonb_agg(jsonb_build_object(
          'epoch', a_at.epoch, 'seq', least(a_at.seq, b_at.seq)) order by a_at.epoch) as places
        from jsonb_each(a -> 'seen') as a_seen
        cross join jsonb_to_recordset(a_seen.value) as a_at (epoch integer, seq bigint)
        join jsonb_to_recordset(coalesce(b -> 'seen' -> a_seen.key, '[]')) as b_at (epoch integer, seq bigint)
          on b_at.epoch = a_at.epoch
        group by a_seen.key) as seen_by_both),
    'early', (
      select coalesce(jsonb_agg(one), '[]') from jsonb_array_elements(a -> 'early') as one
      where b -> 'early' @> jsonb_build_array(one)),
    'lineage', (
      select coalesce(jsonb_agg(jsonb_build_object('epoch', a_at.epoch, 'id', least(a_at.id, b_at.id))
        order by a_at.epoch), '[]')
      from jsonb_to_recordset(a -> 'lineage') as a_at (epoch integer, id bigint)
      join jsonb_to_recordset(b -> 'lineage') as b_at (epoch integer, id bigint) on b_at.epoch = a_at.epoch),
    'written', (
      select jsonb_build_object('epoch', epoch, 'id', id)
      from jsonb_to_recordset(jsonb_build_array(a -> 'written', b -> 'written')) as either (epoch integer, id bigint)
      order by epoch desc, id desc limit 1)) end
$$;

-- Whether a death killed a write that its region had not seen; null: the write's event has to arrive first.
create function killed_unseen(
  death jsonb, dead_h bigint, dead_origin text,
  subject text, value text, h bigint, origin text, written_epoch integer, written_id bigint, events jsonb
) returns boolean language sql immutable parallel safe as $$
  select case
    when (h, origin collate "C") > (dead_h, dead_origin collate "C") or death is null then false
    when death -> 'early' @> jsonb_build_array(jsonb_build_object(
      'subject', subject, 'value', value, 'version', jsonb_build_object('h', h::text, 'origin', origin))) then false
    when is_seen(death -> 'seen', origin, events) then false
    when origin = dead_origin then not exists (
      select from jsonb_to_recordset(death -> 'lineage') as known (epoch integer, id bigint)
      where known.epoch = written_epoch and written_id <= known.id)
    when events is not null then true
  end
$$;

-- Whether an index of the repository that shows names the manifest, four levels up (shared/convergence/visibility.ts).
create function kept_by_index(of_repository bigint, of_digest text) returns boolean
  language sql stable parallel safe as $$
  with recursive up (digest, alive, depth) as (
    select of_digest collate "C", false, 0
    union
    select m.digest, (m.alive_h, m.alive_origin) > (m.dead_h, m.dead_origin)
      and (m.alive_h, m.alive_origin) > (r.dead_h, r.dead_origin), up.depth + 1
    from up
    join manifest_reference as naming on naming.digest = up.digest and naming.kind = 'child'
    join membership as m on m.repository_id = of_repository and m.kind = 'manifest' and m.digest = naming.manifest
    join repository as r on r.id = of_repository
    where not up.alive and up.depth < 4 and m.alive_h > 0
  )
  select exists (select from up where alive)
$$;
