// A log whose lines tests read, and the facts of a request to write to it.

import { createLog } from '#shared/observability/log.ts'

export const requestFacts = {
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

export function capturedLog(level: string) {
  const lines: string[] = []
  const { log } = createLog({ level, name: 'eu', to: { write: (line) => lines.push(line) } })
  return { log, lines }
}
