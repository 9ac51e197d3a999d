// Pages of tags and repositories: `n` and `last` in, `Link` out (distribution-spec, "Listing tags"; RFC 8288).

import { RegistryError } from '#shared/errors.ts'
import type { Query } from './query.ts'

const PAGE_DEFAULT = 100
/** Clients ask for 1,000 and for 10,000: they get this many and a Link, never an error. */
const PAGE_MAX = 1000
/** Longer than any name or tag; `last` need not exist, so anything up to here is only compared. */
const LAST_LENGTH_MAX = 512

export interface Page {
  /** 0 asks for nothing and gets no Link. */
  readonly limit: number
  /** Exclusive lower bound; '' for the first page. */
  readonly last: string
}

/** @throws RegistryError PAGINATION_NUMBER_INVALID for an `n` that is no number or given twice. */
export function parsePage(query: Query): Page {
  const numbers = query.getAll('n')
  const last = query.get('last') ?? ''
  const text = numbers[0]
  if (numbers.length > 1 || (text !== undefined && !/^[0-9]{1,64}$/.test(text))) {
    throw new RegistryError('PAGINATION_NUMBER_INVALID')
  }
  if (last.length > LAST_LENGTH_MAX || last.includes('\0')) {
    throw new RegistryError('REQUEST_INVALID', { message: '`last` is no name' })
  }
  return { limit: text === undefined ? PAGE_DEFAULT : Math.min(Number(text), PAGE_MAX), last }
}

/** A path-absolute Link value to the next page: no scheme or host that a balancer could make wrong. */
export function nextLink(path: string, parameters: Readonly<Record<string, string | number>>): string {
  const query = Object.entries(parameters)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&')
  return `<${path}?${query}>; rel="next"`
}
