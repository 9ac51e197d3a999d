// An embedded Postgres that dies on a full disk cannot start until there is space, and then starts.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { eventually } from '../../support/eventually.ts'
import { smallDisk } from '../../support/small-disk.ts'

/** More starts than are attempted after any other failure. */
const STARTS = 34

test('Portolan keeps trying to start a server that fails because the disk is full', async (t) => {
  const disk = await smallDisk(t, 192 * 2 ** 20)
  if (disk === undefined) return
  await using postgres = await startEmbeddedPostgres({
    directory: join(disk.directory, 'postgres'),
    settings: { fsync: 'off' },
  })
  let gaveUp: Error | undefined
  void postgres.failed.then((error) => {
    gaveUp = error
  })
  const answers = async () => {
    const client = new pg.Client({ connectionString: postgres.url })
    client.on('error', () => {})
    try {
      await client.connect()
      await client.query('select 1')
      return true
    } catch {
      return false
    } finally {
      await client.end().catch(() => {})
    }
  }
  assert.equal(await answers(), true)
  await disk.fill()
  process.kill(postgres.pid() ?? 0, 'SIGKILL')
  const starts = new Set<number | undefined>()
  await eventually(
    'many failed starts',
    async () => {
      assert.equal(gaveUp, undefined)
      // Refill the space that a server frees when it exits, as on a busy disk.
      await disk.fill()
      return starts.add(postgres.pid()).size >= STARTS
    },
    90_000,
  )
  assert.equal(await answers(), false)
  await disk.empty()
  await eventually('the server to be back', answers, 30_000)
  assert.equal(gaveUp, undefined)
})
