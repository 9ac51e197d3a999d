--! compatible
-- What the log needs to stand on. region: the server that was last seen (with system_identifier and timeline), and the
-- greatest outbox id whose event was trimmed, so that a position is told from one that was never given. event_log.bytes:
-- what an event takes when it is rendered, without its content; null in rows of an older release.

alter table region add column server_start timestamptz;
alter table region add column trimmed_outbox_id bigint;
alter table event_log add column bytes integer;

-- An upper estimate of an event as JSON, in bytes: 700 are the names and numbers of its attributes. Text, not the stored
-- size: a list of ten thousand digests is stored in a tenth of what it takes to send.
create function event_bytes(type text, subject text, repository text, actor text, payload jsonb, request jsonb)
  returns integer language sql immutable parallel safe as $$
  select 700 + 3 * octet_length(type) + octet_length(subject) + octet_length(repository) + 2 * octet_length(actor)
    + octet_length(payload::text) + octet_length(request::text)
$$;
