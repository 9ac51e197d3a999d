// Entity tags of content-addressed answers: the ETag is the digest in quotes (RFC 9110, 8.8.3 and 13.1).

import type { Digest } from './digest.ts'

/** Longer headers name nothing: If-Match then fails, and a write must refuse If-None-Match. */
export const ENTITY_TAGS_LENGTH_MAX = 8192
/** Tags that a read compares. One behind them counts as not named, which costs its client an answer in full. */
const READ_TAGS_MAX = 100

/** The opaque tags of an If-Match or If-None-Match header; `*` stands for itself. Quotes and W/ are optional. */
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

/** True when If-None-Match holds the digest or `*`: the client has this content already. */
export function hasEntityTag(header: string | undefined, digest: Digest): boolean {
  if (header === undefined) return false
  return parseEntityTags(header, READ_TAGS_MAX).some((tag) => tag === '*' || tag === digest)
}

/**
 * True when a Range may be honoured: no If-Range, or one that names this very content with one strong entity tag. A weak
 * tag never matches, even an equal one (RFC 9110, 13.1.5).
 */
export function rangeStillValid(ifRange: string | undefined, digest: Digest): boolean {
  return ifRange === undefined || ifRange.trim() === `"${digest}"`
}

/** Conditions of a write; a field that is undefined is no condition. `*` stands for whatever is there. */
export interface WriteConditions {
  /** What is there must be one of these. */
  readonly ifMatch?: readonly string[] | undefined
  /** What is there must be none of these. */
  readonly ifNoneMatch?: readonly string[] | undefined
}

/** Whether a write may replace what is there; undefined: nothing is (RFC 9110, 13.1.1 and 13.1.2). */
export function mayReplace(there: Digest | undefined, conditions: WriteConditions): boolean {
  const names = (tags: readonly string[]) =>
    there !== undefined && (tags.includes('*') || tags.includes(there))
  const { ifMatch, ifNoneMatch } = conditions
  return (ifMatch === undefined || names(ifMatch)) && (ifNoneMatch === undefined || !names(ifNoneMatch))
}
