// HTTP as bytes on a socket, for requests that no client library would send.

import { connect } from 'node:net'

export interface RawAnswer {
  /** Everything received until the server closed or the deadline passed. */
  readonly text: string
  /** The status of each response in the text. */
  readonly statuses: number[]
  readonly closed: boolean
}

/** Allows for a busy machine. If nothing arrives in this time, the test fails. */
const FIRST_BYTE_MS_MAX = 20_000

/**
 * Writes the parts in order and collects the response until the server closes or is silent for `quietMs` after the
 * first byte. The first byte may take `firstByteMs`.
 */
export function rawHttp(
  port: number,
  parts: readonly (string | Buffer)[],
  quietMs = 400,
  firstByteMs = FIRST_BYTE_MS_MAX,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let text = ''
    const finish = (closed: boolean) => {
      socket.destroy()
      const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]))
      resolve({ text, statuses: statuses.filter((status) => status !== 100), closed })
    }
    socket.setTimeout(firstByteMs, () => finish(false))
    socket.on('data', (chunk) => {
      socket.setTimeout(quietMs)
      text += chunk.toString('latin1')
    })
    socket.on('close', () => finish(true))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (['ECONNRESET', 'EPIPE'].includes(error.code ?? '')) finish(true)
      else reject(error)
    })
    socket.on('connect', () => {
      for (const part of parts) socket.write(part)
    })
  })
}

/** Sends a head and then zeros as fast as the server reads them, until it closes or `bytesMax` bytes are sent. */
export async function floodHttp(
  port: number,
  head: string,
  bytesMax: number,
): Promise<RawAnswer & { readonly bytesTaken: number }> {
  const socket = connect(port, '127.0.0.1')
  const chunk = Buffer.alloc(64 * 1024)
  let text = ''
  let bytesTaken = 0
  socket.on('data', (data) => {
    text += data.toString('latin1')
  })
  socket.on('error', () => {})
  const closed = new Promise<boolean>((resolve) => socket.once('close', () => resolve(true)))
  const sending = (async () => {
    socket.write(head)
    while (bytesTaken < bytesMax && !socket.destroyed) {
      const error = await new Promise((resolve) => socket.write(chunk, resolve))
      if (error) break
      bytesTaken += chunk.length
    }
    return false
  })()
  const ended = await Promise.race([closed, sending.then(() => Promise.race([closed, quiet()]))])
  socket.destroy()
  const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]))
  return { text, statuses: statuses.filter((status) => status !== 100), closed: ended, bytesTaken }
}

function quiet(): Promise<boolean> {
  return new Promise((resolve) => setTimeout(resolve, 3_000, false))
}
