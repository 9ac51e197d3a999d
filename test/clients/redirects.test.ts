// Real clients pull through redirects: Portolan with accounts, blobs from a real S3 server.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { command, missing } from '../support/parts/command.ts'
import { startDockerEngine } from '../support/parts/docker-engine.ts'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { makeLayout } from '../support/parts/oci-layout.ts'
import { findTool } from '../support/parts/tools.ts'
import { startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'
import { startStoreProxy } from '../support/store-proxy.ts'

const PASSWORD = 'client-password'
const crane = findTool('crane') ?? ''
const skip = withoutStore('minio') || missing('skopeo') || (crane === '' && 'crane is not built')

async function setUp(t: TestContext) {
  const stack = new AsyncDisposableStack()
  t.after(() => stack.disposeAsync())
  const directory = await testDirectory(t)
  const htpasswd = join(directory, 'htpasswd')
  await writeFile(htpasswd, `alice:${await bcrypt.hash(PASSWORD, 5)}\n`)
  const server = stack.use(await startObjectStore('minio'))
  const proxy = stack.use(await startStoreProxy(server))
  const portolan = stack.use(
    await startPortolan({
      env: {
        ...server.env,
        // crane refuses a redirect from a public name to a private address.
        PORTOLAN_S3_ENDPOINT: proxy.url.replace('127.0.0.1', 'localhost'),
        PORTOLAN_REDIRECT: 'on',
        PORTOLAN_REDIRECT_BYTES_MIN: '0',
        // Configs too are objects of the store here.
        PORTOLAN_INLINE_BYTES_MAX: '0',
        PORTOLAN_AUTH: 'accounts',
        PORTOLAN_HTPASSWD_FILE: htpasswd,
      },
    }),
  )
  await command(crane, ['auth', 'login', portolan.host, '-u', 'alice', '--password-stdin'], {
    env: { DOCKER_CONFIG: directory },
    input: PASSWORD,
  })
  const layout = await makeLayout(join(directory, 'layout'), 3_000_000)
  const image = `${portolan.host}/team/app:v1`
  await command(crane, ['push', layout.directory, image], { env: { DOCKER_CONFIG: directory } })
  proxy.heal()
  /** The pulls that clients made directly from the store through links. */
  const linked = () => proxy.requests.filter(({ query }) => query.includes('X-Amz-Signature')).length
  return { directory, portolan, layout, image, linked, stack }
}

test('crane and skopeo follow links to the store', { skip }, async (t) => {
  const { directory, layout, image, linked } = await setUp(t)
  const env = { DOCKER_CONFIG: directory }
  await command(crane, ['pull', '--format=oci', image, join(directory, 'crane')], { env })
  const byCrane = linked()
  assert.ok(byCrane >= 2, `${byCrane} blobs came from the store`)
  const skopeo = ['copy', '--src-tls-verify=false', '--src-creds', `alice:${PASSWORD}`]
  await command('skopeo', [...skopeo, `docker://${image}`, `oci:${join(directory, 'skopeo')}:v1`])
  assert.ok(linked() >= byCrane + 2)
  const pulled = await command('skopeo', [
    'inspect',
    '--format',
    '{{.Digest}}',
    `oci:${join(directory, 'skopeo')}:v1`,
  ])
  assert.equal(pulled.trim(), layout.digest)
})

test('docker follows links to the store', {
  skip: skip || missing('dockerd', 'docker') || (process.getuid?.() !== 0 && 'needs root'),
}, async (t) => {
  const { portolan, image, linked, stack } = await setUp(t)
  const engine = stack.use(await startDockerEngine())
  await engine.docker('login', '-u', 'alice', '-p', PASSWORD, portolan.host)
  await engine.docker('pull', image)
  assert.ok(linked() >= 2)
})
