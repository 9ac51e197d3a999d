// A request to another region: signed, never redirected, bounded in time. Whoever answers could be wrong or hostile, so
// what an answer holds is for the caller to check.

import { randomBytes } from 'node:crypto'
import { signPeerRequest } from '#shared/auth/peer-signature.ts'

export interface PeerAddress {
  /** Its origin, without a path. */
  readonly url: string
  /** This region. */
  readonly from: string
  /** The one asked. */
  readonly to: string
  /** The key that signs. */
  readonly key: string
}

/** Of every region that the configuration names. */
export function peerAddresses(config: {
  readonly region: string
  readonly peers: readonly { readonly name: string; readonly url: string }[]
  readonly peerKeys: readonly string[] | undefined
}): PeerAddress[] {
  const [key] = config.peerKeys ?? []
  if (key === undefined) return []
  return config.peers.map(({ name, url }) => ({ url, from: config.region, to: name, key }))
}

export class PeerError extends Error {
  override readonly name = 'PeerError'
}

/**
 * Asks. The answer may have any status.
 *
 * @param target path and query, as on the request line
 * @throws PeerError when there is no answer, or the signal aborts before its head
 */
export async function askPeer(
  { url, from, to, key }: PeerAddress,
  target: string,
  options: { signal: AbortSignal; headers?: Readonly<Record<string, string>> },
): Promise<Response> {
  const signed = signPeerRequest(
    { method: 'GET', target, from, to },
    { key, nowSeconds: Math.floor(Date.now() / 1_000), nonce: randomBytes(18).toString('base64url') },
  )
  try {
    return await fetch(url + target, {
      headers: { ...options.headers, ...signed },
      // The request would arrive somewhere else than it was signed for.
      redirect: 'error',
      signal: options.signal,
    })
  } catch (thrown) {
    throw unreachable(to, thrown)
  }
}

/** The whole body as text. @throws PeerError when it is longer than `bytesMax`, or breaks off */
export async function textOf(response: Response, peer: string, bytesMax: number): Promise<string> {
  return (await bytesOf(response, peer, bytesMax)).toString()
}

export async function bytesOf(response: Response, peer: string, bytesMax: number): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  try {
    for await (const chunk of response.body ?? []) {
      bytes += chunk.length
      if (bytes > bytesMax) throw new PeerError(`${peer} answered with more than ${bytesMax} bytes`)
      chunks.push(chunk)
    }
  } catch (thrown) {
    throw thrown instanceof PeerError ? thrown : unreachable(peer, thrown)
  }
  return Buffer.concat(chunks)
}

function unreachable(peer: string, thrown: unknown): PeerError {
  const { message, cause } = thrown as Error
  const why = cause instanceof Error ? `${message}: ${cause.message}` : message
  return new PeerError(`${peer} could not be asked: ${why}`, { cause: thrown })
}
