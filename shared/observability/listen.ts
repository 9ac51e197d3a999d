// Listening where the operator said: `localhost` means both loopback families, because clients resolve the name to
// either and plain http is allowed to them on both. One server per address; port 0 gives all of them the same port.

import type { Server } from 'node:net'

export interface ListenTarget {
  readonly host: string
  readonly port: number
  /** Several processes share the port. */
  readonly reusePort?: boolean
}

/** Ports tried when port 0 is taken by somebody else on the second family. */
const PORT_TRIES_MAX = 20

export async function listenAll<S extends Server>(
  target: ListenTarget,
  make: () => S,
): Promise<{ servers: S[]; port: number }> {
  if (target.host !== 'localhost') {
    const server = make()
    const port = await listen(server, target)
    return { servers: [server], port }
  }
  for (let tries = 1; ; tries++) {
    const first = make()
    const port = await listen(first, { ...target, host: '127.0.0.1' })
    const second = make()
    try {
      await listen(second, { ...target, host: '::1', port })
      return { servers: [first, second], port }
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException
      // No IPv6 here: one family is all there is.
      if (code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT') return { servers: [first], port }
      await new Promise((closed) => first.close(closed))
      if (target.port !== 0 || code !== 'EADDRINUSE' || tries === PORT_TRIES_MAX) throw thrown
    }
  }
}

/** @throws Error with one sentence when the port is in use or may not be had. */
function listen(server: Server, target: ListenTarget): Promise<number> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException) => reject(withSentence(error, target))
    server.once('error', failed)
    server.listen({ ...target, exclusive: true }, () => {
      server.off('error', failed)
      resolve((server.address() as { port: number }).port)
    })
  })
}

function withSentence(error: NodeJS.ErrnoException, target: ListenTarget): NodeJS.ErrnoException {
  const where = `${target.host}:${target.port}`
  if (error.code === 'EADDRINUSE') {
    error.message = `${where} is in use by another program: stop it, or choose another address (PORTOLAN_LISTEN, PORTOLAN_METRICS_LISTEN).`
  } else if (error.code === 'EACCES') {
    error.message = `This user may not listen on ${where}: choose a port above 1023, or give it the right to.`
  }
  return error
}
