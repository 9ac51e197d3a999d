--! compatible
-- identity: which database this is. It is made once and travels with the rows, so a dump, a base backup and a promoted
-- standby are the same database, and an empty one is another. A blob store's marker names it.
-- blobs_seen: the most objects with a row that a sweep of the store has ever counted. A sweep that would remove more
-- than that looks at a database that does not know the store.
alter table region add column identity uuid not null default gen_random_uuid();
alter table region add column blobs_seen bigint not null default 0;

-- Objects of request bodies that are still arriving after a while. A sweep leaves them alone whatever their age is.
-- Unlogged: a crash of the database ends these requests too.
create unlogged table attempt (
  store text not null,
  key text collate "C" not null,
  seen_at timestamptz not null default clock_timestamp(),
  primary key (store, key)
);
