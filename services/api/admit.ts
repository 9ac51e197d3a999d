// Who asks, and whether they may: every declared need has its check here, made before the body is read. What is refused
// says how to do better: Bearer for clients of registries, Basic for people and scripts, Signature for other regions.

import { allows } from '#shared/auth/access.ts'
import { RegistryError } from '#shared/errors.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { authenticate } from './authenticate.ts'
import { authorize, type RouteNeed } from './authorize.ts'
import type { Exchange } from './exchange.ts'

/**
 * Notes in the exchange who asks. Synchronous (undefined) for a token that was seen before: nearly every request.
 *
 * @throws RegistryError UNAUTHORIZED with a challenge, DENIED, NOT_FOUND for peers of a region that has none
 */
export function admit(
  exchange: Exchange,
  need: RouteNeed,
  repository: RepositoryName | undefined,
): Promise<void> | undefined {
  switch (need) {
    case 'nothing':
    case 'login':
      return undefined
    case 'peer':
      exchange.peer = peerOf(exchange)
      return undefined
    case 'reader':
    case 'admin':
      return admitByLogin(exchange, need)
    default: {
      const identity = authenticate(exchange)
      if (identity instanceof Promise) {
        return identity.then((known) => {
          exchange.identity = known
          authorize(exchange, need, repository)
        })
      }
      exchange.identity = identity
      authorize(exchange, need, repository)
      return undefined
    }
  }
}

function peerOf({ edge, request }: Exchange): string {
  if (edge.peers === undefined) {
    throw new RegistryError('NOT_FOUND', { message: 'this region has no peers' })
  }
  const { method = '', url = '', headers } = request
  return edge.peers.verify({ method, target: url, headers })
}

/** Administration takes the account itself: tokens are made for registries' clients. The feed takes both. */
async function admitByLogin(exchange: Exchange, need: 'reader' | 'admin'): Promise<void> {
  const { auth } = exchange.edge
  if (auth === undefined) return
  const challenge = new RegistryError('UNAUTHORIZED', {
    headers: { 'WWW-Authenticate': 'Basic realm="portolan"' },
  })
  try {
    exchange.identity = await authenticate(exchange)
  } catch (thrown) {
    throw thrown instanceof RegistryError && thrown.code === 'UNAUTHORIZED' ? challenge : thrown
  }
  const { actor, scopes } = exchange.identity
  if (need === 'reader') {
    if (actor.kind === 'anonymous' && !auth.policy.anonymousPull) throw challenge
    return
  }
  if (allows(auth.policy, exchange.identity, { kind: 'admin' })) return
  throw actor.kind === 'account' && scopes === undefined ? new RegistryError('DENIED') : challenge
}
