// Digests: the names of content (image-spec, "Digests"). Parsed once at the border; the interior trusts the brand.
// sha256 must be known and sha512 should be; any other algorithm is not a digest here. Nothing is allocated or built
// into a path or key before the exact grammar has matched.

import { createHash, hash } from 'node:crypto'

export type Digest = string & { readonly __brand: 'Digest' }
export type DigestAlgorithm = 'sha256' | 'sha512'

export const DIGEST_ALGORITHMS = ['sha256', 'sha512'] as const satisfies readonly DigestAlgorithm[]

const SHA256_LENGTH = 'sha256:'.length + 64
const SHA512_LENGTH = 'sha512:'.length + 128
const SHA256 = /^sha256:[a-f0-9]{64}$/
const SHA512 = /^sha512:[a-f0-9]{128}$/

/** The digest, or undefined for anything but lower-case hex of the right length in a known algorithm. */
export function parseDigest(text: string): Digest | undefined {
  if (text.length === SHA256_LENGTH) return SHA256.test(text) ? (text as Digest) : undefined
  if (text.length === SHA512_LENGTH) return SHA512.test(text) ? (text as Digest) : undefined
  return undefined
}

export function parseAlgorithm(text: string): DigestAlgorithm | undefined {
  return DIGEST_ALGORITHMS.find((algorithm) => algorithm === text)
}

export function algorithmOf(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256'
}

/** True for a reference that can only be meant as a digest: a tag has no colon. */
export function isDigestLike(text: string): boolean {
  return text.includes(':')
}

export function digestBytes(algorithm: DigestAlgorithm, bytes: Uint8Array): Digest {
  return `${algorithm}:${hash(algorithm, bytes, 'hex')}` as Digest
}

export interface Digester {
  update(chunk: Uint8Array): void
  /** The digest of everything so far; more may follow. */
  digest(): Digest
}

/** Hashes a stream natively. */
export function createDigester(algorithm: DigestAlgorithm): Digester {
  const hash = createHash(algorithm)
  return {
    update: (chunk) => {
      hash.update(chunk)
    },
    digest: () => `${algorithm}:${hash.copy().digest('hex')}` as Digest,
  }
}
