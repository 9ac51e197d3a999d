// Settings: registers of single fields, each with its version, written by this one function, so that regions can agree on
// each field by itself. Removing a setting is a tombstone in each of its fields.

import { type Provenance, provenanceParameters } from './provenance.ts'
import { type Queryable, statement } from './statement.ts'

export type SettingKind = 'webhook'

export interface SettingFields {
  readonly id: string
  /** Field -> value, as JSON has it. */
  readonly fields: Readonly<Record<string, unknown>>
}

const write = statement<{ field: string }>(
  'write-setting',
  `with wanted as (
     select field, value from jsonb_each(:fields::jsonb) as f (field, value)
   ),
   written as (
     insert into setting as s (kind, id, field, value, h, origin, deleted)
     select :kind, :id, field, case when :deleted::bool then null else value end, hlc_now(), :origin, :deleted::bool
     from wanted
     order by field collate "C"
     on conflict (kind, id, field) do update
       set value = excluded.value, deleted = excluded.deleted, h = greatest(hlc_now(), s.h + 1),
         origin = excluded.origin, prev_h = s.h, prev_origin = s.origin
     returning s.field, s.value, s.h, s.origin, s.prev_h, s.prev_origin, s.deleted
   ),
   event as (
     insert into outbox (repository, shard, type, subject, payload, actor, request, traceparent, instance)
     select '', 0, 'dev.portolan.registry.setting.set.v1', :kind || '/' || :id || '#' || field,
       jsonb_build_object('kind', :kind::text, 'id', :id::text, 'field', field, 'value', value, 'deleted', deleted,
         'version', jsonb_build_object('h', h::text, 'origin', origin),
         'prev', jsonb_build_object('h', prev_h::text, 'origin', prev_origin)),
       :actor, :request::jsonb, :traceparent, :instance
     from written
     order by field
     returning id
   )
   select field from written where exists (select from event)`,
)

/** Writes the fields given (others stay) and their events, in one statement. */
export async function writeSetting(
  db: Queryable,
  options: SettingFields & { kind: SettingKind; origin: string; provenance: Provenance; deleted?: boolean },
): Promise<void> {
  const { kind, id, fields, origin, provenance, deleted = false } = options
  await db.rows(write, {
    kind,
    id,
    fields: JSON.stringify(fields),
    origin,
    deleted,
    ...provenanceParameters(provenance),
  })
}

const read = statement<{ id: string; fields: Record<string, unknown> }>(
  'read-settings',
  `select id, jsonb_object_agg(field, value) as fields from setting
   where kind = :kind and not deleted group by id order by id`,
)

/** Every setting of a kind, by id; those of which nothing is left do not appear. */
export async function readSettings(db: Queryable, kind: SettingKind): Promise<SettingFields[]> {
  return db.rows(read, { kind })
}
