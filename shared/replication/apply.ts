// Applies events of another region's log: this is what `receiveEvents` does with the events that it takes.
//
// Events are parsed before any transaction. An invalid event is parked with the reason. Manifests that came with their
// events are stored first. The rest is one merge of all registers.

import type { Repository } from '#shared/convergence/registers.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { type StoredContent, storeManifests } from '#shared/db/store-manifests.ts'
import { RegistryError } from '#shared/errors.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { manifestFacts, parseManifest } from '#shared/oci/manifest.ts'
import { mergeRegisters, registersOf } from './merge.ts'
import {
  BadEventError,
  type CarriedManifest,
  KNOWN_TYPES,
  type ParsedEvent,
  parseEvent,
} from './parse-event.ts'
import type { Applier, TakenEvent } from './receive-events.ts'

/** The same limit as for a push. */
const DESCRIPTORS_MAX = 10_000

/** Applies events that change registers. Every other known type is a notification and changes nothing. */
export function createRegisterApplier(clock: () => number): Applier {
  /** What `prepare` parsed: verifying a manifest's digest twice would double the cost of its event. */
  const known = new WeakMap<CloudEvent, { parsed: ParsedEvent | undefined }>()
  const parse = ({ event, id }: TakenEvent): ParsedEvent | undefined => {
    const entry = known.get(event) ?? { parsed: parseEvent(event, { id, nowMs: clock() }) }
    known.set(event, entry)
    return entry.parsed
  }
  return {
    types: KNOWN_TYPES,
    async prepare(db, events) {
      const contents = new Map<string, StoredContent>()
      const bad = new Map<string, string>()
      for (const one of events) {
        try {
          const parsed = parse(one)
          if (parsed?.manifest !== undefined) contents.set(parsed.manifest.digest, contentOf(parsed.manifest))
        } catch (thrown) {
          if (!(thrown instanceof BadEventError)) throw thrown
          bad.set(one.event.id, thrown.message)
        }
      }
      await storeManifests(db, [...contents.values()])
      return bad
    },
    async apply(transaction, { shard, events }) {
      const registers = new Map<string, Repository>()
      for (const one of events) {
        const parsed = parse(one)
        parsed?.merge(registersOf(registers, parsed.repository))
      }
      await mergeRegisters(transaction, { registers, shard, byLog: true })
    },
  }
}

/** Stores manifests that a peer sent, before their registers are merged. @throws BadEventError */
export async function storeCarried(db: Queryable, manifests: readonly CarriedManifest[]): Promise<void> {
  await storeManifests(db, manifests.map(contentOf))
}

function contentOf({ digest, bytes, mediaType, absent }: CarriedManifest): StoredContent {
  const manifest = parsed(bytes, mediaType)
  const { subject, artifactType, annotations } = manifest
  const references = manifest.references.map(({ kind, target, position, digest: of, foreign }) => ({
    kind,
    target,
    position,
    digest: of,
    required: !foreign && !absent.includes(of),
  }))
  return {
    digest,
    bytes,
    singleImage: manifestFacts(manifest).singleImage ?? '',
    references:
      subject === undefined
        ? references
        : [
            ...references,
            { kind: 'subject', target: 'manifest', position: 0, digest: subject.digest, required: false },
          ],
    artifactType: artifactType ?? null,
    annotations: annotations === undefined ? null : JSON.stringify(annotations),
  }
}

function parsed(bytes: Buffer, mediaType: string) {
  try {
    return parseManifest(bytes, mediaType, { descriptorsMax: DESCRIPTORS_MAX })
  } catch (thrown) {
    if (thrown instanceof RegistryError)
      throw new BadEventError(`the manifest: ${thrown.message}`, { cause: thrown })
    throw thrown
  }
}
