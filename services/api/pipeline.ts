// The order of steps for every request of every surface: match, observe, authenticate, authorize, read the body,
// handle, render errors. Security depends on this order. The log line is ensured first. The caller is known and allowed
// before a byte of the body is read. Everything that is thrown is rendered in one place.
//
// `enter` is the first half, up to the body. `run` is the whole sequence, for the surfaces that are controlled byte by
// byte (/v2, /peer, /token, health). /api/v1 enters in the same way and leaves the rest to fastify (admin/register.ts).

import { RegistryError } from '#shared/errors.ts'
import { admit } from './admit.ts'
import { replyError } from './error-reply.ts'
import type { Exchange } from './exchange.ts'
import { refuseMalformed } from './message-syntax.ts'
import { observe } from './observe.ts'
import type { Declared, Matched, Needed } from './route.ts'

/**
 * Ensures the log line, then checks the syntax of the request, its method and its caller. Returns undefined
 * synchronously for a token that was seen before.
 *
 * @throws RegistryError if the request is refused
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

/** Handles a request. Never rejects. Resolves when the handler has ended; for a stream, when the stream has ended. */
export async function run(exchange: Exchange, matched: Matched<Declared<never>>): Promise<void> {
  try {
    const entering = enter(exchange, matched)
    if (entering !== undefined) {
      await entering
      // The client has disconnected, so no work is started.
      if (exchange.response.destroyed) return
    }
    // The match found both, so the path has the type that its methods accept.
    await matched.methods[exchange.request.method ?? '']?.handle(exchange, matched.path as never)
  } catch (thrown) {
    replyError(exchange, thrown)
  }
}
