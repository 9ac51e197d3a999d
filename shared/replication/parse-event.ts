// Parses an event of another region and checks it field by field: a peer may run another release, or a broken one, and
// what it sends takes effect here. Pure. Throws `BadEventError` with the reason; the caller parks the event and
// continues.

import type {
  Death,
  EarlyVersion,
  EventRef,
  Events,
  Repository,
  Seen,
} from '#shared/convergence/registers.ts'
import {
  mergeLinkDeath,
  mergeManifestAlive,
  mergeManifestDeath,
  mergeRepositoryDeath,
  mergeTag,
  type Written,
} from '#shared/convergence/registers.ts'
import type { Version } from '#shared/convergence/version.ts'
import { versionTimeMs } from '#shared/convergence/version.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import type { EventId } from '#shared/events/event-id.ts'
import { TYPE_PREFIX } from '#shared/events/event-types.ts'
import { algorithmOf, type Digest, digestBytes, parseDigest } from '#shared/oci/digest.ts'
import { parseRepositoryName, parseTag, shardOf } from '#shared/oci/reference.ts'

/** A version further in the future is an error of its writer, and would win over every other write for that long. */
const AHEAD_MS_MAX = 10 * 366 * 86_400_000
/** Entries per list of a death. A region has tens of peers, and early versions cover a lag of some seconds. */
const LIST_MAX = 100_000

export class BadEventError extends Error {
  override readonly name = 'BadEventError'
}

/** Types that change registers. */
const APPLIED = [
  'manifest.put',
  'manifest.deleted',
  'blob.deleted',
  'tag.set',
  'tag.deleted',
  'repository.deleted',
].map((type) => `${TYPE_PREFIX}${type}.v1`)
/** Types that only notify and change nothing in another region. */
const TOLD = [
  'push',
  'delete',
  'pull',
  'blob.uploaded',
  'blob.mounted',
  'tag.conflict',
  'delete.conflict',
].map((type) => `${TYPE_PREFIX}${type}.v1`)

/** Types that this release knows. Other types are parked. */
export const KNOWN_TYPES: ReadonlySet<string> = new Set([...APPLIED, ...TOLD])

/** A manifest's bytes that came with its event. */
export interface CarriedManifest {
  readonly digest: Digest
  readonly bytes: Buffer
  readonly mediaType: string
  /** References that were missing at the push. */
  readonly absent: readonly string[]
}

export interface ParsedEvent {
  readonly repository: string
  merge(into: Repository): void
  readonly manifest?: CarriedManifest
}

type Fields = Readonly<Record<string, unknown>>

/** Returns what the event does, or undefined if it is a notification. @throws BadEventError */
export function parseEvent(
  event: CloudEvent,
  { id, nowMs }: { id: EventId; nowMs: number },
): ParsedEvent | undefined {
  if (!APPLIED.includes(event.type)) return undefined
  const data = fieldsOf(event.data, 'data')
  const repository = repositoryOf(data, id)
  const events: Events = [{ epoch: id.epoch, seq: id.seq }]
  const version = writeVersion(data, id, nowMs)
  // Releases that did not send this field had only one region.
  const written = writtenOf(data.written ?? { epoch: 0, id: 0 }, 'written')
  switch (event.type.slice(TYPE_PREFIX.length)) {
    case 'manifest.put.v1': {
      const digest = digestOf(data)
      const alive = {
        version,
        prev: versionOf(data.prev, 'prev'),
        mediaType: textOf(data, 'mediaType'),
        events,
        written,
      }
      const manifest = carried(data, digest, alive.mediaType)
      return {
        repository,
        merge: (into) => mergeManifestAlive(into, digest, alive),
        ...(manifest !== undefined && { manifest }),
      }
    }
    case 'manifest.deleted.v1': {
      const [digest, death] = [digestOf(data), deathOf(data, version, written)]
      return { repository, merge: (into) => mergeManifestDeath(into, digest, death) }
    }
    case 'blob.deleted.v1': {
      const [digest, death] = [digestOf(data), deathOf(data, version, written)]
      return { repository, merge: (into) => mergeLinkDeath(into, digest, death) }
    }
    case 'repository.deleted.v1': {
      const death = deathOf(data, version, written)
      return { repository, merge: (into) => mergeRepositoryDeath(into, death) }
    }
    default: {
      const name = parseTag(textOf(data, 'tag'))
      if (name === undefined) throw new BadEventError('`tag` is not a valid tag')
      const tag = {
        version,
        digest: digestOf(data),
        alive: event.type.endsWith('tag.set.v1'),
        prev: versionOf(data.prev, 'prev'),
        events,
        written,
        by: { actor: actorOf(data), at: timeOf(event) },
      }
      return { repository, merge: (into) => mergeTag(into, name, tag) }
    }
  }
}

