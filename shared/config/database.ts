// Settings of the database, and of what may be embedded where nothing is configured.

import { databaseUrl, integer, oneOf } from './parsers.ts'
import { secret, type Values, variable } from './variable.ts'

export const databaseVariables = Object.freeze({
  PORTOLAN_DATABASE_URL: secret(
    databaseUrl,
    'Postgres 15 to 18 of this region, by a direct connection or a session pooler. Unset, an embedded Postgres ' +
      'runs in the data directory.',
    maskPasswords,
  ),
  PORTOLAN_DATABASE_CONNECTIONS: variable(
    integer({ min: 2, max: 100 }),
    '8',
    'Write connections of each process. More than the database has cores mostly adds waiting.',
  ),
  PORTOLAN_EMBEDDED: variable(
    oneOf('allow', 'forbid'),
    'allow',
    '`forbid` makes a missing PORTOLAN_DATABASE_URL, PORTOLAN_BLOBS or PORTOLAN_KAFKA_BROKERS an error instead of ' +
      'choosing an embedded part. Set it in production.',
  ),
})

/** Where "no such thing" is said on purpose, the variable is set: `PORTOLAN_KAFKA_BROKERS=none`. */
const NEEDED_WITHOUT_EMBEDDED: Readonly<Record<string, string>> = Object.freeze({
  PORTOLAN_DATABASE_URL: '',
  PORTOLAN_BLOBS: ': say where blobs are, even if it is `file`',
  PORTOLAN_KAFKA_BROKERS: ': `none` says that readers use the log in the database',
})

export interface DatabaseConfig {
  /** undefined: embedded. */
  readonly url: string | undefined
  readonly connections: number
}

export function databaseConfig(values: Values<typeof databaseVariables>): DatabaseConfig {
  return { url: values.PORTOLAN_DATABASE_URL, connections: values.PORTOLAN_DATABASE_CONNECTIONS }
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
