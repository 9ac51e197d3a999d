// Pagination of tags and repositories: parses `n` and `last`, builds `Link` (distribution-spec, "Listing tags"; RFC
// 8288).

import { RegistryError } from '#shared/errors.ts'
import type { Query } from './query.ts'

const PAGE_DEFAULT = 100
/** Clients ask for 1,000 or for 10,000. They get at most this many and a Link, never an error. */
const PAGE_MAX = 1000
/** Longer than any name or tag. `last` need not exist; it is only compared. */
const LAST_LENGTH_MAX = 512

export interface Page {
  /** 0 returns an empty page without a Link. */
  readonly limit: number
  /** Exclusive lower bound; '' for the first page. */
  readonly last: string
}

/** @throws RegistryError PAGINATION_NUMBER_INVALID if `n` is not a number or is given twice */
export function parsePage(query: Query): Page {
  const numbers = query.getAll('n')
  const last = query.get('last') ?? ''
  const text = numbers[0]
  if (numbers.length > 1 || (text !== undefined && !/^[0-9]{1,64}$/.test(text))) {
    throw new RegistryError('PAGINATION_NUMBER_INVALID')
  }
  if (last.length > LAST_LENGTH_MAX || last.includes('\0')) {
    throw new RegistryError('REQUEST_INVALID', { message: '`last` is not a valid name' })
  }
  return { limit: text === undefined ? PAGE_DEFAULT : Math.min(Number(text), PAGE_MAX), last }
}

/** Builds a path-absolute Link value for the next page. It has no scheme or host that a load balancer could falsify. */
export function nextLink(path: string, parameters: Readonly<Record<string, string | number>>): string {
  const query = Object.entries(parameters)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&')
  return `<${path}?${query}>; rel="next"`
}
