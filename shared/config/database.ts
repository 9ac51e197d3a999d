// Settings of the database, and of whether unconfigured parts may be embedded.

import { databaseUrl, integer, oneOf } from './parsers.ts'
import { secret, type Values, variable } from './variable.ts'

export const databaseVariables = Object.freeze({
  PORTOLAN_DATABASE_URL: secret(
    databaseUrl,
    "URL of this region's Postgres 15 to 18. If unset, an embedded Postgres runs in the data directory. Connect " +
      'directly or through a session pooler.',
    maskPasswords,
  ),
  PORTOLAN_DATABASE_CONNECTIONS: variable(
    integer({ min: 2, max: 100 }),
    '8',
    'Database connections of each process for writes. Reads use another half as many. More connections than the ' +
      'database has cores mostly add waiting.',
  ),
  PORTOLAN_EMBEDDED: variable(
    oneOf('allow', 'forbid'),
    'allow',
    '`forbid` never embeds parts that are not configured; set it in production. A missing PORTOLAN_DATABASE_URL, ' +
      'PORTOLAN_BLOBS or PORTOLAN_KAFKA_BROKERS is then an error.',
  ),
})

/** To have no such part on purpose, the variable must still be set: `PORTOLAN_KAFKA_BROKERS=none`. */
const NEEDED_WITHOUT_EMBEDDED: Readonly<Record<string, string>> = Object.freeze({
  PORTOLAN_DATABASE_URL: '',
  PORTOLAN_BLOBS: ': set where blobs are stored, even if it is `file`',
  PORTOLAN_KAFKA_BROKERS: ': with `none`, readers use the log in the database',
  PORTOLAN_SECRETS_KEY: ' (create one with `openssl rand -base64 32`)',
})

export interface DatabaseConfig {
  /** undefined if the database is embedded. */
  readonly url: string | undefined
  readonly connections: number
  /** True if the database is in the data directory and this process or its parent runs it. */
  readonly embedded: boolean
}

/** `byParent`: the parent of this process runs the embedded database and passed its URL. */
export function databaseConfig(
  values: Values<typeof databaseVariables>,
  { byParent }: { byParent: boolean },
): DatabaseConfig {
  const { PORTOLAN_DATABASE_URL: url, PORTOLAN_DATABASE_CONNECTIONS: connections } = values
  return { url, connections, embedded: url === undefined || byParent }
}

export function embeddedProblems(
  values: { readonly PORTOLAN_EMBEDDED: 'allow' | 'forbid' | undefined },
  isSet: (name: string) => boolean,
): string[] {
  if (values.PORTOLAN_EMBEDDED !== 'forbid') return []
  return Object.entries(NEEDED_WITHOUT_EMBEDDED)
    .filter(([name]) => !isSet(name))
    .map(([name, hint]) => `PORTOLAN_EMBEDDED=forbid needs ${name}${hint}`)
}

/** Masks the URL's passwords. The user name and the host help an operator; passwords would help only an attacker. */
function maskPasswords(text: string): string {
  const url = new URL(text)
  if (url.password !== '') url.password = '***'
  for (const name of ['password', 'sslpassword'])
    if (url.searchParams.has(name)) url.searchParams.set(name, '***')
  return url.href
}
