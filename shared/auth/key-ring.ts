// Signing keys: ES256, shared by a region's nodes through the database, renewed by themselves.
//
// A key is published a day before it signs, so that every node (and every region that fetches keys) knows it when the
// first token arrives; it signs for thirty days and verifies for a day longer than any token lives. Only the first key
// of all signs at once, and the first after those before it can no longer be opened. Looking a key up never leaves this
// process and its database.

import { randomUUID } from 'node:crypto'
import { type CryptoKey, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose'

const DAY_MS = 24 * 3_600_000
const PUBLISH_BEFORE_MS = DAY_MS
const SIGN_FOR_MS = 30 * DAY_MS
const VERIFY_AFTER_MS = DAY_MS
const REFRESH_MS = 60_000
/** An unknown key id makes us look at most this often: ids are the client's to choose. */
const UNKNOWN_LOOK_MS = 5_000

export interface StoredKey {
  readonly kid: string
  /** undefined: it cannot be opened here, so the key verifies and does not sign. */
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
  /** Keys that have not retired. */
  list(): Promise<readonly StoredKey[]>
  /** Adds the key unless another node has just added one for the same time; `closed` ones do not count for that. */
  insertIfAbsent(key: NewKey, closed: readonly string[]): Promise<void>
}

/** When the next key has to start signing; undefined: not yet time to make one. */
export function nextKeyDue(keys: readonly StoredKey[], nowMs: number): number | undefined {
  const latest = keys.reduce<number | undefined>((max, key) => Math.max(max ?? 0, key.signsFromMs), undefined)
  if (latest === undefined) return nowMs
  const endsAtMs = latest + SIGN_FOR_MS
  if (nowMs < endsAtMs - PUBLISH_BEFORE_MS) return undefined
  // A region that slept through its turn still publishes first.
  return Math.max(endsAtMs, nowMs + PUBLISH_BEFORE_MS)
}

/** The key that signs now: the latest whose time has come. */
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
  /** The public key; undefined for an id we never gave out. */
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
    // Only now: after a look that failed the next request looks again, instead of living a minute without keys.
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
        throw new Error('no signing key is in force: the clock went back before the first one')
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
