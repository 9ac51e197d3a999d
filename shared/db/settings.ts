// Settings: registers of single fields, each with its version, so that regions can agree on each field separately.
//
// An object has a kind, an id, its fields, and an existence register: the row whose field is ''. Deleting kills that
// register and, with it, every field. A writer that changes or deletes an object first locks the register and then
// judges in a later statement, so the object is always either fully there or fully gone. Settings come last in the lock
// order, '' before the other fields of an object.
//
// Secret fields are sealed here and nowhere else: a row and an event hold ciphertext. A value that cannot be opened is
// reported along with the others and blocks nothing.

import { isSealed, SealError, type Sealer } from '#shared/secrets/sealer.ts'
import { type Provenance, provenanceParameters } from './provenance.ts'
import { maybe, type Queryable, statement } from './statement.ts'

export type SettingKind = 'webhook'

/**
 * Fields whose values are sealed. A webhook's URL is included, because receivers such as chat rooms put their token
 * into the path.
 */
export const SECRET_FIELDS: Readonly<Record<SettingKind, readonly string[]>> = Object.freeze({
  webhook: Object.freeze(['url', 'headers', 'secret', 'previousSecret']),
})

export interface SettingObject {
  readonly kind: SettingKind
  readonly id: string
}

export interface SettingFields {
  readonly id: string
  /** Field -> value, as JSON. Secret values are sealed. */
  readonly fields: Readonly<Record<string, unknown>>
}

export interface OpenedFields extends SettingFields {
  /** Secret fields that could not be opened -> the reason. They are not in `fields`. */
  readonly closed: Readonly<Record<string, string>>
}

const EXISTENCE = ''

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
     order by field collate "C"
     returning id
   )
   select field from written where exists (select from event)`,
)

export interface SettingWriter {
  readonly sealer: Sealer
  readonly origin: string
  readonly provenance: Provenance
}

/** Writes a new object, or some fields of an existing one (see `lockSetting`), and their events. */
export async function writeSetting(
  db: Queryable,
  writer: SettingWriter,
  options: SettingObject & SettingFields & { isNew: boolean },
): Promise<void> {
  const { kind, id, fields, isNew } = options
  const sealed = Object.entries(fields).map(([field, value]) => [
    field,
    value !== null && SECRET_FIELDS[kind].includes(field)
      ? writer.sealer.seal(JSON.stringify(value), placeOf({ kind, id }, field))
      : value,
  ])
  const all = { ...(isNew && { [EXISTENCE]: true }), ...Object.fromEntries(sealed) }
  await run(db, writer, { kind, id, fields: all, deleted: false })
}

/** Kills the object's existence and every field of it. The object must be locked. */
export async function deleteSetting(
  db: Queryable,
  writer: Omit<SettingWriter, 'sealer'>,
  object: SettingObject,
): Promise<void> {
  const fields = (await readSetting(db, object))?.fields ?? {}
  await run(db, writer, { ...object, fields: { ...fields, [EXISTENCE]: true }, deleted: true })
}

async function run(
  db: Queryable,
  { origin, provenance }: Omit<SettingWriter, 'sealer'>,
  options: SettingObject & SettingFields & { deleted: boolean },
): Promise<void> {
  const { fields, ...rest } = options
  await db.rows(write, {
    ...rest,
    fields: JSON.stringify(fields),
    origin,
    ...provenanceParameters(provenance),
  })
}

/** Returns where a value is stored. A sealed value can be opened only there. */
export function placeOf({ kind, id }: { kind: string; id: string }, field: string): string {
  return `setting/${kind}/${id}/${field}`
}

/** Opens sealed values. Values in clear, from before values were sealed, are returned unchanged. */
export function openFields(
  sealer: Sealer | undefined,
  kind: SettingKind,
  { id, fields }: SettingFields,
): OpenedFields {
  const opened: Record<string, unknown> = {}
  const closed: Record<string, string> = {}
  for (const [field, value] of Object.entries(fields)) {
    if (!isSealed(value) || !SECRET_FIELDS[kind].includes(field)) {
      opened[field] = value
      continue
    }
    try {
      if (sealer === undefined) throw new SealError('it is sealed, and PORTOLAN_SECRETS_KEY is not set')
      opened[field] = JSON.parse(sealer.open(value, placeOf({ kind, id }, field)))
    } catch (thrown) {
      if (!(thrown instanceof SealError)) throw thrown
      closed[field] = thrown.message
    }
  }
  return { id, fields: opened, closed }
}

const read = statement<SettingFields>(
  'read-settings',
  // Without an existence register, an object exists while it has a field: an older release, which may run beside this
  // one, writes no such register.
  `select id, jsonb_object_agg(field, value) filter (where field <> '' and not deleted) as fields
   from setting where kind = :kind and (:id::text is null or id = :id)
   group by id
   having bool_or(field <> '' and not deleted) and not bool_or(field = '' and deleted)
   order by id`,
)

/** Returns every existing object of a kind, by id, as stored. */
export async function readSettings(db: Queryable, kind: SettingKind): Promise<SettingFields[]> {
  return db.rows(read, { kind, id: null })
}

/** Returns one object as stored, or undefined if it does not exist. */
export async function readSetting(db: Queryable, object: SettingObject): Promise<SettingFields | undefined> {
  return maybe(db, read, { ...object })
}

const makeExistence = statement<never>(
  'make-existence',
  `insert into setting (kind, id, field, value, h, origin)
   select kind, id, '', 'true', max(h), (array_agg(origin order by h desc, origin desc))[1]
   from setting where kind = :kind and id = :id and not deleted group by kind, id
   on conflict do nothing`,
)

const lock = statement<never>(
  'lock-setting',
  `select from setting where kind = :kind and id = :id and field = '' for update`,
)

/**
 * Locks an object until the transaction ends, whether or not it exists. Read its current state after this call: the
 * statement that waited for the lock saw the state before.
 */
export async function lockSetting(transaction: Queryable, object: SettingObject): Promise<void> {
  await transaction.rows(makeExistence, { ...object })
  await transaction.rows(lock, { ...object })
}

const lockAll = statement<never>(
  'lock-setting-kind',
  `select pg_advisory_xact_lock(7065813, hashtext('settings ' || :kind))`,
)

/**
 * Serializes transactions that add objects of a kind, until the transaction ends, so that their number can be bounded.
 */
export async function lockSettingKind(transaction: Queryable, kind: SettingKind): Promise<void> {
  await transaction.rows(lockAll, { kind })
}
