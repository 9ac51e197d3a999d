// The key that signs the Locations of upload sessions, shared by the nodes of a region: one row, created by the first
// node that needs it. The table is unlogged, so a crash of the database removes the key along with the sessions, and
// the next key refuses every Location from before.
//
// The secret is not sealed and need not be: a forged Location gains only what a POST gives to anyone who may push.

import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import { maybe, type Queryable, statement } from './statement.ts'

const SECRET_BYTES = 32
/** If another node creates the row at the same moment, the next try sees it. */
const TRIES_MAX = 4

export interface UploadKey {
  readonly id: string
  /** For HMAC. */
  readonly secret: KeyObject
  /** The database's clock at the time of its answer, in milliseconds. */
  readonly nowMs: number
}

const have = statement<Omit<UploadKey, 'secret'> & { secret: Buffer }>(
  'have-upload-key',
  `with made as (
     insert into upload_key (secret) select :secret::bytea where not exists (select from upload_key)
     on conflict do nothing
     returning id, secret
   )
   select id, secret, extract(epoch from clock_timestamp())::float8 * 1000 as "nowMs"
   from (select id, secret from made union all select id, secret from upload_key) as either`,
)

/** Returns the region's key. Creates it if there is none. */
export async function uploadKey(db: Queryable): Promise<UploadKey> {
  for (let tries = 1; tries <= TRIES_MAX; tries++) {
    const key = await maybe(db, have, { secret: randomBytes(SECRET_BYTES) })
    if (key !== undefined) return { ...key, secret: createSecretKey(key.secret) }
  }
  throw new Error('the key that signs upload Locations is made and lost again and again')
}
