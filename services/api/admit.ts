// Checks who the caller is and whether it may proceed. Every declared need has its check here, before the body is read.
// A refusal carries the challenge that fits: Bearer for registry clients, Basic for people and scripts, Signature for
// other regions.

import { allows } from '#shared/auth/access.ts'
import { RegistryError } from '#shared/errors.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { authenticate } from './authenticate.ts'
import { authorize, type RouteNeed } from './authorize.ts'
import type { Exchange } from './exchange.ts'

/**
 * Records the caller in the exchange. Returns undefined synchronously for a token that was seen before, which is the
 * case for nearly every request.
 *
 * @throws RegistryError UNAUTHORIZED with a challenge, DENIED, or NOT_FOUND for peers if the region has none
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

/** Administration requires the account itself, because tokens are issued to registry clients. The feed accepts both. */
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
