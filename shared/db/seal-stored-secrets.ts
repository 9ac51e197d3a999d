// Seals the secrets that a database holds in clear or under an older key, at each start and with each sweep of the
// janitor. If everything is sealed, this costs a few quick reads.
//
// A release from before sealing cannot read sealed values. The first run therefore waits until no such release runs.
// From then on, such a release refuses to start, with one sentence. Values that are written meanwhile are sealed at
// once: a webhook that is changed during the upgrade is delivered by the new nodes, and a new token key signs a day
// later. Dead rows, backups and Kafka still hold what was once in clear. The log line about the sealing says so.

import { ConfigError } from '#shared/config/load.ts'
import type { Database } from '#shared/db/connect.ts'
import { retireOlderReleases } from '#shared/db/migrate.ts'
import { anyInClear, sealAll } from '#shared/db/stored-secrets.ts'
import type { Log } from '#shared/observability/log.ts'
import type { Sealer } from '#shared/secrets/sealer.ts'

/** The first release that reads sealed values knows the schema up to this migration. */
const SEALING_MIGRATION = 7

/** @throws ConfigError if secrets are in clear and there is no key to seal them */
export async function sealStoredSecrets(options: {
  db: Database
  sealer: Sealer | undefined
  log: Log
}): Promise<void> {
  const { db, sealer, log } = options
  if (sealer === undefined) {
    if (!(await anyInClear(db))) return
    throw new ConfigError([
      'the database holds secrets (of webhooks or token keys) that have to be encrypted: set PORTOLAN_SECRETS_KEY, the same at every node (make one with `openssl rand -base64 32`)',
    ])
  }
  if (!(await db.transaction((transaction) => retireOlderReleases(transaction, SEALING_MIGRATION)))) {
    log.warn({}, 'secrets stay in clear in the database while a node of an older release runs')
    return
  }
  const sealed = await sealAll(db, sealer, (place, reason) =>
    log.debug({ place, error: reason }, 'a secret cannot be opened and stays as it is'),
  )
  if (sealed === 0) return
  log.warn(
    { sealed, key: sealer.keyId },
    'secrets in the database were encrypted; older backups and Kafka records may hold them in clear: replace those that matter',
  )
}
