// Entity tags of content-addressed responses. The ETag is the digest in quotes (RFC 9110, 8.8.3 and 13.1).

import type { Digest } from './digest.ts'

/** A longer header counts as empty: If-Match then fails. A write must refuse a longer If-None-Match itself. */
export const ENTITY_TAGS_LENGTH_MAX = 8192
/** Tags that a read compares. Later tags are ignored, which at worst sends the client a full response. */
const READ_TAGS_MAX = 100

/** Returns the opaque tags of an If-Match or If-None-Match header; `*` is kept as is. Quotes and W/ are optional. */
export function parseEntityTags(header: string | undefined, tagsMax?: number): readonly string[] {
  if (header === undefined || header.length > ENTITY_TAGS_LENGTH_MAX) return []
  return header
    .split(',', tagsMax)
    .map((item) =>
      item
        .trim()
        .replace(/^W\//, '')
        .replace(/^"(.*)"$/, '$1'),
    )
    .filter((item) => item !== '')
}

/** Returns true if If-None-Match contains the digest or `*`: the client already has this content. */
export function hasEntityTag(header: string | undefined, digest: Digest): boolean {
  if (header === undefined) return false
  return parseEntityTags(header, READ_TAGS_MAX).some((tag) => tag === '*' || tag === digest)
}

/**
 * Returns true if a Range may be honoured: there is no If-Range, or it is one strong entity tag of exactly this
 * content. A weak tag never matches, even if it is equal (RFC 9110, 13.1.5).
 */
export function rangeStillValid(ifRange: string | undefined, digest: Digest): boolean {
  return ifRange === undefined || ifRange.trim() === `"${digest}"`
}

/** Conditions of a write. An undefined field is no condition. `*` matches any existing content. */
export interface WriteConditions {
  /** The current content must be one of these. */
  readonly ifMatch?: readonly string[] | undefined
  /** The current content must be none of these. */
  readonly ifNoneMatch?: readonly string[] | undefined
}

/**
 * Returns true if a write may replace the current content (RFC 9110, 13.1.1 and 13.1.2).
 * @param there undefined if nothing exists yet
 */
export function mayReplace(there: Digest | undefined, conditions: WriteConditions): boolean {
  const names = (tags: readonly string[]) =>
    there !== undefined && (tags.includes('*') || tags.includes(there))
  const { ifMatch, ifNoneMatch } = conditions
  return (ifMatch === undefined || names(ifMatch)) && (ifNoneMatch === undefined || !names(ifNoneMatch))
}
