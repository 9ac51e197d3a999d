// The order in which every request of every surface is treated: match, observe, authenticate, authorize, read the body,
// handle, answer errors. The order is the security: the log line is promised first, the caller is known and allowed
// before a byte of the body is read, and whatever is thrown is rendered in one place.
//
// `enter` is the first half, up to the body. `run` is all of it, for the surfaces that are written to the byte (/v2,
// /peer, /token, health). /api/v1 enters in the same way and leaves the rest to fastify (admin/register.ts).

import { RegistryError } from '#shared/errors.ts'
import { admit } from './admit.ts'
import { replyError } from './error-reply.ts'
import type { Exchange } from './exchange.ts'
import { refuseMalformed } from './message-syntax.ts'
import { observe } from './observe.ts'
import type { Declared, Matched, Needed } from './route.ts'

/**
 * Promises the log line, then checks the request's syntax, its method and who sent it. Synchronous (undefined) for a
 * token that was seen before.
 *
 * @throws RegistryError for a request that goes no further
 */
export function enter(exchange: Exchange, matched: Matched<Needed>): Promise<void> | undefined {
  observe(exchange, matched)
  const { request } = exchange
  refuseMalformed(request)
  if (matched.refusal !== undefined) throw matched.refusal
  const method = request.method ?? ''
  const declared = Object.hasOwn(matched.methods, method) ? matched.methods[method] : undefined
  if (declared === undefined) {
    throw new RegistryError('UNSUPPORTED', {
      message: 'the method is not supported here',
      headers: { Allow: Object.keys(matched.methods).join(', ') },
    })
  }
  return admit(exchange, declared.need, matched.repository)
}

/** Answers a request. Never rejects; resolves when the handler has ended, which for a stream is its end. */
export async function run(exchange: Exchange, matched: Matched<Declared<never>>): Promise<void> {
  try {
    const entering = enter(exchange, matched)
    if (entering !== undefined) {
      await entering
      // Nobody is left to answer: nothing is begun for them.
      if (exchange.response.destroyed) return
    }
    // The match found both: the path is the one that its methods take.
    await matched.methods[exchange.request.method ?? '']?.handle(exchange, matched.path as never)
  } catch (thrown) {
    replyError(exchange, thrown)
  }
}
