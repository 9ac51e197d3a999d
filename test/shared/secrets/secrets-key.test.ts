// tests: shared/secrets/key-file.ts

import assert from 'node:assert/strict'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { createSealer } from '#shared/secrets/sealer.ts'
import { openSealer, secretsKeyPath } from '#shared/secrets/secrets-key.ts'
import { testDirectory } from '../../support/region.ts'

const KEY = 'configured-key-0123456789-0123456789'

test('a key is created once, readable only by its user, however many processes start at the same time', async (t) => {
  const directory = await testDirectory(t)
  const start = () => openSealer({ configured: undefined, directory, mayMake: true })
  const sealers = await Promise.all(Array.from({ length: 20 }, start))
  assert.equal(new Set(sealers.map((sealer) => sealer?.keyId)).size, 1)
  assert.equal((await start())?.keyId, sealers[0]?.keyId)
  assert.equal((await stat(secretsKeyPath(directory))).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(directory), ['secrets-key'], 'nothing is left beside it')
})

test('without permission to create one there is no key, unless one exists or is configured', async (t) => {
  const directory = await testDirectory(t)
  assert.equal(await openSealer({ configured: undefined, directory, mayMake: false }), undefined)
  const configured = await openSealer({ configured: [KEY], directory, mayMake: true })
  assert.equal(configured?.keyId, createSealer([KEY]).keyId)
  assert.deepEqual(await readdir(directory), [], 'a configured key needs no file')
})

test("what the file's key sealed still opens after a key was configured, which seals from then on", async (t) => {
  const directory = await testDirectory(t)
  const made = await openSealer({ configured: undefined, directory, mayMake: true })
  const sealed = made?.seal('planted', 'place') ?? ''
  const later = await openSealer({ configured: [KEY], directory, mayMake: false })
  assert.equal(later?.open(sealed, 'place'), 'planted')
  assert.equal(later?.keyId, createSealer([KEY]).keyId)
})

test('a file without a valid key is reported clearly', async (t) => {
  const directory = await testDirectory(t)
  await writeFile(secretsKeyPath(directory), 'short\n')
  await assert.rejects(
    openSealer({ configured: undefined, directory, mayMake: true }),
    /does not hold a key.*\.$/,
  )
})
