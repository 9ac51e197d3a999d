// Compares the hand-written line with the line that pino writes from the same facts.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { logRequest } from '#shared/observability/log.ts'
import { capturedLog, requestFacts as facts } from '../../support/request-log.ts'

test("a request's line is the line that pino would write", () => {
  const { log, lines } = capturedLog('info')
  const { durationMs, ...logged } = facts
  for (const text of [
    'plain',
    '',
    'quote " and \\ backslash',
    'line\nfeed\r\t\0\u007f\u0085',
    '\u2028 é 漢字 😀',
    '"},{"level":"fatal"',
  ]) {
    lines.length = 0
    const hostile = { reference: text, actor: text, address: text, userAgent: text, code: text }
    logRequest(log, { ...facts, ...hostile })
    log.info({
      id: logged.id,
      method: logged.method,
      route: logged.route,
      repository: logged.repository,
      reference: text,
      status: logged.status,
      bytes: logged.bytes,
      ms: Math.round(durationMs * 1000) / 1000,
      actor: text,
      address: text,
      userAgent: text,
      code: text,
    })
    const [ours = '', pinos = ''] = lines.map((line) => line.replace(/"time":"[^"]*"/, '"time":""'))
    assert.equal(ours, pinos)
    assert.equal(ours.indexOf('\n'), ours.length - 1)
  }
})

test('half a surrogate pair, which pino would leave broken, is escaped', () => {
  const { log, lines } = capturedLog('info')
  logRequest(log, { ...facts, userAgent: 'half \ud800' })
  assert.match(lines[0] ?? '', /half \\ud800/)
})
