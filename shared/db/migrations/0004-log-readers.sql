--! compatible
-- Who reads the log by shards and how far each came: what the trimming of the log waits for, and what tells how far other
-- regions are behind. checked_start: the Postgres start up to which the log was compared with what Kafka holds.

create table log_reader (
  reader text collate "C" not null,
  shard smallint not null check (shard between 0 and 7),
  epoch integer not null,
  seq bigint not null,
  seen_at timestamptz not null default clock_timestamp(),
  primary key (reader, shard)
) with (fillfactor = 50);

alter table region add column checked_start timestamptz;

-- How far this region took the log of another, shard by shard, moved in the transaction that applies the events.
create table peer_cursor (
  origin text collate "C" not null,
  shard smallint not null check (shard between 0 and 7),
  epoch integer not null,
  seq bigint not null,
  moved_at timestamptz not null default clock_timestamp(),
  primary key (origin, shard)
) with (fillfactor = 50);

-- Events of a type that this release does not know: kept whole until a later one applies them.
create table parked_event (
  origin text collate "C" not null,
  epoch integer not null,
  shard smallint not null,
  seq bigint not null,
  type text collate "C" not null,
  event jsonb not null,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (origin, epoch, shard, seq)
);
create index parked_event_type on parked_event (type);

-- The outbox is a queue: everything in it dies within milliseconds. It is vacuumed by what died, not by what is left.
alter table outbox set (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
