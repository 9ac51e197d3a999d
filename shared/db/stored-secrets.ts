// Finds and replaces secret values that are not sealed under the current key: values in clear from before values were
// sealed, or values under an older key. They are in settings, in the events that told of them (outbox and log) and in
// signing keys. Each is replaced separately, and only if it is still what was read. The version stays, because the
// value is the same.

import { isSealed, type Sealer } from '#shared/secrets/sealer.ts'
import { placeOf, SECRET_FIELDS } from './settings.ts'
import { placeOfSigningKey } from './signing-keys.ts'
import { type Queryable, statement } from './statement.ts'

const BATCH = 200

/** A value and its location. `row` finds it again, and its seal is bound to `place`. */
interface Found {
  readonly row: unknown
  readonly kind: string
  readonly id: string
  readonly field: string
  readonly value: unknown
}

const SETTING_EVENT = 'dev.portolan.registry.setting.set.v1'

/** `:prefix` is the beginning of a current text. A JSON null is not a secret. */
const stale = (value: string) => `left(${value} #>> '{}', length(:prefix::text)) <> :prefix::text`
const secretEvent = `type = '${SETTING_EVENT}' and (payload ->> 'kind') || '#' || (payload ->> 'field') = any(:secrets)`
const ofEvent = `payload ->> 'kind' as kind, payload ->> 'id' as id, payload ->> 'field' as field, payload -> 'value' as value`

/** Each source: the query that finds values after a row, in order, and the statement that replaces one. */
const sources = Object.freeze([
  {
    find: statement<Found>(
      'stale-settings',
      `select jsonb_build_array(kind, id, field) as row, kind, id, field, value from setting
       where kind || '#' || field = any(:secrets) and not deleted and ${stale('value')}
         and (:after::jsonb is null or (kind, id, field) > (:after::jsonb ->> 0, :after::jsonb ->> 1, :after::jsonb ->> 2))
       order by kind, id, field limit ${BATCH}`,
    ),
    replace: statement<object>(
      'reseal-setting',
      `update setting set value = :sealed::jsonb
       where kind = :row::jsonb ->> 0 and id = :row::jsonb ->> 1 and field = :row::jsonb ->> 2 and value = :value::jsonb
       returning 1`,
    ),
  },
  {
    find: statement<Found>(
      'stale-signing-keys',
      `select to_jsonb(kid) as row, 'signing-key' as kind, kid as id, '' as field, private_jwk as value from signing_key
       where ${stale('private_jwk')} and (:after::jsonb is null or kid > :after::jsonb #>> '{}')
         and cardinality(:secrets::text[]) > 0
       order by kid limit ${BATCH}`,
    ),
    replace: statement<object>(
      'reseal-signing-key',
      `update signing_key set private_jwk = :sealed::jsonb
       where kid = :row::jsonb #>> '{}' and private_jwk = :value::jsonb returning 1`,
    ),
  },
  // The outbox before the log: events that move meanwhile are found in the log.
  {
    find: statement<Found>(
      'stale-outbox',
      `select to_jsonb(outbox.id) as row, ${ofEvent} from outbox
       where ${secretEvent} and ${stale("(payload -> 'value')")}
         and (:after::jsonb is null or outbox.id > (:after::jsonb #>> '{}')::bigint)
       order by outbox.id limit ${BATCH}`,
    ),
    replace: statement<object>(
      'reseal-outbox',
      `update outbox set payload = jsonb_set(payload, '{value}', :sealed::jsonb)
       where id = (:row::jsonb #>> '{}')::bigint and payload -> 'value' = :value::jsonb returning 1`,
    ),
  },
  {
    find: statement<Found>(
      'stale-events',
      `select jsonb_build_array(epoch, pos) as row, ${ofEvent} from event_log
       where ${secretEvent} and ${stale("(payload -> 'value')")}
         and (:after::jsonb is null
           or (epoch, pos) > ((:after::jsonb ->> 0)::int, (:after::jsonb ->> 1)::bigint))
       order by epoch, pos limit ${BATCH}`,
    ),
    replace: statement<object>(
      'reseal-event',
      `update event_log set payload = jsonb_set(payload, '{value}', :sealed::jsonb)
       where epoch = (:row::jsonb ->> 0)::int and pos = (:row::jsonb ->> 1)::bigint
         and payload -> 'value' = :value::jsonb returning 1`,
    ),
  },
])

function parametersOf(sealer: Sealer | undefined) {
  const secrets = Object.entries(SECRET_FIELDS).flatMap(([kind, fields]) =>
    fields.map((field) => `${kind}#${field}`),
  )
  // Without a key, finds only values in clear.
  return { secrets, prefix: sealer?.prefix ?? 'sealed:' }
}

/** True if some secret value is in clear. */
export async function anyInClear(db: Queryable): Promise<boolean> {
  for (const { find } of sources) {
    if ((await db.rows(find, { ...parametersOf(undefined), after: null })).length > 0) return true
  }
  return false
}

/**
 * Seals everything under the sealer's first key. Returns the number of values replaced. Values that cannot be opened
 * stay. Each statement is short and commits by itself, so this may be interrupted and repeated, and may run beside
 * writers.
 */
export async function sealAll(
  db: Queryable,
  sealer: Sealer,
  onClosed: (place: string, reason: unknown) => void,
): Promise<number> {
  let replaced = 0
  for (const { find, replace } of sources) {
    for (let after: string | null = null; ; ) {
      const found: Found[] = await db.rows(find, { ...parametersOf(sealer), after })
      for (const { row, value, ...where } of found) {
        const place = where.kind === 'signing-key' ? placeOfSigningKey(where.id) : placeOf(where, where.field)
        let text: string
        try {
          text = isSealed(value) ? sealer.open(value, place) : JSON.stringify(value)
        } catch (thrown) {
          onClosed(place, thrown)
          continue
        }
        const sealed = JSON.stringify(sealer.seal(text, place))
        const parameters = { row: JSON.stringify(row), value: JSON.stringify(value), sealed }
        replaced += (await db.rows(replace, parameters)).length
      }
      const last = found.at(-1)
      if (last === undefined) break
      after = JSON.stringify(last.row)
    }
  }
  return replaced
}
