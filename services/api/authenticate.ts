// Turns the Authorization header into an identity. Synchronous for a token that was seen before, which is the case for
// nearly every request. Wrong credentials are rejected even if none are required, because a client that sends
// credentials expects to be authenticated.

import { ANONYMOUS, type Identity } from '#shared/auth/access.ts'
import { parseAuthorization } from '#shared/auth/authorization-header.ts'
import { type Auth, actorOf } from '#shared/auth/token-service.ts'
import type { AccessClaims } from '#shared/auth/tokens.ts'
import { unauthorized } from './authorize.ts'
import type { Exchange } from './exchange.ts'

const NOBODY: Identity = Object.freeze({ actor: ANONYMOUS, scopes: undefined })

/** @throws RegistryError UNAUTHORIZED if credentials are malformed, wrong or expired */
export function authenticate(exchange: Exchange): Identity | Promise<Identity> {
  const { auth } = exchange.edge
  if (auth === undefined) return NOBODY
  const credentials = parseAuthorization(exchange.request.headers.authorization)
  switch (credentials.kind) {
    case 'none':
      return NOBODY
    case 'malformed':
      throw unauthorized(exchange, { scope: undefined, error: 'invalid_token' })
    case 'bearer': {
      const known = auth.tokens.remembered(credentials.token)
      return known === undefined ? verify(exchange, auth, credentials.token) : identityOf(auth, known)
    }
    case 'basic':
      return login(exchange, auth, credentials)
  }
}

async function verify(exchange: Exchange, auth: Auth, token: string): Promise<Identity> {
  const claims = await auth.tokens.verifyAccess(token)
  if (claims === undefined) throw unauthorized(exchange, { scope: undefined, error: 'invalid_token' })
  return identityOf(auth, claims)
}

function identityOf(auth: Auth, { subject, scopes }: AccessClaims): Identity {
  const actor =
    subject === ''
      ? ANONYMOUS
      : { kind: 'account' as const, name: subject, admin: auth.admins.includes(subject) }
  return { actor, scopes }
}

async function login(
  exchange: Exchange,
  auth: Auth,
  { name, password }: { name: string; password: string },
): Promise<Identity> {
  const account = await auth.passwords.check({ name, password, address: exchange.remoteAddress })
  if (account === undefined) throw unauthorized(exchange, { scope: undefined, error: undefined })
  return { actor: actorOf(auth, account), scopes: undefined }
}
