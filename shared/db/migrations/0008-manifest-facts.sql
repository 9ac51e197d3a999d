--! compatible
-- What answers need of a manifest's bytes, found when it is pushed, so that no read parses them.
--
-- single_image: the child of an index that a client from before indexes is given; '' for none. Null in rows that a release
-- without this column wrote: the first read that needs it fills it in.
alter table manifest add column single_image text collate "C";
