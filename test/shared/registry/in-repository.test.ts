import assert from 'node:assert/strict'
import { test } from 'node:test'
import { repositoryExists } from '#shared/db/repositories.ts'
import { RegistryError } from '#shared/errors.ts'
import { inRepository } from '#shared/registry/in-repository.ts'
import { repositoryName } from '../../support/push.ts'
import { testRegion } from '../../support/region.ts'

const repository = repositoryName('team/app')

test('a write whose repository is missing creates it and is repeated, a bounded number of times', async (t) => {
  const { region } = await testRegion(t)
  let writes = 0
  const write = async () => {
    writes++
    const exists = await repositoryExists(region.reads, repository)
    return exists ? ({ kind: 'done', writes } as const) : ({ kind: 'repository-missing' } as const)
  }
  assert.deepEqual(await inRepository(region, { repository, write }), { kind: 'done', writes: 2 })
  writes = 0
  const missing = async () => {
    writes++
    return { kind: 'repository-missing' } as const
  }
  await assert.rejects(
    inRepository(region, { repository, write: missing }),
    (thrown) => thrown instanceof RegistryError && thrown.code === 'UNAVAILABLE',
  )
  assert.equal(writes, 4)
})

test('a write that may not create its repository leaves none', async (t) => {
  const { region } = await testRegion(t)
  const other = repositoryName('team/other')
  const refuse = () => {
    throw new RegistryError('PRECONDITION_FAILED')
  }
  const write = async () => ({ kind: 'repository-missing' }) as const
  await assert.rejects(inRepository(region, { repository: other, write, mayCreate: refuse }), /condition/)
  assert.equal(await repositoryExists(region.reads, other), false)
})
