// Which objects of a store are needed: keys that a blob row names, keys in the notes of open upload sessions, and keys
// of request bodies that have been arriving for a while. Any other object in a store is an orphan once it is old
// enough.
//
// An object's key moves from an attempt to a session to a blob row. The three are read in that order, so a key that
// moves meanwhile is seen in at least one of them.

import type { BlobStore } from '#shared/blobs/blob-store.ts'
import { knownKeys } from './blobs.ts'
import { type Queryable, statement } from './statement.ts'
import { uploadPartsPage } from './uploads.ts'

const PAGE = 500
const FIRST_ID = '00000000-0000-0000-0000-000000000000'
/** An attempt that was not renewed for this long is over. Processes renew theirs far more often. */
const ATTEMPT_LIFE_SECONDS = 3_600

type KeptStore = Pick<BlobStore, 'name' | 'keysOf'>

/** Returns those of the keys that are needed. */
export async function blobKeysInUse(
  db: Queryable,
  options: { store: KeptStore; keys: readonly string[] },
): Promise<Set<string>> {
  const { store, keys } = options
  // Nearly every key of a store has its row. The sessions are read only for the rest.
  const named = await knownKeys(db, { store: store.name, keys })
  const rest = keys.filter((key) => !named.has(key))
  if (rest.length === 0) return named
  const arriving = await keysOfAttempts(db, { store: store.name, keys: rest })
  const held = await keysOfSessions(db, { store, keys: new Set(rest) })
  const committed = await knownKeys(db, { store: store.name, keys: rest })
  return named.union(arriving).union(held).union(committed)
}

/** A session's parts are the notes of the store. Their keys are strings in these notes. */
async function keysOfSessions(
  db: Queryable,
  options: { store: KeptStore; keys: ReadonlySet<string> },
): Promise<Set<string>> {
  const { store, keys } = options
  const held = new Set<string>()
  for (let after = FIRST_ID; ; ) {
    const page = await uploadPartsPage(db, { store: store.name, after, limit: PAGE })
    for (const key of page.flatMap(({ parts }) => store.keysOf(parts))) if (keys.has(key)) held.add(key)
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return held
    after = last.id
  }
}

const attempts = statement<{ key: string }>(
  'attempt-keys',
  `select key from attempt where store = :store and key = any (:keys::text[])
     and seen_at > clock_timestamp() - make_interval(secs => ${ATTEMPT_LIFE_SECONDS})`,
)

async function keysOfAttempts(
  db: Queryable,
  options: { store: string; keys: readonly string[] },
): Promise<Set<string>> {
  return new Set((await db.rows(attempts, options)).map(({ key }) => key))
}

const renew = statement<never>(
  'renew-attempt',
  `insert into attempt (store, key) select :store, key from unnest(:keys::text[]) as key order by key
   on conflict (store, key) do update set seen_at = clock_timestamp()`,
)

/** Records that a request body with these keys is still arriving. Repeat it well within an hour. */
export async function renewAttempt(
  db: Queryable,
  options: { store: string; keys: readonly string[] },
): Promise<void> {
  await db.rows(renew, options)
}

const end = statement<never>(
  'end-attempt',
  `delete from attempt where store = :store and key = any (:keys::text[])`,
)

/** Records that the body has arrived, or was given up. */
export async function endAttempt(
  db: Queryable,
  options: { store: string; keys: readonly string[] },
): Promise<void> {
  await db.rows(end, options)
}

const forget = statement<never>(
  'forget-attempts',
  `delete from attempt where seen_at < clock_timestamp() - make_interval(secs => ${ATTEMPT_LIFE_SECONDS})`,
)

/** Removes the rows of processes that died. */
export async function forgetDeadAttempts(db: Queryable): Promise<void> {
  await db.rows(forget)
}
