// Reads another region's log through its /peer/v1/log. Requests are signed and bounded in time and size. The other side
// may be wrong: events that are not that region's are refused.

import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { parseEventId, type ShardPosition } from '#shared/events/event-id.ts'
import type { LogPage, LogPages } from '#shared/events/log-pages.ts'
import { askPeer, type PeerAddress, PeerError, textOf } from './peer-request.ts'

const TIMEOUT_MS = 10_000
/** A page is about 4 MiB, or one event with its manifest and references. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024

export interface RemoteLogOptions extends PeerAddress {
  /** Seconds for which the peer may hold a request until it has events. */
  readonly waitSeconds: number
}

interface Answer {
  readonly origin: string
  readonly events: readonly CloudEvent[]
  readonly gone: readonly ShardPosition[]
  readonly behind: number
}

export function remoteLogPages(options: RemoteLogOptions): LogPages {
  async function ask(
    after: readonly ShardPosition[],
    waitSeconds: number,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const { to } = options
    const places = after.map(({ shard, epoch, seq }) => `${shard}:${epoch}:${seq}`).join(',')
    const late = AbortSignal.timeout(TIMEOUT_MS + waitSeconds * 1_000)
    const response = await askPeer(options, `/peer/v1/log?after=${places}&wait=${waitSeconds}`, {
      signal: signal === undefined ? late : AbortSignal.any([late, signal]),
    })
    const body = await textOf(response, to, ANSWER_BYTES_MAX)
    if (!response.ok) throw new PeerError(`${to} answered ${response.status}: ${body.slice(0, 500)}`)
    return answerOf(body, to)
  }

  return {
    async page(after, { mayWait, signal } = { mayWait: true }): Promise<LogPage> {
      const { events, gone } = await ask(after, mayWait ? options.waitSeconds : 0, signal)
      return { events, gone }
    },
    async lag(after) {
      return (await ask(after, 0)).behind
    },
  }
}

function answerOf(body: string, origin: string): Answer {
  let answer: Partial<Answer>
  try {
    answer = JSON.parse(body) as Partial<Answer>
  } catch {
    throw new PeerError(`${origin} sent a response that is not JSON`)
  }
  const { events, gone, behind } = answer
  if (
    answer.origin !== origin ||
    !Array.isArray(events) ||
    !Array.isArray(gone) ||
    typeof behind !== 'number'
  )
    throw new PeerError(`${origin} sent a response that is not a page of its log`)
  if (events.some((event: CloudEvent) => parseEventId(String(event?.id))?.origin !== origin))
    throw new PeerError(`${origin} sent events that are not its own`)
  return { origin, events, gone, behind }
}
