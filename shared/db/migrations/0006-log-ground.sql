--! compatible
-- What the log needs to stand on. region: the server that was last seen (with system_identifier and timeline), and the
-- greatest outbox id whose event was trimmed, so that a position is told from one that was never given.
-- event_log.bytes: what an event takes when it is rendered, without its content; null in rows of an older release.
-- event_log.left_out: what the payload of a large event lacks, so that most readers never load it.

alter table region add column server_start timestamptz;
alter table region add column trimmed_outbox_id bigint;
alter table event_log add column bytes integer;
alter table event_log add column left_out jsonb;

-- An event as JSON, in bytes, estimated from above; 700 are the names and numbers of its attributes. What is compressed or
-- large is rendered to be measured: a list of ten thousand digests is stored in a tenth of what it takes to send. What is
-- small and plain is about as long as it is stored, and not rendered: every push pays for this.
create function event_bytes(type text, subject text, repository text, actor text, payload jsonb, request jsonb)
  returns integer language sql stable parallel safe as $$
  select 700 + 3 * octet_length(type) + octet_length(subject) + octet_length(repository) + 2 * octet_length(actor)
    + case when pg_column_compression(payload) is null and pg_column_compression(request) is null
          and pg_column_size(payload) + pg_column_size(request) < 2000
        then (pg_column_size(payload) + pg_column_size(request)) * 5 / 4
        else octet_length(payload::text) + octet_length(request::text) end
$$;
