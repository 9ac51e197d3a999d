// Settings of the database, and of what may be embedded where nothing is configured.

import { databaseUrl, integer, oneOf } from './parsers.ts'
import { secret, type Values, variable } from './variable.ts'

export const databaseVariables = Object.freeze({
  PORTOLAN_DATABASE_URL: secret(
    databaseUrl,
    'Postgres 15 to 18 of this region. Unset, an embedded Postgres runs in the data directory. Connect directly or ' +
      'through a session pooler.',
    maskPasswords,
  ),
  PORTOLAN_DATABASE_CONNECTIONS: variable(
    integer({ min: 2, max: 100 }),
    '8',
    'Connections of each process for writes, and half as many for reads. More than the database has cores mostly adds waiting.',
  ),
  PORTOLAN_EMBEDDED: variable(
    oneOf('allow', 'forbid'),
    'allow',
    '`forbid` never embeds what is not configured; set it in production. A missing PORTOLAN_DATABASE_URL, PORTOLAN_BLOBS ' +
      'or PORTOLAN_KAFKA_BROKERS is then an error.',
  ),
})

/** Where "no such thing" is said on purpose, the variable is set: `PORTOLAN_KAFKA_BROKERS=none`. */
const NEEDED_WITHOUT_EMBEDDED: Readonly<Record<string, string>> = Object.freeze({
  PORTOLAN_DATABASE_URL: '',
  PORTOLAN_BLOBS: ': say where blobs are, even if it is `file`',
  PORTOLAN_KAFKA_BROKERS: ': `none` says that readers use the log in the database',
  PORTOLAN_SECRETS_KEY: ' (create one with `openssl rand -base64 32`)',
})

export interface DatabaseConfig {
  /** undefined: embedded. */
  readonly url: string | undefined
  readonly connections: number
  /** The database is in the data directory: this process or its parent runs it. */
  readonly embedded: boolean
}

/** `byParent`: the parent of this process runs the embedded database whose URL it was given. */
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

/** The URL without its passwords: the user name and the host help an operator, the rest helps a thief. */
function maskPasswords(text: string): string {
  const url = new URL(text)
  if (url.password !== '') url.password = '***'
  for (const name of ['password', 'sslpassword'])
    if (url.searchParams.has(name)) url.searchParams.set(name, '***')
  return url.href
}
