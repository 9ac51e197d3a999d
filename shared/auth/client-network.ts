// The network that a client's address stands for, as throttles count it: one IPv4 address, or the /64 of an IPv6
// address. A /64 is what one subscriber gets, so counting single IPv6 addresses would count nothing.

import ipaddr from 'ipaddr.js'

const IPV6_PREFIX_BITS = 64

/** IPv4 in IPv6 clothes counts as IPv4. What is no address is a network of its own, at most 64 characters of it. */
export function networkOf(address: string): string {
  if (!ipaddr.isValid(address)) return address.slice(0, 64)
  const parsed = ipaddr.process(address)
  if (parsed instanceof ipaddr.IPv4) return parsed.toString()
  return `${ipaddr.IPv6.networkAddressFromCIDR(`${parsed.toNormalizedString()}/${IPV6_PREFIX_BITS}`)}/${IPV6_PREFIX_BITS}`
}
