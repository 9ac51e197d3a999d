// Decides what the token endpoint answers, without HTTP: takes credentials and requested scopes, returns a token.
//
// Requesting more than the account may have is not an error: the token carries the permitted part, which may be empty.
// Bad credentials are answered 401. A refresh token is signed, not stored. Each use checks that the account still
// exists and still has the same password.

import { createHash } from 'node:crypto'
import { RegistryError } from '#shared/errors.ts'
import { formatScope, parseScopes, type Scope } from '#shared/oci/scope.ts'
import { type AccessPolicy, type Actor, ANONYMOUS, grantableScopes } from './access.ts'
import type { Account, Accounts } from './htpasswd.ts'
import type { PasswordChecker } from './passwords.ts'
import type { Tokens } from './tokens.ts'

export interface Auth {
  readonly policy: AccessPolicy
  readonly accounts: Accounts
  readonly passwords: PasswordChecker
  readonly tokens: Tokens
  readonly admins: readonly string[]
}

export interface TokenRequest {
  readonly credentials:
    | { readonly kind: 'none' }
    | { readonly kind: 'basic'; readonly name: string; readonly password: string }
    | { readonly kind: 'refresh'; readonly token: string }
  /** As received: repeated parameters, each holding scopes separated by spaces. */
  readonly scopes: readonly string[]
  /** True if the client asks for a refresh token, so that it need not store the password. */
  readonly offline: boolean
  readonly address: string
}

export interface TokenAnswer {
  readonly token: string
  readonly access_token: string
  readonly expires_in: number
  readonly issued_at: string
  readonly scope: string
  readonly refresh_token?: string
}

export function actorOf(auth: Auth, account: Account): Actor {
  return { kind: 'account', name: account.name, admin: auth.admins.includes(account.name) }
}

/** @throws RegistryError UNAUTHORIZED for bad credentials, or for none if anonymous pulls are off */
export async function answerTokenRequest(auth: Auth, request: TokenRequest): Promise<TokenAnswer> {
  const account = await accountOf(auth, request)
  const actor = account === undefined ? ANONYMOUS : actorOf(auth, account)
  const scopes: Scope[] = grantableScopes(auth.policy, actor, parseScopes(request.scopes))
  const { token, expiresIn, issuedAt } = await auth.tokens.issueAccess({
    subject: account?.name ?? '',
    scopes,
  })
  const refresh =
    account !== undefined && request.offline
      ? await auth.tokens.issueRefresh({ subject: account.name, account: thumbprint(account) })
      : undefined
  return {
    token,
    access_token: token,
    expires_in: expiresIn,
    issued_at: issuedAt,
    scope: scopes.map(formatScope).join(' '),
    ...(refresh !== undefined && { refresh_token: refresh }),
  }
}

async function accountOf(auth: Auth, request: TokenRequest): Promise<Account | undefined> {
  const { credentials, address } = request
  if (credentials.kind === 'none') {
    if (auth.policy.anonymousPull) return undefined
    throw unauthorized()
  }
  if (credentials.kind === 'basic') {
    const account = await auth.passwords.check({ ...credentials, address })
    if (account === undefined) throw unauthorized()
    return account
  }
  const claims = await auth.tokens.verifyRefresh(credentials.token)
  const account = claims && (await auth.accounts.find(claims.subject))
  if (account === undefined || claims?.account !== thumbprint(account)) throw unauthorized()
  return account
}

function thumbprint({ name, hash }: Account): string {
  return createHash('sha256').update(`${name}\0${hash}`).digest('base64url')
}

function unauthorized(): RegistryError {
  return new RegistryError('UNAUTHORIZED', { message: 'the credentials are missing or wrong' })
}
