// Aborts event streams, and measures what would reveal that the server still follows the log for a disconnected client:
// timers and queries.

import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { eventually } from './eventually.ts'
import type { TestNode } from './region.ts'

export const STREAM = 'GET /api/v1/events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n'

export const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

/** Counts the queries that follow the log. A query shows that the server still serves a stream. */
export function countReads({ region }: TestNode): () => number {
  const rows = region.reads.rows.bind(region.reads)
  let reads = 0
  region.reads.rows = (statement, values) => {
    if (/events|bounds/.test(statement.name)) reads++
    return rows(statement, values)
  }
  return () => reads
}

export async function quiet(reads: () => number): Promise<void> {
  let last = -1
  await eventually('the queries to stop', async () => {
    const before = last
    last = reads()
    await pause(200)
    return before === last
  })
}

/**
 * Opens connections, sends a request on each, and resets it at one of several points. Returns how many got a response
 * first.
 */
export async function abortMany(
  port: number,
  count: number,
  request: (index: number) => string,
): Promise<number> {
  let next = 0
  let answered = 0
  const worker = async () => {
    for (let index = next++; index < count; index = next++) {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      await new Promise((written) => socket.write(request(index), written))
      // Abort before the request is read, while it waits for the database, or while it streams.
      if (index % 3 === 1) await pause(index % 7)
      if (index % 3 === 2) await Promise.race([once(socket, 'data').then(() => answered++), pause(50)])
      socket.resetAndDestroy()
    }
  }
  await Promise.all(Array.from({ length: 150 }, worker))
  return answered
}
