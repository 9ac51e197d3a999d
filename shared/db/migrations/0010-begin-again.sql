--! compatible
-- Ends the statement that calls it with a serialization failure, which whoever runs statements answers by running it
-- again (connect.ts). For a statement that judged a row by its snapshot, locked it later in its place in the lock
-- order, and found that it had changed: what it wrote before must go, and the next snapshot shows the change.
create function begin_again(reason text) returns boolean language plpgsql volatile as $$
begin
  raise exception using errcode = 'serialization_failure', message = reason;
end
$$;
