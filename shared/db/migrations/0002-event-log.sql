--! compatible
-- The region's event log: what the relay makes of outbox rows. pos is gapless in the region, seq gapless in a shard, both
-- from 1 in each epoch. Rows are only ever added at the end and trimmed at the beginning. event_head holds the last
-- numbers given; shard -1 is the region's own count.

create table event_log (
  epoch integer not null,
  pos bigint not null check (pos > 0),
  shard smallint not null check (shard between 0 and 7),
  seq bigint not null check (seq > 0),
  outbox_id bigint not null,
  repository text collate "C" not null,
  type text not null,
  subject text not null,
  payload jsonb not null,
  content bytea,
  traceparent text,
  actor text not null,
  request jsonb not null,
  instance text not null,
  time timestamptz not null,
  logged_at timestamptz not null default clock_timestamp(),
  primary key (epoch, pos),
  unique (epoch, shard, seq),
  unique (epoch, outbox_id)
);
alter table event_log alter column content set storage external;
create index event_log_age on event_log (logged_at);

create table event_head (
  epoch integer not null,
  shard smallint not null check (shard between -1 and 7),
  seq bigint not null default 0,
  primary key (epoch, shard)
) with (fillfactor = 50);

-- What tells a restored database from the one that went on: its system identifier changes with a dump that is read
-- into a new cluster, its timeline when a base backup or a standby is promoted. While sweeps are paused, bytes without
-- a row may belong to pushes that the backup does not know.
alter table region add column timeline integer;
alter table region add column sweeps_paused_until timestamptz;
