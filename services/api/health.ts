// /livez and /readyz on the registry port, for load balancers that cannot reach the metrics port.

import { type Exchange, sendBytes } from './exchange.ts'

export function live(exchange: Exchange): void {
  sendText(exchange, 200, 'ok\n')
}

/**
 * Returns 503 if the database or the store is unavailable, or while this process drains. The metrics port gives the
 * reasons.
 */
export async function ready(exchange: Exchange): Promise<void> {
  const isReady = !exchange.edge.draining && (await exchange.region.readiness()).ready
  sendText(exchange, isReady ? 200 : 503, isReady ? 'ok\n' : 'not ready\n')
}

function sendText(exchange: Exchange, status: number, text: string): void {
  sendBytes(exchange, {
    status,
    headers: { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' },
    body: Buffer.from(text),
  })
}
