// A minimal round-robin HTTP load balancer. It sends each request to the next node, streams bodies in both directions,
// and passes headers unchanged. A client that works through it needs no sticky sessions.

import { Agent, createServer, type Server, request as send } from 'node:http'

export interface Balancer extends AsyncDisposable {
  readonly url: string
  readonly host: string
}

/** @param targets ports on 127.0.0.1 */
export async function startBalancer(targets: readonly number[]): Promise<Balancer> {
  const agent = new Agent({ keepAlive: true, maxSockets: 256 })
  let next = 0
  const server: Server = createServer((request, response) => {
    const port = targets[next++ % targets.length]
    const forwarded = send(
      {
        host: '127.0.0.1',
        port,
        agent,
        method: request.method,
        path: request.url,
        headers: request.headers,
      },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.rawHeaders)
        answer.pipe(response)
      },
    )
    forwarded.on('error', () => {
      if (response.headersSent) response.destroy()
      else response.writeHead(502, { 'Content-Length': 0 }).end()
    })
    response.on('close', () => forwarded.destroy())
    request.pipe(forwarded)
  })
  const { promise, resolve } = Promise.withResolvers<number>()
  server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  const port = await promise
  return {
    url: `http://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
      agent.destroy()
    },
  }
}
