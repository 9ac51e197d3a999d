// Query strings, with bounds. `+` stays a plus sign: the only values here are names, digests, tags and media types.
// Some clients send them unescaped, and `application/vnd.example+json` must survive.

import { RegistryError } from '#shared/errors.ts'

/** Parameters per request. Ten tags and a digest stay far below it. */
const PAIRS_MAX = 64

export interface Query {
  /** Returns the value, or the last one if there are several; undefined if absent. */
  get(name: string): string | undefined
  getAll(name: string): readonly string[]
  /** Returns each name with its value, or with the last one if there are several. */
  toObject(): Record<string, string>
}

/** @throws RegistryError REQUEST_INVALID for broken percent-encoding, 414 for too many parameters. */
export function parseQuery(query: string): Query {
  const pairs: [string, string][] = []
  for (const part of query === '' ? [] : query.split('&', PAIRS_MAX + 1)) {
    if (part === '') continue
    if (pairs.length === PAIRS_MAX) {
      throw new RegistryError('REQUEST_INVALID', { status: 414, message: 'too many query parameters' })
    }
    const equals = part.indexOf('=')
    pairs.push(
      equals === -1 ? [decode(part), ''] : [decode(part.slice(0, equals)), decode(part.slice(equals + 1))],
    )
  }
  return {
    get: (name) => pairs.findLast(([key]) => key === name)?.[1],
    getAll: (name) => pairs.filter(([key]) => key === name).map(([, value]) => value),
    toObject: () => Object.fromEntries(pairs),
  }
}

function decode(text: string): string {
  if (!text.includes('%')) return text
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new RegistryError('REQUEST_INVALID', { message: 'the query is not percent-encoded UTF-8', cause })
  }
}
