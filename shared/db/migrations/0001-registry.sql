--! compatible
-- The registry's truth. Every write is a register with a version (h, origin): h is a hybrid logical clock
-- (milliseconds << 16 | counter) computed here, under the row lock, from this database's clock; origin is the region.
-- prev is the version a write overwrote: two writes raced exactly when winner.prev < loser.version.
-- Names compare bytewise (collate "C"), so that pages are in the order the distribution-spec asks for.

create function hlc_now() returns bigint language sql volatile parallel safe
  return (extract(epoch from clock_timestamp()) * 1000)::bigint << 16;

create table region (
  only_row boolean primary key default true check (only_row),
  name text collate "C" not null,
  epoch integer not null default 1 check (epoch > 0),
  system_identifier text not null,
  created_at timestamptz not null default clock_timestamp()
);

-- alive is written when the repository is made and when a push revives it after its death: rarely, so that pushes
-- into one repository share no hot row.
create table repository (
  id bigint generated always as identity primary key,
  name text collate "C" not null unique check (octet_length(name) between 1 and 255),
  shard smallint not null check (shard between 0 and 7),
  alive_h bigint not null,
  alive_origin text collate "C" not null,
  dead_h bigint not null default 0,
  dead_origin text collate "C" not null default '',
  created_at timestamptz not null default clock_timestamp()
);

-- The media type is not here: it belongs to the membership, because a body without mediaType takes it from the
-- request, and two repositories may differ.
create table manifest (
  digest text collate "C" primary key,
  bytes bytea not null,
  size integer not null check (size = octet_length(bytes)),
  created_at timestamptz not null default clock_timestamp()
);
-- Pulls read the bytes far more often than pushes write them: no compression to undo.
alter table manifest alter column bytes set storage external;

-- required: what must be here for the manifest to count as complete. Foreign layers never are; children and blobs
-- that a sparse push may leave out are so from the first push that found them present.
-- artifact_type and annotations (JSON as text: a client's strings may hold what jsonb refuses) are the manifest's own,
-- kept on its subject row: what a referrers answer lists.
create table manifest_reference (
  manifest text collate "C" not null references manifest (digest) on delete cascade,
  kind text collate "C" not null check (kind in ('config', 'layer', 'child', 'subject')),
  position integer not null,
  digest text collate "C" not null,
  target text collate "C" not null check (target in ('blob', 'manifest')),
  required boolean not null,
  artifact_type text,
  annotations text,
  primary key (manifest, kind, position)
);
create index manifest_reference_digest on manifest_reference (digest, kind);

create table membership (
  repository_id bigint not null references repository (id),
  kind text collate "C" not null check (kind in ('manifest', 'blob')),
  digest text collate "C" not null,
  media_type text not null,
  alive_h bigint not null default 0,
  alive_origin text collate "C" not null default '',
  alive_prev_h bigint not null default 0,
  alive_prev_origin text collate "C" not null default '',
  dead_h bigint not null default 0,
  dead_origin text collate "C" not null default '',
  dead_prev_h bigint not null default 0,
  dead_prev_origin text collate "C" not null default '',
  primary key (repository_id, kind, digest)
) with (fillfactor = 80);
create index membership_digest on membership (digest, kind);

-- The digest stays in a tombstone: undo, conflicts and peers read it.
create table tag (
  repository_id bigint not null references repository (id),
  name text collate "C" not null check (octet_length(name) between 1 and 128),
  digest text collate "C" not null,
  h bigint not null,
  origin text collate "C" not null,
  prev_h bigint not null default 0,
  prev_origin text collate "C" not null default '',
  alive boolean not null,
  actor text not null,
  at timestamptz not null,
  primary key (repository_id, name)
) with (fillfactor = 80);
create index tag_live on tag (repository_id, name) where alive;
create index tag_digest on tag (repository_id, digest);

create table tag_history (
  id bigint generated always as identity primary key,
  repository_id bigint not null,
  name text collate "C" not null,
  digest text collate "C" not null,
  h bigint not null,
  origin text collate "C" not null,
  prev_h bigint not null,
  prev_origin text collate "C" not null,
  alive boolean not null,
  actor text not null,
  at timestamptz not null
);
create index tag_history_name on tag_history (repository_id, name, h);

-- The commit of bytes: digest -> (store, key). Keys are opaque and never reused; two digests never share one.
create table blob (
  digest text collate "C" primary key,
  store text not null,
  key text collate "C" not null,
  size bigint not null check (size >= 0),
  state text collate "C" not null default 'ready' check (state in ('ready', 'deleting')),
  lease_until timestamptz not null,
  created_at timestamptz not null default clock_timestamp(),
  unique (store, key)
);

-- An upload session; any node continues it. attempt counts the bodies that joined it: each joins by compare-and-set
-- on (id, offset, attempt).
create table upload (
  id uuid primary key,
  repository text collate "C" not null,
  region text collate "C" not null,
  store text not null,
  algorithm text not null check (algorithm in ('sha256', 'sha512')),
  attempt integer not null default 0,
  "offset" bigint not null default 0 check ("offset" >= 0),
  parts jsonb not null default '[]',
  digest_so_far text collate "C",
  actor text not null,
  created_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null
) with (fillfactor = 70);
create index upload_expiry on upload (expires_at);
create index upload_repository on upload (repository);

-- Events in the order their rows were locked: a row's id is drawn only after the register it tells of was locked.
create table outbox (
  id bigint generated always as identity primary key,
  repository text collate "C" not null,
  shard smallint not null check (shard between 0 and 7),
  type text not null,
  subject text not null,
  payload jsonb not null,
  content bytea,
  traceparent text,
  actor text not null,
  request jsonb not null,
  instance text not null,
  time timestamptz not null default clock_timestamp()
);

create table setting (
  kind text collate "C" not null,
  id text collate "C" not null,
  field text collate "C" not null,
  value jsonb,
  h bigint not null,
  origin text collate "C" not null,
  prev_h bigint not null default 0,
  prev_origin text collate "C" not null default '',
  deleted boolean not null default false,
  primary key (kind, id, field)
);

create table signing_key (
  kid text collate "C" primary key,
  private_jwk jsonb not null,
  public_jwk jsonb not null,
  created_at timestamptz not null,
  signs_from timestamptz not null,
  retires_at timestamptz not null
);
