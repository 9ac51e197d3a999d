--! compatible
-- A blob whose object was found missing, of the wrong size or of the wrong content is 'damaged': its row stays, so that
-- links and history stay, but nothing that asks for a 'ready' blob finds it. The next upload of the digest replaces the
-- key and makes it 'ready' again. Releases before this one ask for 'ready' too, so they agree.
-- damage and damaged_at tell of the last time; they stay after a repair, because an older node would not clear them.
alter table blob drop constraint blob_state_check;
alter table blob add constraint blob_state_check check (state in ('ready', 'deleting', 'damaged'));
alter table blob add column damage text collate "C" check (damage in ('missing', 'size', 'digest'));
alter table blob add column damaged_at timestamptz;
create index blob_damaged on blob (digest) where state = 'damaged';
