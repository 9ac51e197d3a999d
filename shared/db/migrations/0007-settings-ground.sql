--! compatible
-- Settings: each object has an existence register beside its fields, in the row whose field is ''. It is what a delete
-- kills and what writers of one object lock, so that an object is fully there or fully gone. Objects from before get
-- theirs here: alive while a field is left.
--
-- Secret values are sealed by the program, which has the keys (shared/db/seal-stored-secrets.ts), once no older
-- release runs. It also seals what events hold, and finds them by this index.

insert into setting (kind, id, field, value, h, origin, deleted)
select kind, id, '', case when bool_or(not deleted) then 'true'::jsonb end, max(h),
  (array_agg(origin order by h desc, origin desc))[1], not bool_or(not deleted)
from setting group by kind, id
on conflict do nothing;

create index event_log_setting on event_log (epoch, pos) where type = 'dev.portolan.registry.setting.set.v1';
