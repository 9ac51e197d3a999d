// Token signing keys, shared by the nodes of a region.

import { type Queryable, statement } from './statement.ts'

export interface SigningKeyRow {
  readonly kid: string
  readonly privateJwk: Record<string, unknown>
  readonly publicJwk: Record<string, unknown>
  readonly createdAtMs: number
  readonly signsFromMs: number
  readonly retiresAtMs: number
}

const list = statement<SigningKeyRow>(
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

export async function listSigningKeys(db: Queryable): Promise<SigningKeyRow[]> {
  return db.rows(list)
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
     where signs_from between to_timestamp(:signs_from_ms::float8 / 1000) - interval '1 hour'
       and to_timestamp(:signs_from_ms::float8 / 1000) + interval '1 hour')`,
)

/** Adds the key unless another node has just added one for about the same time. Must run in a transaction. */
export async function insertSigningKeyIfAbsent(db: Queryable, key: SigningKeyRow): Promise<void> {
  await db.rows(lock)
  await db.rows(insert, {
    kid: key.kid,
    private_jwk: JSON.stringify(key.privateJwk),
    public_jwk: JSON.stringify(key.publicJwk),
    created_at_ms: key.createdAtMs,
    signs_from_ms: key.signsFromMs,
    retires_at_ms: key.retiresAtMs,
  })
}
