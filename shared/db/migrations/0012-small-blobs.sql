--! compatible
-- Small blobs in the database, and upload sessions that cost no commit of their own.
--
-- blob_bytes: the blob store "postgres". A blob row names its key as it names an object's. Releases before this one cannot
-- read them, so none is written while a node of one lives (shared/registry/small-blobs.ts).
create table blob_bytes (
  key text collate "C" primary key,
  bytes bytea not null,
  created_at timestamptz not null default clock_timestamp()
);
-- What is pushed is compressed already. Up to 8 KB it stays in its row: one page is written, and none in a second table.
alter table blob_bytes alter column bytes set storage external;
alter table blob_bytes set (toast_tuple_target = 8160);

-- Sessions are no durable promise: after a crash of the database clients begin a layer anew.
--
-- bytes: all that a session has received, while it is small; null once its bytes are in a store.
-- signed_until: so long a signed Location (shared/registry/upload-ids.ts) can make the session. A session that ended before
-- stays as a row without a repository, so that its Location cannot make it again.
alter table upload set unlogged;
alter table upload add column bytes bytea;
alter table upload alter column bytes set storage external;
alter table upload set (toast_tuple_target = 8160);
alter table upload add column signed_until timestamptz not null default '-infinity';

-- What signs Locations: one row, made by whoever needs it. Unlogged like the sessions, so that both are lost together: after
-- a crash no Location from before it can make a session whose end is forgotten.
create unlogged table upload_key (
  only_row boolean primary key default true check (only_row),
  id uuid not null default gen_random_uuid(),
  secret bytea not null
);
