// Parsers of configuration values. Each returns the value or throws a ConfigValueError. The error's message completes a
// sentence that begins with the variable's name, and never contains the value of a secret.

import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

export class ConfigValueError extends Error {
  override readonly name = 'ConfigValueError'
}

export interface ListenAddress {
  /** As given. 'localhost' listens on both address families of loopback. */
  readonly host: string
  readonly port: number
}

/** `host:port`, `[v6]:port`, or `:port` for every address. */
export function listenAddress(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9.-]{0,253})):([0-9]{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) throw new ConfigValueError('is not host:port')
  return { host: match[1] ?? (match[2] === '' ? '::' : (match[2] ?? '::')), port }
}

/** `host:port,host:port`, or `none`. */
export function brokers(text: string): string[] {
  if (text === 'none') return []
  const all = text.split(',').map((one) => one.trim())
  for (const one of all) {
    const match = /^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})$/.exec(one)
    if (match === null || Number(match[2]) > 65_535)
      throw new ConfigValueError(`holds "${one}", which is not host:port`)
  }
  return all
}

const KEY_LENGTH_MIN = 32

/** One to eight secrets, separated by commas or white space. Each must be long enough to resist guessing. */
export function keyList(text: string): string[] {
  const keys = text.split(/[,\s]+/).filter((key) => key !== '')
  if (keys.length === 0 || keys.length > 8) throw new ConfigValueError('must hold one to eight keys')
  for (const key of keys) {
    if (!/^[\x21-\x7e]+$/.test(key) || key.length < KEY_LENGTH_MIN)
      throw new ConfigValueError(
        `holds a key shorter than ${KEY_LENGTH_MIN} characters (create one with \`openssl rand -base64 32\`)`,
      )
  }
  return keys
}

/** https://kafka.apache.org: letters, digits, dots, underscores, hyphens. */
export function topicName(text: string): string {
  if (!/^[A-Za-z0-9._-]{1,249}$/.test(text) || text === '.' || text === '..')
    throw new ConfigValueError('is not a valid topic name')
  return text
}

export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true
  return isIP(host) !== 0 && ipaddr.process(host).range() === 'loopback'
}

export function integer(bounds: { min: number; max: number }): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^[0-9]{1,15}$/.test(text) || value < bounds.min || value > bounds.max) {
      throw new ConfigValueError(`is not a whole number from ${bounds.min} to ${bounds.max}`)
    }
    return value
  }
}

const UNITS: Readonly<Record<string, number>> = Object.freeze({
  '': 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
})

export function bytes(bounds: { min: number; max: number }): (text: string) => number {
  return (text) => {
    const match = /^([0-9]{1,15})(|KiB|MiB|GiB)$/.exec(text)
    const value = Number(match?.[1]) * (UNITS[match?.[2] ?? ''] ?? 1)
    if (match === null || value < bounds.min || value > bounds.max) {
      throw new ConfigValueError(
        `is not a size from ${bounds.min} to ${bounds.max} (bytes, or with KiB, MiB, GiB)`,
      )
    }
    return value
  }
}

export function oneOf<const T extends string>(...values: readonly T[]): (text: string) => T {
  return (text) => {
    const value = values.find((candidate) => candidate === text)
    if (value === undefined) throw new ConfigValueError(`must be one of ${values.join(', ')}`)
    return value
  }
}

export function flag(text: string): boolean {
  return oneOf('true', 'false')(text) === 'true'
}

export function regionName(text: string): string {
  if (!/^[a-z][a-z0-9-]{0,31}$/.test(text)) {
    throw new ConfigValueError(
      'is not a lower-case word of letters, digits and dashes (at most 32 characters)',
    )
  }
  return text
}

const REGIONS_MAX = 16

/** `name=value,name=value`. Each name is a region's and occurs once. */
export function byRegion<T>(parse: (text: string) => T): (text: string) => ReadonlyMap<string, T> {
  return (text) => {
    const all = new Map<string, T>()
    for (const part of text.split(',')) {
      const [, name = '', value = ''] = /^\s*([^=]+)=(.*?)\s*$/.exec(part) ?? []
      try {
        regionName(name)
      } catch {
        throw new ConfigValueError(`holds "${part.trim()}", which is not <region>=<value>`)
      }
      if (all.has(name)) throw new ConfigValueError(`names "${name}" twice`)
      all.set(name, parse(value))
    }
    if (all.size > REGIONS_MAX) throw new ConfigValueError(`names more than ${REGIONS_MAX} regions`)
    return all
  }
}

/** `us=k1:9093+k2:9093,...`: brokers of several regions. */
export function brokersByRegion(text: string): ReadonlyMap<string, readonly string[]> {
  return byRegion((list) => brokers(list.replaceAll('+', ',')))(text)
}

export function databaseUrl(text: string): string {
  if (!/^postgres(?:ql)?:\/\//.test(text) || !URL.canParse(text)) {
    throw new ConfigValueError('is not a postgres:// URL')
  }
  return text
}

/** An origin: scheme, host and port. A path is refused, because it could not be honoured. */
export function publicUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (
    url === undefined ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.username ||
    url.pathname !== '/'
  ) {
    throw new ConfigValueError('is not an http:// or https:// URL without a path')
  }
  return url.origin
}

/** Comma-separated address ranges. A bare address is a range of one address. */
export function addressRanges(text: string): readonly string[] {
  return words(text).map((range) => {
    const cidr = range.includes('/') ? range : `${range}/${isIP(range) === 6 ? 128 : 32}`
    if (!ipaddr.isValidCIDR(cidr)) throw new ConfigValueError(`holds ${range}, which is not an address range`)
    return cidr
  })
}

export function words(text: string): readonly string[] {
  return text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')
}

export function plain(text: string): string {
  if (text === '') throw new ConfigValueError('is empty')
  return text
}

/** `off`, or any text that the parser accepts. */
export function orOff<T>(parser: (text: string) => T): (text: string) => T | undefined {
  return (text) => (text === 'off' ? undefined : parser(text))
}

/** The URL of a service: scheme, host, port and an optional path. */
export function serviceUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.username || url.search) {
    throw new ConfigValueError('is not an http:// or https:// URL without credentials')
  }
  return url.href.replace(/\/$/, '')
}

/** A key prefix. Ends with a slash unless it is empty. */
export function objectPrefix(text: string): string {
  if (!/^[A-Za-z0-9._/-]{0,200}$/.test(text) || /(^|\/)\.\.?(\/|$)|^\/|\/\//.test(text)) {
    throw new ConfigValueError(
      'is not a prefix of letters, digits, dots, dashes and single slashes (at most 200 characters)',
    )
  }
  return text === '' || text.endsWith('/') ? text : `${text}/`
}
