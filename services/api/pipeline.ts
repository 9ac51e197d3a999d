// One request from its target to its answer, the same on every surface: match, observe, admit, handle, answer errors. The
// order is the security: the log line is promised first, the caller is known and allowed before a byte of the body is
// read, and whatever is thrown is rendered in one place. No framework looks at the request before this.

import { RegistryError } from '#shared/errors.ts'
import { admit } from './admit.ts'
import type { Edge } from './edge.ts'
import { replyError } from './error-reply.ts'
import type { Exchange } from './exchange.ts'
import { refuseMalformed } from './message-syntax.ts'
import { observe } from './observe.ts'
import type { Matched } from './routes.ts'

/** Answers a request. Never rejects; resolves when the handler has ended, which for a stream is its end. */
export async function run(exchange: Exchange, matched: Matched, edge: Edge): Promise<void> {
  observe(exchange, matched)
  try {
    await answer(exchange, matched, edge)
  } catch (thrown) {
    replyError(exchange, thrown)
  }
}

function answer(exchange: Exchange, matched: Matched, edge: Edge): void | Promise<void> {
  const { request, response } = exchange
  refuseMalformed(request)
  if (matched.refusal !== undefined) throw matched.refusal
  const { methods, path } = matched
  const method = request.method ?? ''
  const declared = Object.hasOwn(methods, method) ? methods[method] : undefined
  if (declared === undefined) {
    throw new RegistryError('UNSUPPORTED', {
      message: 'the method is not supported here',
      headers: { Allow: Object.keys(methods).join(', ') },
    })
  }
  const admitted = admit(exchange, declared.need, matched.repository)
  if (admitted === undefined) return declared.handle(exchange, path, edge)
  return admitted.then(() => {
    // Nobody is left to answer: nothing is begun for them.
    if (response.destroyed) return
    return declared.handle(exchange, path, edge)
  })
}
