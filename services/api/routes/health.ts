// /livez and /readyz on the registry's own port, for balancers that cannot reach the metrics port.

import { type Exchange, sendBytes } from '../exchange.ts'

export function live(exchange: Exchange): void {
  sendText(exchange, 200, 'ok\n')
}

/** 503 with the reasons while the database or the store is away, and while this process drains. */
export async function ready(exchange: Exchange, draining: boolean): Promise<void> {
  const { ready: isReady, reasons } = await exchange.region.readiness()
  const all = draining ? [...reasons, 'this process is stopping'] : reasons
  sendText(exchange, isReady && !draining ? 200 : 503, all.length === 0 ? 'ok\n' : `${all.join('\n')}\n`)
}

function sendText(exchange: Exchange, status: number, text: string): void {
  sendBytes(exchange, {
    status,
    headers: { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' },
    body: Buffer.from(text),
  })
}
