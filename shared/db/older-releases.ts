// Whether nodes of older releases live in this region. What they could not read or continue is not written while one does:
// small blobs in the database, and sessions without a row. Once none is left, one that is started again refuses to start.

import { startLoop } from '../loop.ts'
import type { Database } from './connect.ts'
import { readMigrations, retireOlderReleases } from './migrate.ts'

const ASK_MS = 10_000

export interface OlderReleases extends AsyncDisposable {
  /** True once no node of a release lives that does not know the migration, and none can start. Stays so. */
  retired(): boolean
}

/** @param migration the name of the one that a release has to know, without its number */
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
