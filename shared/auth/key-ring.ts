// Signing keys: ES256, shared by the nodes of a region through the database, and rotated automatically.
//
// A key is published one day before it signs, so every node (and every region that fetches keys) knows it before the
// first token arrives. It signs for thirty days, and verifies for one day longer than any token lives. Two keys sign
// immediately: the very first one, and the first one made after the earlier keys can no longer be decrypted. Looking up
// a key uses only this process and its database.

import { randomUUID } from 'node:crypto'
import { type CryptoKey, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose'

const DAY_MS = 24 * 3_600_000
const PUBLISH_BEFORE_MS = DAY_MS
const SIGN_FOR_MS = 30 * DAY_MS
const VERIFY_AFTER_MS = DAY_MS
const REFRESH_MS = 60_000
/** Unknown key ids cause at most one lookup per this interval, because clients choose the ids they send. */
const UNKNOWN_LOOK_MS = 5_000

export interface StoredKey {
  readonly kid: string
  /** undefined if this node cannot decrypt it. The key then verifies but does not sign. */
  readonly privateJwk: JWK | undefined
  readonly publicJwk: JWK
  readonly createdAtMs: number
  readonly signsFromMs: number
  readonly retiresAtMs: number
}

export interface NewKey extends StoredKey {
  readonly privateJwk: JWK
}

export interface KeyStore {
  /** Returns the keys that have not retired. */
  list(): Promise<readonly StoredKey[]>
  /** Adds the key unless another node just added one for the same time. Keys in `closed` are ignored in that check. */
  insertIfAbsent(key: NewKey, closed: readonly string[]): Promise<void>
}

/** Returns when the next key must start signing, or undefined if it is too early to make one. */
export function nextKeyDue(keys: readonly StoredKey[], nowMs: number): number | undefined {
  const latest = keys.reduce<number | undefined>((max, key) => Math.max(max ?? 0, key.signsFromMs), undefined)
  if (latest === undefined) return nowMs
  const endsAtMs = latest + SIGN_FOR_MS
  if (nowMs < endsAtMs - PUBLISH_BEFORE_MS) return undefined
  // A region that was down when the key was due still publishes it first.
  return Math.max(endsAtMs, nowMs + PUBLISH_BEFORE_MS)
}

/** Returns the key that signs now: the latest one whose signing time has come. */
export function signingKey(keys: readonly StoredKey[], nowMs: number): NewKey | undefined {
  return keys
    .filter(canSign)
    .filter(({ signsFromMs }) => signsFromMs <= nowMs)
    .reduce<NewKey | undefined>(
      (best, key) => (best === undefined || key.signsFromMs > best.signsFromMs ? key : best),
      undefined,
    )
}

function canSign(key: StoredKey): key is NewKey {
  return key.privateJwk !== undefined
}

export async function makeKey(times: { nowMs: number; signsFromMs: number }): Promise<NewKey> {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
  return {
    kid: randomUUID(),
    privateJwk: await exportJWK(privateKey),
    publicJwk: await exportJWK(publicKey),
    createdAtMs: times.nowMs,
    signsFromMs: times.signsFromMs,
    retiresAtMs: times.signsFromMs + SIGN_FOR_MS + PUBLISH_BEFORE_MS + VERIFY_AFTER_MS,
  }
}

export interface KeyRing {
  signing(): Promise<{ kid: string; key: CryptoKey }>
  /** Returns the public key, or undefined for an id that was never issued. */
  verifying(kid: string): Promise<CryptoKey | undefined>
}

export function createKeyRing(options: { store: KeyStore; nowMs?: () => number }): KeyRing {
  const { store } = options
  const nowMs = options.nowMs ?? Date.now
  let keys: readonly StoredKey[] = []
  let lookedAtMs = Number.NEGATIVE_INFINITY
  let looking: Promise<void> | undefined
  const imported = new Map<string, Promise<CryptoKey>>()

  async function look(): Promise<void> {
    const startedAtMs = nowMs()
    keys = await store.list()
    const signsFromMs = nextKeyDue(keys.filter(canSign), nowMs())
    if (signsFromMs !== undefined) {
      const closed = keys.filter((key) => !canSign(key)).map(({ kid }) => kid)
      await store.insertIfAbsent(await makeKey({ nowMs: nowMs(), signsFromMs }), closed)
      keys = await store.list()
    }
    const kids = new Set(keys.map(({ kid }) => kid))
    for (const name of imported.keys()) if (!kids.has(name.slice(1))) imported.delete(name)
    // Set only after success: after a failed lookup the next request tries again, instead of having no keys for a
    // minute.
    lookedAtMs = startedAtMs
  }

  async function refresh(olderThanMs: number): Promise<void> {
    if (nowMs() - lookedAtMs < olderThanMs) return looking
    looking ??= look().finally(() => {
      looking = undefined
    })
    return looking
  }

  function importOnce(name: string, jwk: JWK): Promise<CryptoKey> {
    const known = imported.get(name)
    if (known !== undefined) return known
    const key = importJWK(jwk, 'ES256') as Promise<CryptoKey>
    imported.set(name, key)
    return key
  }

  return {
    async signing() {
      await refresh(REFRESH_MS)
      const key = signingKey(keys, nowMs())
      if (key === undefined)
        throw new Error('no signing key is valid yet: the clock was set back to before the first key')
      return { kid: key.kid, key: await importOnce(`s${key.kid}`, key.privateJwk) }
    },
    async verifying(kid) {
      await refresh(REFRESH_MS)
      const find = () => keys.find((key) => key.kid === kid && key.retiresAtMs > nowMs())
      if (find() === undefined) await refresh(UNKNOWN_LOOK_MS)
      const key = find()
      return key && importOnce(`v${kid}`, key.publicJwk)
    },
  }
}
