// Repository names, tags and references (distribution-spec, "Pulling manifests"). Lengths are checked before any
// pattern runs, and every pattern takes linear time.

import { createHash } from 'node:crypto'
import { type Digest, isDigestLike, parseDigest } from './digest.ts'

export type RepositoryName = string & { readonly __brand: 'RepositoryName' }
export type Tag = string & { readonly __brand: 'Tag' }

export const NAME_LENGTH_MAX = 255
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/
// At least one letter or digit follows each separator. So there is only one way to match, and no backtracking.
const NAME = /^[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*$/

export function parseRepositoryName(text: string): RepositoryName | undefined {
  if (text.length === 0 || text.length > NAME_LENGTH_MAX) return undefined
  return NAME.test(text) ? (text as RepositoryName) : undefined
}

export function parseTag(text: string): Tag | undefined {
  return text.length <= 128 && TAG.test(text) ? (text as Tag) : undefined
}

export type Reference =
  | { readonly kind: 'tag'; readonly tag: Tag }
  | { readonly kind: 'digest'; readonly digest: Digest }
  | { readonly kind: 'invalid'; readonly code: 'TAG_INVALID' | 'DIGEST_INVALID' }

/** Text with a colon is parsed as a digest, so a malformed one is reported as a bad digest, not as an unknown tag. */
export function parseReference(text: string): Reference {
  if (isDigestLike(text)) {
    const digest = parseDigest(text)
    return digest === undefined ? { kind: 'invalid', code: 'DIGEST_INVALID' } : { kind: 'digest', digest }
  }
  const tag = parseTag(text)
  return tag === undefined ? { kind: 'invalid', code: 'TAG_INVALID' } : { kind: 'tag', tag }
}

/**
 * Returns the shard of a repository: first byte of sha256(name) & 7. It must never change and is the same everywhere.
 */
export function shardOf(repository: RepositoryName): number {
  const first = createHash('sha256').update(repository).digest()[0] ?? 0
  return first & 7
}
