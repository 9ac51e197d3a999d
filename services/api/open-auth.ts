// Sets up authentication for this edge: the accounts and passwords of the htpasswd file, and the ring of keys that sign
// tokens. The keys are stored in the database with their private halves encrypted.

import { type Accounts, openAccounts } from '#shared/auth/htpasswd.ts'
import { createKeyRing } from '#shared/auth/key-ring.ts'
import { createPasswordChecker } from '#shared/auth/passwords.ts'
import type { Auth } from '#shared/auth/token-service.ts'
import { createTokens } from '#shared/auth/tokens.ts'
import { type Config, ConfigError } from '#shared/config/load.ts'
import { insertSigningKeyIfAbsent, listSigningKeys } from '#shared/db/signing-keys.ts'
import type { Region } from '#shared/region.ts'

/** @throws OperatorError if the accounts file cannot be used. Checked before a database is created. */
export async function requireAccounts({ auth }: Config): Promise<void> {
  if (auth.mode === 'none' || auth.htpasswdFile === undefined) return
  // Read once and discarded, so problems of later readings do not matter.
  await openAccounts({ path: auth.htpasswdFile, onProblem: () => {} })
}

/**
 * undefined: authentication is off.
 * @throws OperatorError if the accounts file cannot be used, ConfigError if there is no key for encryption
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
  /** Holds at most as many entries as keys are listed during the life of the process. */
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
