// Serves metrics and probes on their own port, separate from clients: `/metrics`, `/livez` (this process runs) and
// `/readyz` (it can serve requests; load balancers ask this).

import { createServer, type Server } from 'node:http'
import { type ListenTarget, listenAll } from './listen.ts'

export interface Readiness {
  readonly ready: boolean
  readonly reasons: readonly string[]
}

export interface ProbeServerOptions {
  listen: ListenTarget
  metricsText(): Promise<string>
  readiness(): Promise<Readiness>
  onError(error: unknown): void
}

export interface ProbeServer extends AsyncDisposable {
  readonly port: number
}

const REQUEST_TIMEOUT_MS = 5_000

export async function startProbeServer(options: ProbeServerOptions): Promise<ProbeServer> {
  const make = (): Server => {
    const server = createServer((request, response) => {
      answer(options, request.url ?? '')
        .then(({ status, type, body }) => {
          response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) })
          response.end(request.method === 'HEAD' ? undefined : body)
        })
        .catch((thrown: unknown) => {
          options.onError(thrown)
          response.writeHead(503).end()
        })
    })
    server.requestTimeout = REQUEST_TIMEOUT_MS
    return server
  }
  const listening = await listenAll(options.listen, make)
  return {
    port: listening.port,
    async [Symbol.asyncDispose]() {
      for (const server of listening.servers) {
        server.closeAllConnections()
        await new Promise((closed) => server.close(closed))
      }
    },
  }
}

async function answer(
  options: ProbeServerOptions,
  target: string,
): Promise<{ status: number; type: string; body: string }> {
  switch (target.split('?', 1)[0]) {
    case '/metrics':
      return {
        status: 200,
        type: 'text/plain; version=0.0.4; charset=utf-8',
        body: await options.metricsText(),
      }
    case '/livez':
      return { status: 200, type: 'text/plain', body: 'ok\n' }
    case '/readyz': {
      const { ready, reasons } = await options.readiness()
      return {
        status: ready ? 200 : 503,
        type: 'text/plain',
        body: ready ? 'ok\n' : `${reasons.join('\n')}\n`,
      }
    }
    default:
      return { status: 404, type: 'text/plain', body: 'not here\n' }
  }
}
