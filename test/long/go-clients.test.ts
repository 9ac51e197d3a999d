// Clients that take long to build: cosign 3, which writes signatures as referrers, and helm.

import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { command } from '../support/parts/command.ts'
import { makeLayout } from '../support/parts/oci-layout.ts'
import { signAndVerify } from '../support/parts/sign-and-verify.ts'
import { findTool } from '../support/parts/tools.ts'
import { startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const cosign = findTool('cosign')
const crane = findTool('crane')
const helm = findTool('helm')

test('cosign 3 signs and verifies with referrers and without a fallback tag', {
  skip: !(cosign && crane) && 'cosign 3 or crane is not built',
}, async (t) => {
  const directory = await testDirectory(t)
  await using portolan = await startPortolan()
  const layout = await makeLayout(join(directory, 'layout'))
  const repository = `${portolan.host}/signed/app`
  await command(crane ?? '', ['push', layout.directory, `${repository}:v1`, '--insecure'])
  await signAndVerify({
    cosign: cosign ?? '',
    crane: crane ?? '',
    image: `${repository}@${layout.digest}`,
    directory,
    signFlags: ['--use-signing-config=false'],
  })
  assert.equal((await command(crane ?? '', ['ls', repository])).trim(), 'v1')
  const referrers = (await (
    await fetch(`${portolan.url}/v2/signed/app/referrers/${layout.digest}`)
  ).json()) as { manifests: unknown[] }
  assert.equal(referrers.manifests.length, 1)
})

test('helm pushes a chart, shows it and pulls it', { skip: !helm && 'helm is not built' }, async (t) => {
  const directory = await testDirectory(t)
  await using portolan = await startPortolan()
  const run = (...args: string[]) => command(helm ?? '', args, { cwd: directory, env: { HOME: directory } })
  await run('create', 'chart')
  await run('package', 'chart', '--version', '1.2.3+build.4')
  await run('push', '--plain-http', 'chart-1.2.3+build.4.tgz', `oci://${portolan.host}/charts`)
  assert.match(
    await run(
      'show',
      'chart',
      '--plain-http',
      `oci://${portolan.host}/charts/chart`,
      '--version',
      '1.2.3+build.4',
    ),
    /name: chart/,
  )
  await mkdir(join(directory, 'pulled'))
  await run(
    'pull',
    '--plain-http',
    `oci://${portolan.host}/charts/chart`,
    '--version',
    '1.2.3+build.4',
    '--destination',
    join(directory, 'pulled'),
  )
  const tags = (await (await fetch(`${portolan.url}/v2/charts/chart/tags/list`)).json()) as { tags: string[] }
  assert.deepEqual(tags.tags, ['1.2.3_build.4'])
})
