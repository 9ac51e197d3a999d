// Whether nodes of older releases live in this region. While one does, nothing is written that it could not read or
// continue: small blobs in the database, and sessions without a row. Once none is left, a node of an older release
// refuses to start.

import { startLoop } from '../loop.ts'
import type { Database } from './connect.ts'
import { readMigrations, retireOlderReleases } from './migrate.ts'

const ASK_MS = 10_000

export interface OlderReleases extends AsyncDisposable {
  /** Returns true once no live node lacks the migration and none can start. Stays true. */
  retired(): boolean
}

/** @param migration the name, without its number, of the migration that a release has to know */
export async function watchOlderReleases(options: {
  db: Database
  migration: string
  onError(error: unknown): void
}): Promise<OlderReleases> {
  const { db, migration, onError } = options
  const known = (await readMigrations()).find(({ name }) => name.endsWith(`-${migration}`))
  if (known === undefined) throw new Error(`there is no migration ${migration}`)
  const ask = () => db.transaction((transaction) => retireOlderReleases(transaction, known.number))
  let retired = await ask()
  const loop = retired
    ? undefined
    : startLoop({
        everyMs: ASK_MS,
        async run() {
          if (!retired) retired = await ask()
        },
        onError,
      })
  return {
    retired: () => retired,
    [Symbol.asyncDispose]: async () => loop?.[Symbol.asyncDispose](),
  }
}
