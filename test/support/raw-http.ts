// HTTP as bytes on a socket: for what no client library would send.

import { connect } from 'node:net'

export interface RawAnswer {
  /** Everything that came back until the server closed or the deadline passed. */
  readonly text: string
  /** Status of each response in it. */
  readonly statuses: number[]
  readonly closed: boolean
}

/** Writes the parts one after the other and collects what comes back, for at most `deadlineMs` of silence. */
export function rawHttp(
  port: number,
  parts: readonly (string | Buffer)[],
  quietMs = 400,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let text = ''
    const finish = (closed: boolean) => {
      socket.destroy()
      const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]))
      resolve({ text, statuses: statuses.filter((status) => status !== 100), closed })
    }
    socket.setTimeout(quietMs, () => finish(false))
    socket.on('data', (chunk) => {
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
