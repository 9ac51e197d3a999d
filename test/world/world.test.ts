// `npm start` on a bare machine: two regions behind one port. Pushed in one, pulled from the other; one is lost and returns.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { requireFree } from '#shared/observability/listen.ts'
import { eventually } from '../support/eventually.ts'
import { sha256, testImage } from '../support/image.ts'
import { type OciClient, ociClient } from '../support/oci-client.ts'
import { testDirectory } from '../support/region.ts'

const root = join(import.meta.dirname, '..', '..')
const START_MS_MAX = 90_000
/** Far more than it takes: what is tested is that it comes, the time is measured elsewhere. */
const ARRIVE_MS_MAX = 20_000

interface World {
  readonly balancer: OciClient
  readonly eu: OciClient
  readonly us: OciClient
  /** The process of a region, as printed. */
  pid(name: string): number
  output(): string
  stop(): Promise<void>
}

/** A port whose world finds its other ports free too: below those that the system gives to connections. */
async function freeWorldPort(): Promise<number> {
  for (let tries = 0; tries < 50; tries++) {
    const port = 10_000 + Math.floor(Math.random() * 15_000)
    const wanted = [port, port + 1, port + 2, port + 1_001, port + 1_002]
    const outcomes = await Promise.allSettled(
      wanted.map((each) => requireFree({ host: 'localhost', port: each })),
    )
    if (outcomes.every(({ status }) => status === 'fulfilled')) return port
  }
  throw new Error('no free ports for a world')
}

async function startWorld(directory: string): Promise<World> {
  const port = await freeWorldPort()
  const child = spawn(
    process.execPath,
    ['--import', './services/require-node.js', 'services/main.ts', 'world', '--port', String(port)],
    {
      cwd: root,
      env: { PATH: process.env.PATH, PORTOLAN_DATA_DIR: directory, PORTOLAN_LOG_LEVEL: 'warn' },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-100_000)
    })
  await eventually(
    'the world to be ready',
    () => {
      assert.equal(child.exitCode, null, output)
      return output.includes('Ctrl-C')
    },
    START_MS_MAX,
  )
  const at = (offset: number) => ociClient(`http://localhost:${port + offset}`)
  return {
    balancer: at(0),
    eu: at(1),
    us: at(2),
    pid: (name) => {
      const [, printed] = [...output.matchAll(new RegExp(`${name}\\b.*?pid (\\d+)`, 'g'))].at(-1) ?? []
      return Number(printed)
    },
    output: () => output,
    async stop() {
      if (child.exitCode !== null) return
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
  }
}

async function status(client: OciClient, path: string): Promise<number> {
  return (await client.get(path)).status
}

const tagged = (name: string, tag: string) => `/v2/${name}/manifests/${tag}`

describe('a world of two regions', () => {
  let world: World
  const cleanups: (() => unknown)[] = []

  before(async () => {
    world = await startWorld(
      await testDirectory({ after: (cleanup) => void cleanups.push(cleanup as () => unknown) }),
    )
  })
  after(async () => {
    await world.stop()
    for (const cleanup of cleanups) await cleanup()
  })

  const arrives = (what: string, condition: () => Promise<boolean>) =>
    eventually(what, condition, ARRIVE_MS_MAX)

  test('what is pushed in one region is pulled from the other, blobs included', async () => {
    const image = testImage()
    await world.eu.pushImage('team/app', image, 'v1')
    await arrives('the tag', async () => (await status(world.us, tagged('team/app', 'v1'))) === 200)
    const manifest = await world.us.get(tagged('team/app', 'v1'))
    assert.ok(manifest.body.equals(image.bytes))
    for (const bytes of image.blobs) {
      const blob = await world.us.get(`/v2/team/app/blobs/${sha256(bytes)}`)
      assert.equal(blob.status, 200)
      assert.ok(blob.body.equals(bytes))
    }
  })

  test('both regions are written to: a tag deleted here is gone there, and a new push there comes back', async () => {
    const [first, second] = [testImage(), testImage()]
    await world.eu.pushImage('team/both', first, 'v1')
    await arrives('the tag', async () => (await status(world.us, tagged('team/both', 'v1'))) === 200)
    assert.equal((await world.us.request('DELETE', tagged('team/both', 'v1'))).status, 202)
    await arrives('the delete', async () => (await status(world.eu, tagged('team/both', 'v1'))) === 404)
    await world.us.pushImage('team/both', second, 'v1')
    await arrives('the new push', async () => {
      const { status: found, headers } = await world.eu.get(tagged('team/both', 'v1'))
      return found === 200 && headers.get('docker-content-digest') === second.digest
    })
  })

  test('a manifest and a repository that are deleted in one region are gone in the other, and can be pushed again', async () => {
    const image = testImage()
    await world.us.pushImage('team/gone', image, 'v1')
    await arrives('the tag', async () => (await status(world.eu, tagged('team/gone', 'v1'))) === 200)
    assert.equal((await world.eu.request('DELETE', tagged('team/gone', image.digest))).status, 202)
    await arrives('the delete', async () => (await status(world.us, tagged('team/gone', 'v1'))) === 404)
    await world.us.pushImage('team/gone', image, 'v2')
    await arrives('the new push', async () => (await status(world.eu, tagged('team/gone', 'v2'))) === 200)
    assert.equal((await world.eu.request('DELETE', '/api/v1/repositories/team/gone')).status, 202)
    await arrives('the end', async () => (await status(world.us, '/v2/team/gone/tags/list')) === 404)
  })

  test('a webhook that is made in one region is listed in the other', async () => {
    const made = await world.eu.request('POST', '/api/v1/webhooks', {
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ url: 'http://127.0.0.1:9/hook', types: ['push'] }),
    })
    assert.equal(made.status, 201, await made.clone().text())
    const { id } = (await made.json()) as { id: string }
    await arrives('the webhook', async () => {
      const { status: found, body } = await world.us.get(`/api/v1/webhooks/${id}`)
      return found === 200 && body.includes('127.0.0.1:9')
    })
  })

  test('a region that is killed is passed over, and what was pushed meanwhile is there when it returns', async () => {
    const image = testImage()
    process.kill(world.pid('eu'), 'SIGKILL')
    await eventually('the balancer to pass it over', async () => {
      const answer = await world.balancer.get('/v2/').catch(() => undefined)
      return answer?.status === 200
    })
    await world.balancer.pushImage('team/lost', image, 'v1')
    assert.equal(await status(world.us, tagged('team/lost', 'v1')), 200)
    await eventually(
      'the region to be back with it',
      async () => (await status(world.eu, tagged('team/lost', 'v1')).catch(() => 0)) === 200,
      60_000,
    )
  })
})
