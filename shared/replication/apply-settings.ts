// Applies settings that another region wrote. Each field is a register and merges separately, by version and then by
// value, as in shared/convergence/settings.ts. Secret values arrive sealed and stay sealed: they open wherever the
// regions share their key. Settings that this release does not know are parked.

import { type MergedSetting, mergeSettings } from '#shared/db/merge-settings.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import type { EventId } from '#shared/events/event-id.ts'
import { TYPE_PREFIX } from '#shared/events/event-types.ts'
import { BadEventError, fieldsOf, textOf, versionOf, writeVersion } from './parse-event.ts'
import type { Applier } from './receive-events.ts'

const SETTING_SET = `${TYPE_PREFIX}setting.set.v1`
const KINDS: readonly string[] = Object.freeze(['webhook'])
const NAME_LENGTH_MAX = 128
/** As large as one request to /api/v1 may make it, sealed. */
const VALUE_LENGTH_MAX = 256 * 1024

export function createSettingApplier(clock: () => number): Applier {
  return {
    types: new Set([SETTING_SET]),
    async prepare(_db, events) {
      const bad = new Map<string, string>()
      for (const { event, id } of events) {
        try {
          settingOf(event, id, clock())
        } catch (thrown) {
          if (!(thrown instanceof BadEventError)) throw thrown
          bad.set(event.id, thrown.message)
        }
      }
      return bad
    },
    async apply(transaction, { events }) {
      await mergeSettings(
        transaction,
        events.map(({ event, id }) => settingOf(event, id, clock())),
      )
    },
  }
}

/** @throws BadEventError */
function settingOf(event: CloudEvent, id: EventId, nowMs: number): MergedSetting {
  const data = fieldsOf(event.data, 'data')
  const { h, origin } = writeVersion(data, id, nowMs)
  const prev = versionOf(data.prev, 'prev')
  const deleted = data.deleted === true
  const kind = nameOf(data, 'kind')
  if (!KINDS.includes(kind)) throw new BadEventError(`settings of the kind ${kind} are unknown here`)
  const value = deleted ? null : JSON.stringify(data.value ?? null)
  if (value !== null && value.length > VALUE_LENGTH_MAX) throw new BadEventError('`value` is too long')
  return {
    kind,
    id: nameOf(data, 'id'),
    field: nameOf(data, 'field'),
    value,
    h: String(h),
    origin,
    prevH: String(prev.h),
    prevOrigin: prev.origin,
    deleted,
  }
}

function nameOf(data: Readonly<Record<string, unknown>>, name: string): string {
  const text = textOf(data, name)
  if (text.length > NAME_LENGTH_MAX) throw new BadEventError(`\`${name}\` is too long`)
  return text
}
