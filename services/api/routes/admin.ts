// /api/v1: administration, for the accounts in PORTOLAN_ADMINS. Asks for the account itself (Basic): tokens are made
// for registry clients and never carry it. Later features add their own files beside this one.

import { allows } from '#shared/auth/access.ts'
import { regionRow } from '#shared/db/region.ts'
import { RegistryError } from '#shared/errors.ts'
import { parseRepositoryName } from '#shared/oci/reference.ts'
import { deleteRepository } from '#shared/registry/remove.ts'
import { authenticate } from '../authenticate.ts'
import { type Exchange, positionHeader, provenanceOf, sendEmpty, sendJson } from '../exchange.ts'
import { webhooks } from './webhooks.ts'

const WEBHOOKS = '/api/v1/webhooks'
const REPOSITORIES = '/api/v1/repositories/'

export async function admin(exchange: Exchange): Promise<void> {
  await requireAdmin(exchange)
  const { method, url = '' } = exchange.request
  if (url === '/api/v1/region') {
    requireMethod(exchange, ['GET', 'HEAD'])
    return sendJson(exchange, await regionRow(exchange.region.db))
  }
  const [path = '', query = ''] = url.split('?')
  if (path === WEBHOOKS || path.startsWith(`${WEBHOOKS}/`)) {
    return webhooks(exchange, path.slice(WEBHOOKS.length), query)
  }
  if (url.startsWith(REPOSITORIES)) {
    requireMethod(exchange, ['DELETE'])
    const repository = parseRepositoryName(url.slice(REPOSITORIES.length))
    if (repository === undefined) throw new RegistryError('NAME_INVALID')
    const provenance = provenanceOf(exchange)
    const position = await deleteRepository(exchange.region, { repository, provenance })
    return sendEmpty(exchange, 202, positionHeader(exchange, position))
  }
  throw new RegistryError('NOT_FOUND', { message: `nothing answers ${method} here` })
}

async function requireAdmin(exchange: Exchange): Promise<void> {
  const { auth } = exchange.region
  if (auth === undefined) return
  const challenge = new RegistryError('UNAUTHORIZED', {
    headers: { 'WWW-Authenticate': 'Basic realm="portolan"' },
  })
  try {
    exchange.identity = await authenticate(exchange)
  } catch (thrown) {
    throw thrown instanceof RegistryError && thrown.code === 'UNAUTHORIZED' ? challenge : thrown
  }
  if (allows(auth.policy, exchange.identity, { kind: 'admin' })) return
  const { actor, scopes } = exchange.identity
  throw actor.kind === 'account' && scopes === undefined ? new RegistryError('DENIED') : challenge
}

function requireMethod(exchange: Exchange, methods: readonly string[]): void {
  if (methods.includes(exchange.request.method ?? '')) return
  throw new RegistryError('UNSUPPORTED', { headers: { Allow: methods.join(', ') } })
}
