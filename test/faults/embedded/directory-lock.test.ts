// tests: shared/embedded/directory-lock.ts

import assert from 'node:assert/strict'
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { lockDirectory } from '#shared/embedded/directory-lock.ts'
import { testDirectory } from '../../support/region.ts'

const ROUNDS = 150
const CONTENDERS = 3

async function contender(t: TestContext, directory: string): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, '../../support/lock-contender.ts'), [directory])
  t.after(() => child.kill('SIGKILL'))
  await once(child, 'message')
  return child
}

async function ask(child: ChildProcess, what: 'try' | 'release'): Promise<unknown> {
  const answer = once(child, 'message')
  child.send(what)
  return (await answer)[0]
}

test(`in ${ROUNDS} rounds, exactly one of ${CONTENDERS} concurrent starters owns the directory`, async (t) => {
  const directory = await testDirectory(t)
  const children = await Promise.all(Array.from({ length: CONTENDERS }, () => contender(t, directory)))
  let wrong = 0
  for (let round = 0; round < ROUNDS; round++) {
    const answers = await Promise.all(children.map((child) => ask(child, 'try')))
    const winners = answers.flatMap((answer, index) => (answer === 'won' ? [index] : []))
    if (winners.length !== 1) wrong++
    for (const index of winners) {
      const winner = children[index] as ChildProcess
      if (round % 3 > 0) await ask(winner, 'release')
      else {
        winner.kill('SIGKILL')
        await once(winner, 'exit')
        children[index] = await contender(t, directory)
      }
    }
  }
  assert.equal(wrong, 0, `${wrong} of ${ROUNDS} rounds had no owner or several`)
})

test('the rejection names the process that owns the directory, another one or this one', async (t) => {
  const directory = await testDirectory(t)
  const owner = await contender(t, directory)
  assert.equal(await ask(owner, 'try'), 'won')
  await assert.rejects(
    lockDirectory(directory),
    new RegExp(`in use by process ${owner.pid}: stop it, or set PORTOLAN_DATA_DIR`),
  )
  assert.equal(await ask(owner, 'release'), 'released')
  const release = await lockDirectory(directory)
  await assert.rejects(lockDirectory(directory), new RegExp(`in use by process ${process.pid}`))
  await release()
  await (await lockDirectory(directory))()
})

test('a directory that is not writable is reported in one sentence', {
  skip: process.platform === 'win32',
}, async (t) => {
  const directory = join(await testDirectory(t), 'inner')
  await mkdir(join(directory, 'lock'), { recursive: true })
  await chmod(directory, 0o755)
  await assert.rejects(lockDirectory(directory), /cannot be locked .*PORTOLAN_DATA_DIR/)
})
