// Parses the Authorization header: Basic (RFC 7617) or Bearer (RFC 6750). Lengths are checked before anything is
// decoded.

const HEADER_LENGTH_MAX = 24 * 1024
const BASIC_LENGTH_MAX = 8 * 1024

export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'basic'; readonly name: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }
  | { readonly kind: 'malformed' }

const NONE: Credentials = Object.freeze({ kind: 'none' })
const MALFORMED: Credentials = Object.freeze({ kind: 'malformed' })

/** Empty Basic credentials (`Og==`), which some clients send for an anonymous user, count as none. */
export function parseAuthorization(header: string | undefined): Credentials {
  if (header === undefined || header === '') return NONE
  if (header.length > HEADER_LENGTH_MAX) return MALFORMED
  const space = header.indexOf(' ')
  const scheme = header.slice(0, Math.max(0, space)).toLowerCase()
  const value = header.slice(space + 1)
  if (scheme === 'bearer') return value === '' ? MALFORMED : { kind: 'bearer', token: value }
  if (scheme !== 'basic' || value.length > BASIC_LENGTH_MAX || !/^[A-Za-z0-9+/_-]*={0,2}$/.test(value))
    return MALFORMED
  const text = Buffer.from(value, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon === -1 || text.includes('\0')) return MALFORMED
  const name = text.slice(0, colon)
  const password = text.slice(colon + 1)
  return name === '' && password === '' ? NONE : { kind: 'basic', name, password }
}
