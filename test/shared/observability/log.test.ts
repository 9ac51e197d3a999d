import assert from 'node:assert/strict'
import { test } from 'node:test'
import { logRequest } from '#shared/observability/log.ts'
import { capturedLog, requestFacts as facts } from '../../support/request-log.ts'

test('a request is one JSON line with bounded fields', () => {
  const { log, lines } = capturedLog('info')
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
  const { log, lines } = capturedLog('warn')
  logRequest(log, facts)
  assert.deepEqual(lines, [])
})

test('T5: secrets are censored, and errors keep their cause', () => {
  const { log, lines } = capturedLog('info')
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
