// Entity tags of content-addressed answers: the ETag is the digest in quotes (RFC 9110, 8.8.3 and 13.1).

import type { Digest } from './digest.ts'

const HEADER_LENGTH_MAX = 8192

/** The opaque tags of an If-Match or If-None-Match header; `*` stands for itself. Quotes and W/ are optional. */
export function parseEntityTags(header: string | undefined): readonly string[] {
  if (header === undefined || header.length > HEADER_LENGTH_MAX) return []
  return header
    .split(',')
    .map((item) =>
      item
        .trim()
        .replace(/^W\//, '')
        .replace(/^"(.*)"$/, '$1'),
    )
    .filter((item) => item !== '')
}

/** True when If-None-Match holds the digest or `*`: the client has this content already. */
export function hasEntityTag(header: string | undefined, digest: Digest): boolean {
  if (header === undefined) return false
  return parseEntityTags(header).some((tag) => tag === '*' || tag === digest)
}

/**
 * True when a Range may be honoured: no If-Range, or one that names this very content with one strong entity tag. A weak
 * tag never matches, even an equal one (RFC 9110, 13.1.5).
 */
export function rangeStillValid(ifRange: string | undefined, digest: Digest): boolean {
  return ifRange === undefined || ifRange.trim() === `"${digest}"`
}
