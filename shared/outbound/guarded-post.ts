// Sends a POST to an address that a user chose, without giving that user access to our network (SSRF).
//
// The name is resolved here, every address is checked, and the connection goes to a checked address. So a name that
// resolves differently the second time changes nothing. Each redirect is checked again from the start. Loopback and
// private addresses need permission. Link-local ones, where clouds serve their credentials, are never contacted. Time,
// redirects and the bytes read of the response are bounded. The caller's own headers do not follow a redirect to
// another origin.

import { lookup as resolve } from 'node:dns/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { isIP, isIPv6, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'

const REDIRECTS_MAX = 3
const ANSWER_BYTES_MAX = 1024

export class AddressRefusedError extends Error {
  override readonly name = 'AddressRefusedError'
}

export interface GuardedPost {
  readonly url: string
  readonly body: Buffer
  readonly headers: Readonly<Record<string, string>>
  /** Sent only to the origin of `url`. */
  readonly ownHeaders: Readonly<Record<string, string>>
  readonly allowPrivate: boolean
  /** For the whole request, including redirects. */
  readonly timeoutMs: number
  readonly signal?: AbortSignal
  /** Test seam: resolves names. */
  readonly resolveName?: (name: string) => Promise<readonly string[]>
}

export interface PostAnswer {
  readonly status: number
  /** The first KiB of the response body, as text. */
  readonly text: string
}

/** @throws AddressRefusedError, or the connection's error */
export async function guardedPost(post: GuardedPost): Promise<PostAnswer> {
  const timeout = AbortSignal.timeout(post.timeoutMs)
  const signal = post.signal === undefined ? timeout : AbortSignal.any([post.signal, timeout])
  const first = new URL(post.url)
  let url = first
  for (let redirects = 0; ; redirects++) {
    const address = await judgedAddress(url, post)
    const headers = {
      ...post.headers,
      ...(url.origin === first.origin && post.ownHeaders),
      'Content-Length': String(post.body.length),
    }
    const { status, location, text } = await send({ url, address, headers, body: post.body, signal })
    if (![301, 302, 307, 308].includes(status) || location === undefined) return { status, text }
    if (redirects >= REDIRECTS_MAX) throw new AddressRefusedError(`more than ${REDIRECTS_MAX} redirects`)
    if (!URL.canParse(location, url.href)) throw new AddressRefusedError('redirected to an invalid URL')
    const next = new URL(location, url)
    if (url.protocol === 'https:' && next.protocol === 'http:') {
      throw new AddressRefusedError('redirected from https to http')
    }
    url = next
  }
}

async function judgedAddress(url: URL, post: GuardedPost): Promise<string> {
  if (!['http:', 'https:'].includes(url.protocol) || url.username !== '' || url.password !== '') {
    throw new AddressRefusedError('only http and https URLs without credentials are allowed')
  }
  // The URL parser has already converted 0x7f.1 and similar forms to an address.
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const resolveName =
    post.resolveName ??
    (async (name: string) => (await resolve(name, { all: true })).map(({ address }) => address))
  const addresses = isIP(host) === 0 ? await resolveName(host) : [host]
  const allowed = addresses.find((address) => isAllowed(address, post.allowPrivate))
  if (allowed === undefined) {
    throw new AddressRefusedError(
      `${url.hostname} resolves to ${addresses.join(', ') || 'no address'}, which is not allowed`,
    )
  }
  return allowed
}

const PRIVATE: ReadonlySet<string> = new Set(['loopback', 'private', 'uniqueLocal', 'carrierGradeNat'])

/**
 * Addresses outside 169.254.0.0/16 from which clouds serve credentials to their machines: Azure, Alibaba, AWS and
 * Google over IPv6, Oracle. Private addresses may be allowed; these never are.
 */
const METADATA: ReadonlySet<string> = new Set([
  '168.63.129.16',
  '100.100.100.200',
  'fd00:ec2::254',
  'fd20:ce::254',
  '192.0.0.192',
])

/**
 * Decides whether an address may be contacted. IPv4-mapped IPv6 counts as IPv4. In IPv6 only the global range
 * (2000::/3, RFC 4291) is public. Other forms that embed an IPv4 address are not: IPv4-compatible, translated, NAT64
 * (RFC 6052), 6to4, Teredo.
 */
export function isAllowed(address: string, allowPrivate: boolean): boolean {
  // Normalise the spelling: ipaddr.js reads ::127.0.0.1 as ::ffff:127.0.0.1, and kernels do not.
  const canonical = isIPv6(address) ? URL.parse(`http://[${address}]`)?.hostname.slice(1, -1) : address
  if (canonical === undefined || !ipaddr.isValid(canonical)) return false
  const parsed = ipaddr.process(canonical)
  if (METADATA.has(parsed.toString())) return false
  const range = parsed.range()
  if (allowPrivate && PRIVATE.has(range)) return true
  return range === 'unicast' && (parsed instanceof ipaddr.IPv4 || isGlobal(parsed))
}

function isGlobal(address: ipaddr.IPv6): boolean {
  return ((address.parts[0] ?? 0) & 0xe000) === 0x2000
}

function send(options: {
  url: URL
  address: string
  headers: Record<string, string>
  body: Buffer
  signal: AbortSignal
}): Promise<PostAnswer & { location: string | undefined }> {
  const { url, address, headers, body, signal } = options
  const family = isIP(address)
  // Every later lookup returns the checked address.
  const lookup: LookupFunction = (_name, wanted, done) => {
    if (wanted.all) done(null, [{ address, family }])
    else done(null, address, family)
  }
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: 'POST', headers, signal, lookup, agent: false }, (answer) => {
      firstBytes(answer).then(
        (text) => resolve({ status: answer.statusCode ?? 0, location: answer.headers.location, text }),
        reject,
      )
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

async function firstBytes(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes >= ANSWER_BYTES_MAX) break
  }
  return Buffer.concat(chunks).subarray(0, ANSWER_BYTES_MAX).toString()
}
