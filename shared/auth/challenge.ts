// Builds the WWW-Authenticate header. Clients read only the first challenge, and some use the one from `/v2/` for their
// whole session. So there is one challenge: always Bearer, every parameter quoted, and no text that a client could
// inject through its Host header.

import ipaddr from 'ipaddr.js'

export const SERVICE = 'portolan'

export interface RealmSource {
  readonly publicUrl: string | undefined
  /** True if the connection itself uses TLS. */
  readonly encrypted: boolean
  readonly host: string | undefined
  readonly forwardedProto: string | undefined
  readonly forwardedHost: string | undefined
  /** True if the socket's peer is a trusted proxy. Only then are its forwarding headers used. */
  readonly trusted: boolean
}

/** host[:port], where host is a name, an IPv4 address or a bracketed IPv6 address. */
const HOST = /^(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?$/

/** Returns the URL of the token endpoint: the configured one, else one derived from the client's request. */
export function realmOf(source: RealmSource): string {
  if (source.publicUrl !== undefined) return `${source.publicUrl}/token`
  const forwarded = source.trusted ? first(source.forwardedHost) : undefined
  const host = [forwarded, source.host].find((text) => text !== undefined && HOST.test(text)) ?? 'localhost'
  const proto = source.trusted ? first(source.forwardedProto) : undefined
  const https = proto === undefined ? source.encrypted : proto.toLowerCase() === 'https'
  return `${https ? 'https' : 'http'}://${host}/token`
}

function first(list: string | undefined): string | undefined {
  return list?.split(',', 1)[0]?.trim()
}

export function bearerChallenge(options: {
  realm: string
  scope: string | undefined
  error: 'insufficient_scope' | 'invalid_token' | undefined
}): string {
  const { realm, scope, error } = options
  const parameters = [`realm="${realm}"`, `service="${SERVICE}"`]
  if (scope !== undefined) parameters.push(`scope="${scope}"`)
  if (error !== undefined) parameters.push(`error="${error}"`)
  return `Bearer ${parameters.join(',')}`
}

/** Returns a function that tests whether an address is in one of the ranges. IPv4-mapped IPv6 counts as IPv4. */
export function createAddressMatcher(ranges: readonly string[]): (address: string | undefined) => boolean {
  const parsed = ranges.map((range) => ipaddr.parseCIDR(range))
  return (address) => {
    if (parsed.length === 0 || address === undefined || !ipaddr.isValid(address)) return false
    const candidate = ipaddr.process(address)
    return parsed.some((range) => candidate.kind() === range[0].kind() && candidate.match(range))
  }
}
