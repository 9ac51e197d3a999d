// Another region's log, by its /peer/v1/log. Requests are signed, bounded in time and size, and answered by somebody who
// could be wrong: what is no event of that region is refused.

import { randomBytes } from 'node:crypto'
import { signPeerRequest } from '#shared/auth/peer-signature.ts'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { parseEventId, type ShardPosition } from '#shared/events/event-id.ts'
import type { LogPage, LogPages } from '#shared/events/log-pages.ts'

const TIMEOUT_MS = 10_000
/** A page is some 4 MiB, or one event with its manifest and references. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024

export class PeerError extends Error {
  override readonly name = 'PeerError'
}

export interface PeerOptions {
  /** Its address, without a path. */
  readonly url: string
  /** This region. */
  readonly from: string
  /** The one asked. */
  readonly to: string
  /** The key that signs. */
  readonly key: string
  /** Seconds the peer may hold a request until there is something. */
  readonly waitSeconds: number
}

interface Answer {
  readonly origin: string
  readonly events: readonly CloudEvent[]
  readonly gone: readonly ShardPosition[]
  readonly behind: number
}

export function remoteLogPages(options: PeerOptions): LogPages {
  async function ask(after: readonly ShardPosition[], waitSeconds: number): Promise<Answer> {
    const { url, from, to, key } = options
    const places = after.map(({ shard, epoch, seq }) => `${shard}:${epoch}:${seq}`).join(',')
    const target = `/peer/v1/log?after=${places}&wait=${waitSeconds}`
    const signed = signPeerRequest(
      { method: 'GET', target, from, to },
      { key, nowSeconds: Math.floor(Date.now() / 1_000), nonce: randomBytes(18).toString('base64url') },
    )
    let response: Response
    try {
      response = await fetch(url + target, {
        headers: signed,
        // The request would arrive somewhere else than it was signed for.
        redirect: 'error',
        signal: AbortSignal.timeout(TIMEOUT_MS + waitSeconds * 1_000),
      })
      const body = await textOf(response)
      if (response.ok) return answerOf(body, to)
      throw new PeerError(`${to} answered ${response.status}: ${body.slice(0, 500)}`)
    } catch (thrown) {
      if (thrown instanceof PeerError) throw thrown
      const { message, cause } = thrown as Error
      const why = cause instanceof Error ? `${message}: ${cause.message}` : message
      throw new PeerError(`${to} could not be asked: ${why}`, { cause: thrown })
    }
  }

  return {
    async page(after): Promise<LogPage> {
      const { events, gone } = await ask(after, options.waitSeconds)
      return { events, gone }
    },
    async lag(after) {
      return (await ask(after, 0)).behind
    },
  }
}

async function textOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > ANSWER_BYTES_MAX) throw new PeerError('the answer is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function answerOf(body: string, origin: string): Answer {
  let answer: Partial<Answer>
  try {
    answer = JSON.parse(body) as Partial<Answer>
  } catch {
    throw new PeerError(`${origin} answered what is no JSON`)
  }
  const { events, gone, behind } = answer
  if (
    answer.origin !== origin ||
    !Array.isArray(events) ||
    !Array.isArray(gone) ||
    typeof behind !== 'number'
  )
    throw new PeerError(`${origin} answered what is no page of its log`)
  if (events.some((event: CloudEvent) => parseEventId(String(event?.id))?.origin !== origin))
    throw new PeerError(`${origin} answered with events that are not its own`)
  return { origin, events, gone, behind }
}
