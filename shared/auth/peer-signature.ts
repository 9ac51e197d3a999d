// Signs and verifies requests between regions: HTTP Message Signatures (RFC 9421) with hmac-sha256 over the method,
// path, query, and the names of both regions. A request for one region is therefore useless at another. All regions
// share the keys. The first key signs, and every key verifies. To rotate a key: add the new one everywhere, then move
// it to first place everywhere, then remove the old one. A signature is valid for one minute before and after its
// timestamp, and each process accepts it once.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { RegistryError } from '#shared/errors.ts'

export const PEER_FROM = 'portolan-from'
export const PEER_TO = 'portolan-to'

const CLOCK_SECONDS = 60
/** Nonces that are remembered. With more than this in two minutes, the oldest signatures could be replayed. */
const NONCES_MAX = 100_000
const COMPONENTS = `("@method" "@path" "@query" "${PEER_FROM}" "${PEER_TO}")`
const INPUT =
  /^peer=\("@method" "@path" "@query" "portolan-from" "portolan-to"\);created=([0-9]{1,12});nonce="([A-Za-z0-9_-]{16,64})";keyid="([0-9a-f]{16})";alg="hmac-sha256"$/
const SIGNATURE = /^peer=:([A-Za-z0-9+/]{43}=):$/

export interface SignedParts {
  readonly method: string
  /** Path and query exactly as on the request line. */
  readonly target: string
  readonly from: string
  readonly to: string
}

/** Returns the headers to send. `key` is the secret itself. */
export function signPeerRequest(
  parts: SignedParts,
  options: { key: string; nowSeconds: number; nonce: string },
): Record<string, string> {
  const { key, nowSeconds, nonce } = options
  const parameters = `${COMPONENTS};created=${nowSeconds};nonce="${nonce}";keyid="${keyId(key)}";alg="hmac-sha256"`
  return {
    [PEER_FROM]: parts.from,
    [PEER_TO]: parts.to,
    'signature-input': `peer=${parameters}`,
    signature: `peer=:${mac(parts, parameters, key).toString('base64')}:`,
  }
}

/** Identifies a key without revealing it. */
function keyId(key: string): string {
  return createHash('sha256').update(`portolan peer key\n${key}`).digest('hex').slice(0, 16)
}

function mac({ method, target, from, to }: SignedParts, parameters: string, key: string): Buffer {
  const [path = '', ...query] = target.split('?')
  const base = [
    `"@method": ${method}`,
    `"@path": ${path}`,
    `"@query": ?${query.join('?')}`,
    `"${PEER_FROM}": ${from}`,
    `"${PEER_TO}": ${to}`,
    `"@signature-params": ${parameters}`,
  ]
  return createHmac('sha256', key).update(base.join('\n')).digest()
}

export interface PeerVerifier {
  /** Returns the region that signed the request. @throws RegistryError UNAUTHORIZED; the message says what is wrong */
  verify(request: {
    method: string
    target: string
    headers: Readonly<Record<string, string | string[] | undefined>>
  }): string
}

export function createPeerVerifier(options: {
  /** This region. */
  region: string
  keys: readonly string[]
  /** Test seam: milliseconds since 1970. */
  now?: () => number
}): PeerVerifier {
  const { region, keys, now = Date.now } = options
  const byId = new Map(keys.map((key) => [keyId(key), key]))
  const seen = new LRUCache<string, true>({ max: NONCES_MAX, ttl: 2 * CLOCK_SECONDS * 1_000, perf: { now } })

  return {
    verify({ method, target, headers }) {
      const from = headers[PEER_FROM]
      const to = headers[PEER_TO]
      const input = INPUT.exec(text(headers['signature-input']))
      const signature = SIGNATURE.exec(text(headers.signature))
      if (typeof from !== 'string' || typeof to !== 'string' || input === null || signature === null)
        throw refused('requests between regions must be signed')
      const [whole, created = '', nonce = '', id = ''] = input
      const key = byId.get(id)
      if (key === undefined) throw refused('the signing key is unknown here')
      const expected = mac({ method, target, from, to }, whole.slice('peer='.length), key)
      if (!timingSafeEqual(expected, Buffer.from(signature[1] ?? '', 'base64')))
        throw refused('the signature does not match the request')
      // The sender holds the key, so the errors below may give details.
      if (to !== region) throw refused(`the request is for region ${to}, and this is ${region}`)
      if (from === region)
        throw refused(`the request comes from a region that has this region's name, ${region}`)
      const offSeconds = Number(created) - now() / 1_000
      if (Math.abs(offSeconds) > CLOCK_SECONDS)
        throw refused(`the clocks of ${from} and ${region} differ by ${Math.round(offSeconds)} seconds`)
      if (seen.has(nonce)) throw refused('the request was already received')
      seen.set(nonce, true)
      return from
    },
  }
}

function text(header: string | string[] | undefined): string {
  return typeof header === 'string' ? header : ''
}

function refused(message: string): RegistryError {
  return new RegistryError('UNAUTHORIZED', { message, headers: { 'WWW-Authenticate': 'Signature' } })
}
