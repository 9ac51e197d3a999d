// The feed shows the actor of an event to admins and to the account itself, and to no other caller.

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { CloudEvent } from '#shared/events/cloud-event.ts'
import { startRelay } from '../../../../services/relay/service.ts'
import { ALICE, accountsNode, basic, ROOT } from '../../../support/accounts.ts'
import { eventually } from '../../../support/eventually.ts'
import { testImage } from '../../../support/image.ts'
import { ociClient } from '../../../support/oci-client.ts'
import { type TestNode, testNode } from '../../../support/region.ts'

const image = testImage()

async function withRelay(node: TestNode): Promise<void> {
  const relay = await startRelay(node.region)
  const dispose = node.region[Symbol.asyncDispose].bind(node.region)
  node.region[Symbol.asyncDispose] = async () => {
    await relay[Symbol.asyncDispose]()
    await dispose()
  }
}

async function pushes(url: string, authorization?: string): Promise<CloudEvent[]> {
  const headers = authorization === undefined ? {} : { Authorization: authorization }
  const answer = await fetch(`${url}/api/v1/events?types=push`, { headers })
  assert.equal(answer.status, 200)
  return ((await answer.json()) as { events: CloudEvent[] }).events
}

/** The data lines of a stream that starts at the beginning, once there are `count`. */
async function streamed(
  t: TestContext,
  url: string,
  options: { authorization?: string | undefined; count: number },
): Promise<string> {
  const abort = new AbortController()
  t.after(() => abort.abort())
  const answer = await fetch(`${url}/api/v1/events?types=push&after=eu:1:0`, {
    headers: {
      Accept: 'text/event-stream',
      ...(options.authorization && { Authorization: options.authorization }),
    },
    signal: abort.signal,
  })
  let text = ''
  for await (const chunk of answer.body ?? []) {
    text += Buffer.from(chunk).toString()
    if (text.split('\ndata: ').length > options.count) break
  }
  return text
}

const AGENT = 'planted-user-agent/1.0'

test('only admins and the account itself see who pushed, from where and with what', async (t) => {
  const node = await accountsNode(t, { env: { PORTOLAN_ANONYMOUS_PULL: 'true' } })
  await withRelay(node)
  for (const account of [ALICE, ROOT]) {
    const client = ociClient(node.url, basic(account))
    for (const blob of image.blobs) await client.pushBlob(`by/${account.name}`, blob)
    const pushed = await client.request('PUT', `/v2/by/${account.name}/manifests/v1`, {
      headers: { 'Content-Type': image.mediaType, 'User-Agent': AGENT },
      body: image.bytes,
    })
    assert.equal(pushed.status, 201)
  }
  await eventually('both pushes', async () => (await pushes(node.url, basic(ROOT))).length === 2)
  const anonymousToken = `Bearer ${await node.token(['repository:by/alice:pull', 'repository:by/root:pull'], null)}`
  const rootsToken = `Bearer ${await node.token(['repository:by/alice:pull', 'repository:by/root:pull'], ROOT)}`
  const alicesToken = await node.bearer(['repository:by/alice:pull', 'repository:by/root:pull'])
  const readers: [string, string | undefined, string[]][] = [
    ['nobody', undefined, []],
    ["nobody's token", anonymousToken, []],
    ['an admin', basic(ROOT), ['alice', 'root']],
    // A token is made for pulling and gives no rights of administration.
    ["an admin's token", rootsToken, ['root']],
    ['an account', basic(ALICE), ['alice']],
    ["an account's token", alicesToken, ['alice']],
  ]
  for (const [who, authorization, seen] of readers) {
    const events = await pushes(node.url, authorization)
    assert.equal(events.length, 2, who)
    for (const { data, partitionkey } of events) {
      const by = partitionkey.slice('by/'.length)
      const shown = seen.includes(by)
      assert.deepEqual(data.actor, shown ? { name: by } : undefined, `${who} reads the actor of ${by}`)
      assert.equal(data.request !== undefined, shown, `${who} reads the request of ${by}`)
      assert.equal(typeof data.instance, 'string')
    }
    const stream = await streamed(t, node.url, { authorization, count: 2 })
    assert.equal(stream.split(AGENT).length - 1, seen.length, `${who} in a stream`)
    for (const text of [JSON.stringify(events), stream]) {
      assert.equal(text.includes('127.0.0.1'), seen.length > 0, `${who} reads an address`)
    }
  }
})

test('where nobody is asked who they are everybody is the admin, and sees it', async (t) => {
  const node = await testNode(t)
  await withRelay(node)
  await ociClient(node.url).pushImage('team/app', image, 'v1')
  await eventually('the push', async () => (await pushes(node.url)).length === 1)
  const [event] = await pushes(node.url)
  assert.deepEqual(event?.data.actor, { name: '' })
  assert.equal((event?.data.request as { addr?: string } | undefined)?.addr, '127.0.0.1')
})
