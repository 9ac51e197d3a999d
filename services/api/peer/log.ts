// GET /peer/v1/log: the complete log of the region for other regions, by shards, including settings and the content of
// manifests.
//
//   ?after=<shard>:<epoch>:<seq>,...   one position for each shard that is wanted; required
//   &wait=0..25                        seconds to wait for new events before an empty reply
//
// Replies {"origin", "events": [CloudEvent], "gone": [{shard, epoch, seq}], "behind"}. Events are in order within each
// shard. `gone` lists shards whose next events are no longer kept, with the position before the oldest one left.
// `behind` is the number of events after the requested positions. The position of each reader is recorded, and the log
// is kept for it.

import { notePeerReader } from '#shared/db/peer-readers.ts'
import { RegistryError } from '#shared/errors.ts'
import { SHARDS, type ShardPosition } from '#shared/events/event-id.ts'
import { parseQuery } from '#shared/oci/query.ts'
import { ownLogPages } from '#shared/registry/log-pages.ts'
import type { Edge } from '../edge.ts'
import type { EventTail } from '../event-tail.ts'
import { type Exchange, sendJson } from '../exchange.ts'

const WAIT_SECONDS_MAX = 25
/** The position of a moving reader is recorded at most this often, because each record is a write. */
const NOTE_EVERY_MS = 5_000
const PLACE = /^([0-7]):([1-9][0-9]{0,8}):(0|[1-9][0-9]{0,14})$/

export async function peerLog(exchange: Exchange, { query: text }: { query: string }): Promise<void> {
  const { region, edge, peer = '' } = exchange
  const query = parseQuery(text)
  const after = placesOf(query.get('after') ?? '')
  const wait = query.get('wait') ?? '0'
  if (!/^[0-9]{1,2}$/.test(wait) || Number(wait) > WAIT_SECONDS_MAX) {
    throw new RegistryError('REQUEST_INVALID', {
      message: `wait is a number from 0 to ${WAIT_SECONDS_MAX}`,
    })
  }
  using _place = edge.streams.take(`peer ${peer}`)
  await note(exchange, { notes: edge.peerNotes, peer, after })
  const pages = ownLogPages({ db: region.reads, name: region.name })
  let page = await pages.page(after)
  if (page.events.length === 0 && page.gone.length === 0 && wait !== '0') {
    const waited = await tailMoves(exchange, {
      tail: edge.tail,
      ms: Number(wait) * 1_000,
      look: () => pages.page(after),
    })
    if (waited !== undefined) page = waited
  }
  if (exchange.response.destroyed) return
  sendJson(exchange, { origin: region.name, ...page, behind: await pages.lag(after) })
}

async function note(
  { region }: Exchange,
  { notes, peer, after }: { notes: Edge['peerNotes']; peer: string; after: readonly ShardPosition[] },
): Promise<void> {
  // A request for fewer than all shards fills a gap. It does not show the position of the reader.
  if (after.length < SHARDS) return
  const places = JSON.stringify(after)
  const before = notes.get(peer)
  const nowMs = performance.now()
  if (before !== undefined && nowMs - before.atMs < NOTE_EVERY_MS) return
  notes.set(peer, { atMs: nowMs, places })
  // A reader at the same position only needs to be recorded now and then.
  if (before?.places === places && nowMs - before.atMs < NOTE_EVERY_MS * 12) return
  await notePeerReader(region.db, `peer:${peer}`, after)
}

function placesOf(text: string): ShardPosition[] {
  const parts = text.length > 400 ? [] : text.split(',')
  const places = parts.map((part) => PLACE.exec(part)).filter((match) => match !== null)
  const shards = new Set(places.map((match) => match[1]))
  if (places.length === 0 || places.length !== parts.length || shards.size !== places.length) {
    throw new RegistryError('REQUEST_INVALID', {
      message: 'after is <shard>:<epoch>:<seq>, one for each shard',
    })
  }
  return places.map(([, shard, epoch, seq]) => ({
    shard: Number(shard),
    epoch: Number(epoch),
    seq: Number(seq),
  }))
}

/** Returns what `look` finds after the log has grown; undefined if the time is over or the caller has disconnected. */
async function tailMoves<T extends { events: readonly unknown[] }>(
  exchange: Exchange,
  options: { tail: EventTail; ms: number; look(): Promise<T> },
): Promise<T | undefined> {
  const { tail, ms, look } = options
  const { response } = exchange
  let over = false
  let moved = Promise.withResolvers<void>()
  const end = () => {
    over = true
    moved.resolve()
  }
  // All resources are acquired before the first await, so a caller that disconnects in the meantime leaves nothing
  // behind.
  if (response.destroyed) return undefined
  using following = tail.listen({ onEvents: () => moved.resolve(), onEnd: end })
  response.once('close', end)
  const timer = setTimeout(end, ms)
  try {
    await following.ready
    // Events that were logged before the tail listened.
    for (let page = await look(); ; page = await look()) {
      if (page.events.length > 0) return page
      await moved.promise
      if (over) return undefined
      moved = Promise.withResolvers()
    }
  } finally {
    clearTimeout(timer)
    response.off('close', end)
  }
}
