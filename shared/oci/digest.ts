// Digests: names of content (image-spec, "Digests"). They are parsed once at the border; the rest of the code trusts
// the brand. The specification requires sha256 and recommends sha512; no other algorithm is accepted. Nothing is
// allocated, and no path or key is built, before the exact grammar has matched.

import { createHash, hash } from 'node:crypto'

export type Digest = string & { readonly __brand: 'Digest' }
export type DigestAlgorithm = 'sha256' | 'sha512'

export const DIGEST_ALGORITHMS = ['sha256', 'sha512'] as const satisfies readonly DigestAlgorithm[]

const SHA256_LENGTH = 'sha256:'.length + 64
const SHA512_LENGTH = 'sha512:'.length + 128
const SHA256 = /^sha256:[a-f0-9]{64}$/
const SHA512 = /^sha512:[a-f0-9]{128}$/

/** Returns the digest, or undefined unless the text is lower-case hex of the right length in a known algorithm. */
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

/** Returns true if the reference can only be a digest: a tag never contains a colon. */
export function isDigestLike(text: string): boolean {
  return text.includes(':')
}

export function digestBytes(algorithm: DigestAlgorithm, bytes: Uint8Array): Digest {
  return `${algorithm}:${hash(algorithm, bytes, 'hex')}` as Digest
}

export interface Digester {
  update(chunk: Uint8Array): void
  /** Returns the digest of all bytes so far. More updates may follow. */
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
