// The one WWW-Authenticate header: clients read only the first challenge, and only the one of `/v2/` for their whole
// session. Always Bearer, every parameter quoted, nothing in it that a client's Host header could have injected.

import ipaddr from 'ipaddr.js'

export const SERVICE = 'portolan'

export interface RealmSource {
  readonly publicUrl: string | undefined
  /** True when the connection itself is TLS. */
  readonly encrypted: boolean
  readonly host: string | undefined
  readonly forwardedProto: string | undefined
  readonly forwardedHost: string | undefined
  /** The socket's peer is a trusted proxy: its forwarding headers count. */
  readonly trusted: boolean
}

/** host[:port], with a name, an IPv4 or a bracketed IPv6 address. */
const HOST = /^(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?$/

/** Where tokens are had: from configuration, else from how the client got here. */
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

/** Tells whether an address lies in one of the ranges. IPv4 in IPv6 clothes counts as IPv4. */
export function createAddressMatcher(ranges: readonly string[]): (address: string | undefined) => boolean {
  const parsed = ranges.map((range) => ipaddr.parseCIDR(range))
  return (address) => {
    if (parsed.length === 0 || address === undefined || !ipaddr.isValid(address)) return false
    const candidate = ipaddr.process(address)
    return parsed.some((range) => candidate.kind() === range[0].kind() && candidate.match(range))
  }
}
