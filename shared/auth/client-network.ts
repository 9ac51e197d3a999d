// Maps a client's address to the network that rate limits count: one IPv4 address, or the /64 of an IPv6 address. A
// subscriber usually gets a whole /64, so counting single IPv6 addresses would limit nothing.

import ipaddr from 'ipaddr.js'

const IPV6_PREFIX_BITS = 64

/** IPv4-mapped IPv6 counts as IPv4. A string that is not an address is its own network, cut to 64 characters. */
export function networkOf(address: string): string {
  if (!ipaddr.isValid(address)) return address.slice(0, 64)
  const parsed = ipaddr.process(address)
  if (parsed instanceof ipaddr.IPv4) return parsed.toString()
  return `${ipaddr.IPv6.networkAddressFromCIDR(`${parsed.toNormalizedString()}/${IPV6_PREFIX_BITS}`)}/${IPV6_PREFIX_BITS}`
}
