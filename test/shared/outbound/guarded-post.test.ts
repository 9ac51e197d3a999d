// S1: an address that a user chose gives no access to our network.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { AddressRefusedError, guardedPost, isAllowed } from '#shared/outbound/guarded-post.ts'

async function receiver(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
) {
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => {
    requests.push(request)
    request.resume()
    request.on('end', () => answer(request, response))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.closeAllConnections())
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  return { port, url: `http://127.0.0.1:${port}/`, requests }
}

const post = (url: string, extra: Partial<Parameters<typeof guardedPost>[0]> = {}) =>
  guardedPost({
    url,
    body: Buffer.from('{}'),
    headers: { 'Content-Type': 'application/json' },
    ownHeaders: { Authorization: 'Bearer own' },
    allowPrivate: false,
    timeoutMs: 5_000,
    ...extra,
  })

test('S1: loopback, private, link-local and reserved addresses are refused in every spelling', async () => {
  for (const host of [
    '127.0.0.1',
    '127.9.9.9',
    '[::1]',
    '0x7f.1',
    '2130706433',
    '017700000001',
    '0.0.0.0',
    '[::]',
    '[::ffff:127.0.0.1]',
    '[::ffff:a00:1]',
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '169.254.169.254',
    '[fe80::1]',
    '[fd00::1]',
    '[64:ff9b::7f00:1]',
    '[2002:7f00:1::]',
    '224.0.0.1',
    '255.255.255.255',
    '[::127.0.0.1]',
    '[::7f00:1]',
    '[::a9fe:a9fe]',
    '[::ffff:0:127.0.0.1]',
    '[64:ff9b::a9fe:a9fe]',
    '[64:ff9b:1::a00:1]',
    '[4000::1]',
    '168.63.129.16',
    '[::ffff:168.63.129.16]',
    '100.100.100.200',
    '[fd00:ec2::254]',
    '[fd20:ce::254]',
    '192.0.0.192',
    'localhost',
  ]) {
    await assert.rejects(post(`http://${host}:9/`), AddressRefusedError, host)
  }
  for (const url of [
    'ftp://example.com/',
    'file:///etc/passwd',
    'gopher://example.com/',
    'http://user:pass@example.com/',
  ]) {
    await assert.rejects(post(url), AddressRefusedError, url)
  }
})

test('S1: permission opens private addresses, but never those that serve cloud credentials', () => {
  for (const address of ['127.0.0.1', '::1', '10.0.0.1', 'fd00::1'])
    assert.ok(isAllowed(address, true), address)
  for (const address of [
    '169.254.169.254',
    '169.254.170.2',
    '168.63.129.16',
    '::ffff:168.63.129.16',
    '100.100.100.200',
    'fd00:ec2::254',
    'fd20:ce::254',
    '192.0.0.192',
    '::127.0.0.1',
    '::7f00:1',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    'fe80::1',
    '0.0.0.0',
    '::',
    '224.0.0.1',
    'nonsense',
  ]) {
    assert.ok(!isAllowed(address, true), address)
  }
  for (const address of ['93.184.216.34', '2606:2800:21f:cb07:6820:80da:af6b:8b2c']) {
    assert.ok(isAllowed(address, false), address)
  }
})

test('S1: a name is resolved once and checked, and that address is contacted: rebinding changes nothing', async (t) => {
  const { port, requests } = await receiver(t, (_request, response) => response.end('ok'))
  let asked = 0
  const flipping = async () => (++asked === 1 ? ['10.0.0.1', '127.0.0.1'] : ['127.0.0.1'])
  await assert.rejects(post(`http://hook.example:${port}/`, { resolveName: flipping }), AddressRefusedError)
  assert.equal(asked, 1)
  assert.equal(requests.length, 0)
  const allowed = { allowPrivate: true, resolveName: async () => ['127.0.0.1'] }
  assert.deepEqual(
    await post(`http://hook.example:${port}/x`, allowed).then(({ status, text }) => [status, text]),
    [200, 'ok'],
  )
  assert.equal(requests[0]?.headers.host, `hook.example:${port}`)
  assert.equal(requests[0]?.headers.authorization, 'Bearer own')
})

test('S1: each redirect is checked again, sends no credentials to another origin, and there are few', async (t) => {
  const target = await receiver(t, (_request, response) => response.end('there'))
  const allowed = { allowPrivate: true }
  for (const [location, outcome] of [
    ['http://169.254.169.254/latest', AddressRefusedError],
    ['file:///etc/passwd', AddressRefusedError],
    ['http://[', AddressRefusedError],
  ] as const) {
    const { url } = await receiver(t, (_request, response) =>
      response.writeHead(307, { Location: location }).end(),
    )
    await assert.rejects(post(url, allowed), outcome, location)
  }
  const redirecting = await receiver(t, (_request, response) =>
    response.writeHead(307, { Location: target.url }).end(),
  )
  assert.equal((await post(redirecting.url, allowed)).text, 'there')
  assert.equal(redirecting.requests[0]?.headers.authorization, 'Bearer own')
  assert.equal(target.requests[0]?.headers.authorization, undefined)
  assert.equal(target.requests[0]?.method, 'POST')
  const looping = await receiver(t, (_request, response) =>
    response.writeHead(308, { Location: '/again' }).end(),
  )
  await assert.rejects(post(looping.url, allowed), /more than 3 redirects/)
  assert.equal(looping.requests.length, 4)
})

test('a response has a bound of size and a bound of time', async (t) => {
  const endless = await receiver(t, (_request, response) => {
    response.writeHead(200)
    const more = () => {
      while (!response.destroyed && response.write('x'.repeat(1_000)));
    }
    response.on('drain', more)
    more()
  })
  assert.equal((await post(endless.url, { allowPrivate: true })).text.length, 1024)
  const silent = await receiver(t, () => {})
  await assert.rejects(post(silent.url, { allowPrivate: true, timeoutMs: 50 }), /timeout|aborted/i)
})
