// Portolan-Position: every write returns the epoch that its own statement saw, no matter when that epoch began.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { databaseSession } from '../../support/database.ts'
import { IMAGE, sha256, testImage } from '../../support/image.ts'
import { ociClient } from '../../support/oci-client.ts'
import { testNode } from '../../support/region.ts'

test('a node that runs while the epoch is raised answers every write with the new one', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const session = await databaseSession(t, region.databaseUrl)
  const image = testImage()
  await client.pushImage('base', image, 'v1')
  await client.pushImage('app', image, 'v1')
  const layer = sha256(image.blobs[1] ?? '')
  const blob = Buffer.from('posted whole')
  const manifest = { headers: { 'Content-Type': IMAGE }, body: image.bytes }
  const writes: [method: string, path: string, options?: Parameters<typeof client.request>[2]][] = [
    ['PUT', '/v2/app/manifests/v1', manifest],
    ['PUT', '/v2/app/manifests/v2', { ...manifest, headers: { ...manifest.headers, 'If-None-Match': '*' } }],
    ['POST', `/v2/app/blobs/uploads/?digest=${sha256(blob)}`, { body: blob }],
    ['POST', `/v2/app/blobs/uploads/?mount=${layer}&from=base`],
    ['DELETE', `/v2/app/blobs/${sha256(blob)}`],
    ['DELETE', '/v2/app/manifests/v2'],
    ['DELETE', `/v2/app/manifests/${image.digest}`],
    ['DELETE', '/api/v1/repositories/app'],
  ]
  let last = 0
  for (const [index, [method, path, options]] of writes.entries()) {
    const epoch = index + 2
    await session.query('update region set epoch = $1', [epoch])
    const answer = await client.request(method, path, options)
    assert.ok(answer.status === 201 || answer.status === 202, `${method} ${path}: ${await answer.text()}`)
    const position = answer.headers.get('portolan-position') ?? ''
    const [, answered, outboxId] = /^eu:([0-9]+):o([0-9]+)$/.exec(position) ?? []
    assert.equal(Number(answered), epoch, `${method} ${path}: ${position}`)
    assert.ok(Number(outboxId) > last, 'later writes have greater positions')
    last = Number(outboxId)
  }
})

test('the region and its feed tell the epoch that there is, not the one of their start', async (t) => {
  const { url, region } = await testNode(t)
  const client = ociClient(url)
  const session = await databaseSession(t, region.databaseUrl)
  const json = async (path: string) => JSON.parse((await client.get(path)).body.toString())
  await session.query('update region set epoch = 7')
  assert.deepEqual(await json('/api/v1/region'), { name: 'eu', epoch: 7 })
  assert.deepEqual(await json('/api/v1/events'), { events: [], next: 'eu:7:0' })
})
