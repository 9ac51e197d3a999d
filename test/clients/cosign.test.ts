// cosign 2.5 reads, changes and rewrites signatures as tags.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { command } from '../support/parts/command.ts'
import { makeLayout } from '../support/parts/oci-layout.ts'
import { signAndVerify } from '../support/parts/sign-and-verify.ts'
import { findDebianCosign, findTool } from '../support/parts/tools.ts'
import { startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const cosign = findDebianCosign()
const crane = findTool('crane')

test('cosign 2.5 signs and verifies', {
  skip: !(cosign && crane) && 'cosign 2.5 or crane is missing (.ci/install)',
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
    signFlags: [],
  })
  assert.match(
    await command(crane ?? '', ['ls', repository]),
    new RegExp(`^${layout.digest.replace(':', '-')}\\.sig$`, 'm'),
  )
})
