// Listens where the operator configured it. `localhost` means both loopback families, because clients resolve the name
// to either and allow plain HTTP on both. There is one server per address. Port 0 gives all of them the same free port.

import { createServer, type Server } from 'node:net'
import { OperatorError } from '#shared/errors.ts'

export interface ListenTarget {
  readonly host: string
  readonly port: number
  /** True if several processes share the port. */
  readonly reusePort?: boolean
}

/** Attempts for port 0 if another program holds the chosen port on the second family. */
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
      // This machine has no IPv6: one family is enough.
      if (code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT') return { servers: [first], port }
      await new Promise((closed) => first.close(closed))
      if (target.port !== 0 || code !== 'EADDRINUSE' || tries === PORT_TRIES_MAX) throw thrown
    }
  }
}

/** Listens and closes at once. @throws OperatorError if listening is not possible */
export async function requireFree(target: ListenTarget): Promise<void> {
  const { servers } = await listenAll(target, () => createServer())
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))))
}

/** @throws OperatorError if the port is in use or not permitted */
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

function withSentence(cause: NodeJS.ErrnoException, target: ListenTarget): NodeJS.ErrnoException {
  const sentence = sentenceOf(cause, `${target.host}:${target.port}`)
  if (sentence === undefined) return cause
  // Keep the code: callers branch on it.
  return Object.assign(new OperatorError(sentence, { cause }), { code: cause.code })
}

function sentenceOf({ code }: NodeJS.ErrnoException, where: string): string | undefined {
  switch (code) {
    case 'EADDRINUSE':
      return (
        `${where} is in use by another program: ` +
        'stop it, or choose another address (PORTOLAN_LISTEN, PORTOLAN_METRICS_LISTEN).'
      )
    case 'EACCES':
      return `This user may not listen on ${where}: choose a port above 1023, or grant the permission.`
    case 'EADDRNOTAVAIL':
    case 'EAFNOSUPPORT':
      return `${where} is not an address of this machine: correct PORTOLAN_LISTEN or PORTOLAN_METRICS_LISTEN.`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `${where} does not resolve to an address (${code}): correct PORTOLAN_LISTEN or PORTOLAN_METRICS_LISTEN.`
  }
  return undefined
}
