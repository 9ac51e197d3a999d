// Settings of authentication and authorization.

import { flag, integer, isLoopback, type ListenAddress, oneOf, plain, words } from './parsers.ts'
import { optional, type Parsed, type Values, variable } from './variable.ts'

export const authVariables = Object.freeze({
  PORTOLAN_AUTH: optional(
    oneOf('none', 'accounts'),
    '`accounts` requires a login; `none` lets everybody do everything. The accounts are in PORTOLAN_HTPASSWD_FILE. ' +
      'If unset, it is `none` on loopback and an error elsewhere.',
  ),
  PORTOLAN_HTPASSWD_FILE: optional(
    plain,
    'File of accounts in the format of `htpasswd -B`. Changes apply within a second.',
  ),
  PORTOLAN_ANONYMOUS_PULL: variable(
    flag,
    'false',
    '`true` allows everybody to pull everything and to list the catalog. Pushing still needs an account.',
  ),
  PORTOLAN_ADMINS: variable(words, '', 'Comma-separated accounts that may use `/api/v1`.'),
  PORTOLAN_TOKEN_TTL_SECONDS: variable(
    integer({ min: 60, max: 3600 }),
    '300',
    'Lifetime of an access token. A shorter one revokes access sooner; a longer one needs fewer token requests.',
  ),
})

export interface AuthConfig {
  readonly mode: 'none' | 'accounts'
  readonly htpasswdFile: string | undefined
  readonly anonymousPull: boolean
  readonly admins: readonly string[]
  readonly tokenTtlSeconds: number
}

export function authConfig(values: Values<typeof authVariables>): AuthConfig {
  return {
    mode: values.PORTOLAN_AUTH ?? 'none',
    htpasswdFile: values.PORTOLAN_HTPASSWD_FILE,
    anonymousPull: values.PORTOLAN_ANONYMOUS_PULL,
    admins: values.PORTOLAN_ADMINS,
    tokenTtlSeconds: values.PORTOLAN_TOKEN_TTL_SECONDS,
  }
}

export function authProblems(
  values: Parsed<typeof authVariables> & { readonly PORTOLAN_LISTEN: ListenAddress | undefined },
  isSet: (name: string) => boolean,
): string[] {
  const problems: string[] = []
  const { PORTOLAN_LISTEN: listen } = values
  if (!isSet('PORTOLAN_AUTH') && listen !== undefined && !isLoopback(listen.host)) {
    problems.push(
      'PORTOLAN_LISTEN is reachable from other machines: set PORTOLAN_AUTH=accounts, or PORTOLAN_AUTH=none if ' +
        'everybody who reaches it may push and delete',
    )
  }
  if (values.PORTOLAN_AUTH === 'accounts' && !isSet('PORTOLAN_HTPASSWD_FILE'))
    problems.push('PORTOLAN_AUTH=accounts needs PORTOLAN_HTPASSWD_FILE (create one with `htpasswd -Bc`)')
  return problems
}
