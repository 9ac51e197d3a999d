// I9: a shared cache in front of Portolan (a real nginx with proxy_cache) never serves one caller's response to
// another.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { sha256, testImage } from '../support/image.ts'
import { ociClient } from '../support/oci-client.ts'
import { missing } from '../support/parts/command.ts'
import { startNginx } from '../support/parts/nginx.ts'
import { freePort, startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const skip = missing('nginx')
const basic = (name: string) => `Basic ${btoa(`${name}:${name}-password`)}`

/**
 * Starts nginx as a cache. It caches what the upstream permits and, with `ignoring`, also what the upstream forbids.
 */
async function startCache(t: TestContext, options: { upstream: string; ignoring: string }): Promise<string> {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const http = (directory: string) => `
  proxy_cache_path ${directory}/cache keys_zone=shared:1m;
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://${options.upstream};
      proxy_set_header Host $http_host;
      proxy_cache shared;
      proxy_cache_valid any 10m;
      ${options.ignoring}
      add_header X-Cache-Status $upstream_cache_status always;
    }
  }`
  await startNginx(t, { url, http })
  return url
}

test("I9: a shared cache never serves one caller's content or rejection to another", {
  skip,
}, async (t) => {
  const htpasswd = join(await testDirectory(t), 'htpasswd')
  const lines = ['alice', 'bob'].map(async (name) => `${name}:${await bcrypt.hash(`${name}-password`, 4)}\n`)
  await writeFile(htpasswd, (await Promise.all(lines)).join(''))
  const portolan = await startPortolan({
    env: { PORTOLAN_AUTH: 'accounts', PORTOLAN_HTPASSWD_FILE: htpasswd },
  })
  t.after(() => portolan[Symbol.asyncDispose]())
  const image = testImage({}, randomBytes(100))
  await ociClient(portolan.url, basic('alice')).pushImage('team/app', image, 'v1')
  const paths = [
    '/v2/',
    '/v2/_catalog',
    '/v2/team/app/tags/list',
    '/v2/team/app/manifests/v1',
    `/v2/team/app/manifests/${image.digest}`,
    `/v2/team/app/blobs/${sha256(image.blobs[0] ?? '')}`,
    `/v2/team/app/referrers/${image.digest}`,
    '/token?scope=repository:team/app:pull',
  ]
  const status = async (url: string, authorization?: string) => {
    const answer = await fetch(url, { headers: authorization ? { Authorization: authorization } : {} })
    await answer.arrayBuffer()
    return { status: answer.status, cache: answer.headers.get('x-cache-status') }
  }
  const cache = await startCache(t, { upstream: portolan.host, ignoring: '' })
  for (const path of paths) {
    const url = cache + path
    assert.deepEqual(await status(url), { status: 401, cache: 'MISS' }, path)
    assert.deepEqual(await status(url, basic('alice')), { status: 200, cache: 'MISS' }, path)
    assert.deepEqual(await status(url, basic('bob')), { status: 200, cache: 'MISS' }, path)
    assert.deepEqual(await status(url, basic('mallory')), { status: 401, cache: 'MISS' }, path)
    assert.deepEqual(await status(url), { status: 401, cache: 'MISS' }, path)
  }
  // The same cache leaks if it ignores the response headers of Portolan. This proves that the headers prevent the leak.
  const leaking = await startCache(t, {
    upstream: portolan.host,
    ignoring: 'proxy_ignore_headers Cache-Control Vary;',
  })
  const url = `${leaking}/v2/team/app/manifests/v1`
  assert.equal((await status(url, basic('alice'))).status, 200)
  assert.deepEqual(await status(url), { status: 200, cache: 'HIT' })
})
