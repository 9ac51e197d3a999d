// Who may log in at this edge and how tokens are signed: the accounts of the htpasswd file, passwords, and a ring of keys
// that is kept in the database, its private halves sealed.

import { type Accounts, openAccounts } from '#shared/auth/htpasswd.ts'
import { createKeyRing } from '#shared/auth/key-ring.ts'
import { createPasswordChecker } from '#shared/auth/passwords.ts'
import type { Auth } from '#shared/auth/token-service.ts'
import { createTokens } from '#shared/auth/tokens.ts'
import { type Config, ConfigError } from '#shared/config/load.ts'
import { insertSigningKeyIfAbsent, listSigningKeys } from '#shared/db/signing-keys.ts'
import type { Region } from '#shared/region.ts'

/** @throws OperatorError when the file of accounts cannot be used: said before a database is made */
export async function requireAccounts({ auth }: Config): Promise<void> {
  if (auth.mode === 'none' || auth.htpasswdFile === undefined) return
  // Read once and dropped: problems of later readings are nobody's.
  await openAccounts({ path: auth.htpasswdFile, onProblem: () => {} })
}

/**
 * undefined: nobody is asked who they are.
 * @throws OperatorError when the file of accounts cannot be used, ConfigError when there is no key to seal with
 */
export async function openAuth(
  region: Pick<Region, 'config' | 'db' | 'reads' | 'sealer' | 'log' | 'name'>,
): Promise<Auth | undefined> {
  const { auth } = region.config
  if (auth.mode === 'none' || auth.htpasswdFile === undefined) return undefined
  const accounts = await openAccounts({
    path: auth.htpasswdFile,
    onProblem: (error) =>
      region.log.error({ error }, 'the htpasswd file cannot be used; the accounts stay as they were'),
  })
  return authOf(region, accounts)
}

function authOf(
  region: Pick<Region, 'config' | 'db' | 'reads' | 'sealer' | 'log' | 'name'>,
  accounts: Accounts,
): Auth {
  const { db, reads, sealer, log } = region
  const { anonymousPull, admins, tokenTtlSeconds } = region.config.auth
  if (sealer === undefined) {
    throw new ConfigError([
      'PORTOLAN_AUTH=accounts signs tokens with keys that are kept encrypted in the database: set PORTOLAN_SECRETS_KEY, the same at every node (make one with `openssl rand -base64 32`)',
    ])
  }
  /** At most as many as keys are listed in the life of a process. */
  const told = new Set<string>()
  const tellClosed = (kid: string, reason: string): void => {
    if (told.has(kid)) return
    told.add(kid)
    log.error({ kid, reason }, 'a token signing key cannot be opened: it verifies tokens and signs none')
  }
  const keys = createKeyRing({
    store: {
      list: () => listSigningKeys(reads, sealer, tellClosed),
      insertIfAbsent: (key, closed) =>
        db.transaction((transaction) =>
          insertSigningKeyIfAbsent(transaction, sealer, {
            ...key,
            privateJwk: { ...key.privateJwk },
            publicJwk: { ...key.publicJwk },
            closed,
          }),
        ),
    },
  })
  return {
    policy: { open: false, anonymousPull },
    accounts,
    passwords: createPasswordChecker({
      accounts,
      onFailure: ({ name, address }) => log.warn({ account: name, address }, 'a login failed'),
    }),
    tokens: createTokens({ keys, issuer: `portolan/${region.name}`, ttlSeconds: tokenTtlSeconds }),
    admins,
  }
}
