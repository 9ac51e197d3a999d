import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog, logRequest } from '#shared/observability/log.ts'

const facts = {
  id: 'r1',
  method: 'GET',
  route: 'manifest',
  repository: 'a',
  reference: 'v1',
  status: 200,
  bytes: 10,
  durationMs: 1.23456,
  actor: 'alice',
  address: '::1',
  userAgent: 'x'.repeat(1_000),
  code: undefined,
}

function captured(level: string) {
  const lines: string[] = []
  const { log } = createLog({ level, name: 'eu', to: { write: (line) => lines.push(line) } })
  return { log, lines }
}

test('a request is one JSON line with bounded fields', () => {
  const { log, lines } = captured('info')
  logRequest(log, facts)
  assert.equal(lines.length, 1)
  const line = JSON.parse(lines[0] ?? '') as Record<string, unknown>
  assert.equal(line.route, 'manifest')
  assert.equal(line.region, 'eu')
  assert.equal(line.ms, 1.235)
  assert.equal(String(line.userAgent).length, 256)
  assert.ok(!Number.isNaN(Date.parse(String(line.time))))
})

test('above info there is no line per request', () => {
  const { log, lines } = captured('warn')
  logRequest(log, facts)
  assert.deepEqual(lines, [])
})

test('T5: secrets are censored, and errors keep their cause', () => {
  const { log, lines } = captured('info')
  log.info({
    authorization: 'Bearer hunter2',
    headers: { authorization: 'hunter2', cookie: 'hunter2' },
    password: 'hunter2',
    token: 'hunter2',
  })
  assert.doesNotMatch(lines.join(''), /hunter2/)
  log.error({ error: new Error('outer', { cause: new Error('inner') }) }, 'failed')
  assert.match(lines.join(''), /inner/)
})