function repositoryOf(data: Fields, { shard }: EventId): string {
  const repository = parseRepositoryName(textOf(data, 'repository'))
  if (repository === undefined) throw new BadEventError('`repository` is not a valid repository name')
  if (shardOf(repository) !== shard) throw new BadEventError(`${repository} is not of shard ${shard}`)
  return repository
}

export function writeVersion(data: Fields, { origin }: EventId, nowMs: number): Version {
  const version = versionOf(data.version, 'version')
  if (version.origin !== origin)
    throw new BadEventError(`a write of ${version.origin} in the log of ${origin}`)
  if (version.h === 0n) throw new BadEventError('a version of zero')
  if (versionTimeMs(version) > nowMs + AHEAD_MS_MAX)
    throw new BadEventError('its version is more than ten years ahead of the clock')
  return version
}

function deathOf(data: Fields, version: Version, written: Written): Death {
  return {
    version,
    seen: seenOf(data.seen ?? {}),
    early: listOf(data.early ?? [], 'early').map(earlyOf),
    lineage: listOf(data.lineage ?? [], 'lineage').map((one) => writtenOf(one, 'lineage')),
    written,
    events: [],
  }
}

function seenOf(value: unknown): Seen {
  const seen = Object.entries(fieldsOf(value, 'seen'))
  return Object.fromEntries(seen.map(([origin, places]) => [origin, listOf(places, 'seen').map(placeOf)]))
}

function placeOf(value: unknown): EventRef {
  const place = fieldsOf(value, 'seen')
  return { epoch: countOf(place.epoch, 'epoch'), seq: countOf(place.seq, 'seq') }
}

function earlyOf(value: unknown): EarlyVersion {
  const early = fieldsOf(value, 'early')
  return {
    subject: textOf(early, 'subject'),
    value: textOf(early, 'value'),
    version: versionOf(early.version, 'early'),
  }
}

function writtenOf(value: unknown, name: string): Written {
  const written = fieldsOf(value, name)
  return { epoch: countOf(written.epoch, name), id: countOf(written.id, name) }
}

/** A non-negative bigint of Postgres. */
const H = /^(0|[1-9][0-9]{0,17}|[1-8][0-9]{18})$/
const ORIGIN = /^([a-z][a-z0-9-]{0,31})?$/

export function versionOf(value: unknown, name: string): Version {
  const { h, origin } = fieldsOf(value, name)
  if (typeof h !== 'string' || !H.test(h) || typeof origin !== 'string' || !ORIGIN.test(origin))
    throw new BadEventError(`\`${name}\` is not a version`)
  return { h: BigInt(h), origin }
}

function carried(data: Fields, digest: Digest, mediaType: string): CarriedManifest | undefined {
  const { content } = data
  if (content === undefined || content === null) return undefined
  if (typeof content !== 'string') throw new BadEventError('`content` is not a string')
  const bytes = Buffer.from(content, 'base64')
  if (digestBytes(algorithmOf(digest), bytes) !== digest)
    throw new BadEventError('`content` does not match the digest')
  return { digest, bytes, mediaType, absent: listOf(data.absent ?? [], 'absent').map(String) }
}

function actorOf(data: Fields): string {
  const { actor } = data
  return typeof actor === 'object' && actor !== null && 'name' in actor ? String(actor.name) : ''
}

function timeOf({ time }: CloudEvent): string {
  const ms = Date.parse(time)
  if (Number.isNaN(ms)) throw new BadEventError('`time` is not a time')
  return new Date(ms).toISOString()
}

function digestOf(data: Fields): Digest {
  const digest = parseDigest(textOf(data, 'digest'))
  if (digest === undefined) throw new BadEventError('`digest` is not a valid digest')
  return digest
}

export function textOf(fields: Fields, name: string): string {
  const value = fields[name]
  if (typeof value !== 'string') throw new BadEventError(`\`${name}\` is not a string`)
  return value
}

function countOf(value: unknown, name: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw new BadEventError(`\`${name}\` is not a count`)
  return value
}

function listOf(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > LIST_MAX) throw new BadEventError(`\`${name}\` is not a list`)
  return value
}

export function fieldsOf(value: unknown, name: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BadEventError(`\`${name}\` is not an object`)
  return value as Fields
}
