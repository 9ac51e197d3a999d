// Sends a request to another region: signed, without redirects, bounded in time. The other side may be wrong or
// hostile, so the caller must check the content of the response.

import { randomBytes } from 'node:crypto'
import { signPeerRequest } from '#shared/auth/peer-signature.ts'

export interface PeerAddress {
  /** The peer's origin, without a path. */
  readonly url: string
  /** This region. */
  readonly from: string
  /** The region that is asked. */
  readonly to: string
  /** The key that signs. */
  readonly key: string
}

/** Returns the address of every region that the configuration names. */
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
 * Sends the request. The response may have any status.
 *
 * @param target path and query, as on the request line
 * @throws PeerError if there is no response, or if the signal aborts before its head
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
      // After a redirect, the request would arrive at a target other than the signed one.
      redirect: 'error',
      signal: options.signal,
    })
  } catch (thrown) {
    throw unreachable(to, thrown)
  }
}

/** Returns the whole body as text. @throws PeerError if it is longer than `bytesMax`, or incomplete */
export async function textOf(response: Response, peer: string, bytesMax: number): Promise<string> {
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
  return Buffer.concat(chunks).toString()
}

function unreachable(peer: string, thrown: unknown): PeerError {
  const { message, cause } = thrown as Error
  const why = cause instanceof Error ? `${message}: ${cause.message}` : message
  return new PeerError(`${peer} could not be reached: ${why}`, { cause: thrown })
}
