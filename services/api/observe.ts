// Writes the log line and the metrics of every request on every surface, when its reply is complete or its client has
// disconnected. A client that disconnects before its reply began gets status 499 at level info, because this is not a
// server failure.

import { logRequest } from '#shared/observability/log.ts'
import type { Exchange } from './exchange.ts'

/** The facts about a request that follow from its target alone. */
export interface Observed {
  /** One of a closed set, because it labels metrics. */
  readonly name: string
  readonly repository?: string | undefined
  readonly reference?: string | undefined
}

export function observe(exchange: Exchange, { name, repository, reference }: Observed): void {
  const startMs = performance.now()
  const { region, request, response } = exchange
  response.once('close', () => {
    const durationMs = performance.now() - startMs
    const status = response.headersSent ? response.statusCode : 499
    const sent = exchange.bodyBytes
    const method = request.method ?? ''
    const { actor } = exchange.identity
    region.metrics.request({
      method: knownMethod(method),
      route: name,
      status,
      seconds: durationMs / 1_000,
      bytesOut: sent,
    })
    if (exchange.errorCode !== undefined) region.metrics.error(exchange.errorCode)
    logRequest(region.log, {
      id: exchange.requestId,
      method,
      route: name,
      repository,
      reference,
      status,
      bytes: sent,
      durationMs,
      actor: exchange.peer ?? (actor.kind === 'account' ? actor.name : ''),
      address: exchange.remoteAddress,
      userAgent: request.headers['user-agent'],
      code: exchange.errorCode,
    })
  })
}

const METHODS: readonly string[] = Object.freeze(['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE'])

/** Metric labels are a closed set: clients must not create new ones. */
function knownMethod(method: string): string {
  return METHODS.includes(method) ? method : 'other'
}
