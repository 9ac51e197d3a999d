--! compatible
-- Webhooks: how far events were looked at for them, and one row per event and subscription. The event is in the row: it may
-- be sent again after the log has let go of it.

create table event_cursor (
  reader text collate "C" primary key,
  epoch integer not null,
  pos bigint not null,
  moved_at timestamptz not null default clock_timestamp()
);

create table webhook_delivery (
  id text collate "C" primary key,
  subscription uuid not null,
  number bigint generated always as identity,
  repository text collate "C" not null,
  event jsonb not null,
  state text collate "C" not null default 'waiting' check (state in ('waiting', 'delivered', 'parked')),
  attempts integer not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  leased_until timestamptz not null default '-infinity',
  give_up_at timestamptz not null,
  status integer,
  answer text,
  attempted_at timestamptz,
  created_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
create index webhook_delivery_due on webhook_delivery (subscription, number) where state = 'waiting';
create index webhook_delivery_listed on webhook_delivery (subscription, number);
create index webhook_delivery_done on webhook_delivery (attempted_at) where state <> 'waiting';
