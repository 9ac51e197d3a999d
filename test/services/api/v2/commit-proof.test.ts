// A 201 for a blob means that its object exists with the right size. If bytes are swept between two requests, or within
// one, the upload ends instead.
// tests: shared/blobs/lost-session.ts

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, rmSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Failpoint } from '#shared/failpoints.ts'
import { UPLOADS } from '../../../support/blob-harm.ts'
import { sha256 } from '../../../support/image.ts'
import { type OciClient, ociClient } from '../../../support/oci-client.ts'
import { storeNode, type TestNode } from '../../../support/region.ts'

function files(dataDir: string): string[] {
  const directory = join(dataDir, 'eu', 'blobs')
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /^[0-9a-f]{32}$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
}

const sweep = ({ region }: TestNode) => {
  for (const file of files(region.config.dataDir)) rmSync(file)
}
const shorten = ({ region }: TestNode) => {
  for (const file of files(region.config.dataDir)) truncateSync(file, 1)
}

async function started(client: OciClient): Promise<string> {
  return (await client.request('POST', '/v2/a/blobs/uploads/')).headers.get('location') ?? ''
}

async function assertBeginAgain(client: OciClient, ended: Response, bytes: Buffer, location?: string) {
  assert.equal(ended.status, 404)
  assert.match(await ended.text(), /BLOB_UPLOAD_UNKNOWN/)
  assert.equal((await client.get(`/v2/a/blobs/${sha256(bytes)}`)).status, 404, 'no row was made')
  if (location !== undefined) assert.equal((await client.request('GET', location)).status, 404)
  await client.pushBlob('a', bytes)
  assert.ok((await client.get(`/v2/a/blobs/${sha256(bytes)}`)).body.equals(bytes))
}

for (const [what, harm] of [
  ['removed', sweep],
  ['cut short', shorten],
] as const) {
  for (const bodies of [1, 2, 3]) {
    for (const withPut of [false, true]) {
      const name = `${bodies} bodies that are ${what} between PATCH and PUT${withPut ? ' with a body' : ''}: 404, no 201`
      test(name, async (t) => {
        const node = await storeNode(t)
        const client = ociClient(node.url)
        const parts = Array.from({ length: bodies }, () => randomBytes(5_000))
        const location = await started(client)
        for (const body of parts)
          assert.equal((await client.request('PATCH', location, { body })).status, 202)
        harm(node)
        const last = withPut ? randomBytes(100) : Buffer.alloc(0)
        const bytes = Buffer.concat([...parts, last])
        const ended = await client.request('PUT', `${location}?digest=${sha256(bytes)}`, { body: last })
        await assertBeginAgain(client, ended, bytes, location)
        assert.equal((await node.region.blobs.list('', 10)).length, 1, 'nothing else is left')
      })
    }
  }
}

for (const failpoint of ['attempt-durable', 'object-complete'] as const satisfies Failpoint[]) {
  for (const way of ['one POST', 'POST and PUT', 'POST, PATCH and PUT', 'chunks']) {
    test(`${way}: bytes that are swept at "${failpoint}" are not answered 201`, async (t) => {
      let armed = false
      const node = await storeNode(t, {
        reach: (reached) => {
          if (armed && reached === failpoint) {
            sweep(node)
            armed = false
          }
        },
      })
      const client = ociClient(node.url)
      const bytes = randomBytes(30_000)
      armed = true
      const upload = UPLOADS[way]
      assert.ok(upload)
      const ended = await upload(client, 'a', bytes)
      assert.equal(armed, false, 'the failpoint was reached')
      await assertBeginAgain(client, ended, bytes)
    })
  }
}

test('the empty blob is proved too', async (t) => {
  let armed = true
  const node = await storeNode(t, {
    reach: (reached) => {
      if (armed && reached === 'object-complete') {
        sweep(node)
        armed = false
      }
    },
  })
  const client = ociClient(node.url)
  const empty = Buffer.alloc(0)
  const path = `/v2/a/blobs/uploads/?digest=${sha256(empty)}`
  assert.equal((await client.request('POST', path)).status, 404)
  assert.equal((await client.request('POST', path)).status, 201)
  assert.equal((await client.get(`/v2/a/blobs/${sha256(empty)}`)).status, 200)
})
