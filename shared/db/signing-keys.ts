// Token signing keys, shared by the nodes of a region. The private half is sealed before it is written to the row.

import { isSealed, SealError, type Sealer } from '#shared/secrets/sealer.ts'
import { type Queryable, statement } from './statement.ts'

type Jwk = Record<string, unknown>

export interface SigningKeyRow {
  readonly kid: string
  /** undefined if it cannot be opened here. The key then verifies and does not sign. */
  readonly privateJwk: Jwk | undefined
  readonly publicJwk: Jwk
  readonly createdAtMs: number
  readonly signsFromMs: number
  readonly retiresAtMs: number
}

const list = statement<SigningKeyRow & { privateJwk: Jwk | string }>(
  'list-signing-keys',
  `select kid, private_jwk as "privateJwk", public_jwk as "publicJwk",
     extract(epoch from created_at)::float8 * 1000 as "createdAtMs",
     extract(epoch from signs_from)::float8 * 1000 as "signsFromMs",
     extract(epoch from retires_at)::float8 * 1000 as "retiresAtMs"
   from signing_key
   where retires_at > clock_timestamp()
   order by signs_from
   limit 100`,
)

/** @param onClosed called with each key whose private half cannot be opened, and the reason */
export async function listSigningKeys(
  db: Queryable,
  sealer: Sealer,
  onClosed: (kid: string, reason: string) => void,
): Promise<SigningKeyRow[]> {
  const rows = await db.rows(list)
  return rows.map((row) => {
    // In clear: written by a release from before sealing.
    if (!isSealed(row.privateJwk)) return row
    try {
      return {
        ...row,
        privateJwk: JSON.parse(sealer.open(row.privateJwk, placeOfSigningKey(row.kid))) as Jwk,
      }
    } catch (thrown) {
      if (!(thrown instanceof SealError)) throw thrown
      onClosed(row.kid, thrown.message)
      return { ...row, privateJwk: undefined }
    }
  })
}

/** Returns where a private half is stored. A sealed one can be opened only there. */
export function placeOfSigningKey(kid: string): string {
  return `signing-key/${kid}`
}

const LOCK_KEY = 7_065_812

const lock = statement<object>('lock-signing-keys', `select pg_advisory_xact_lock(${LOCK_KEY})`)

const insert = statement<object>(
  'insert-signing-key',
  `insert into signing_key (kid, private_jwk, public_jwk, created_at, signs_from, retires_at)
   select :kid, :private_jwk::jsonb, :public_jwk::jsonb, to_timestamp(:created_at_ms::float8 / 1000),
     to_timestamp(:signs_from_ms::float8 / 1000), to_timestamp(:retires_at_ms::float8 / 1000)
   where not exists (
     select from signing_key
     where kid <> all(:closed::text[])
       and signs_from between to_timestamp(:signs_from_ms::float8 / 1000) - interval '1 hour'
         and to_timestamp(:signs_from_ms::float8 / 1000) + interval '1 hour')`,
)

/**
 * Adds the key unless another node has just added one for about the same time. `closed`: keys that do not count for
 * this, because they cannot be opened here. Must run in a transaction.
 */
export async function insertSigningKeyIfAbsent(
  db: Queryable,
  sealer: Sealer,
  key: SigningKeyRow & { readonly privateJwk: Jwk; readonly closed: readonly string[] },
): Promise<void> {
  await db.rows(lock)
  await db.rows(insert, {
    kid: key.kid,
    private_jwk: JSON.stringify(sealer.seal(JSON.stringify(key.privateJwk), placeOfSigningKey(key.kid))),
    public_jwk: JSON.stringify(key.publicJwk),
    created_at_ms: key.createdAtMs,
    signs_from_ms: key.signsFromMs,
    retires_at_ms: key.retiresAtMs,
    closed: key.closed,
  })
}
