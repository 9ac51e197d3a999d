// Explains in one sentence why a start cannot use the database: no server, no such name, a wrong password, no such
// database, a TLS mismatch, a standby. Any other error is thrown unchanged. The sentence contains the address and never
// the password.

import { OperatorError } from '#shared/errors.ts'
import { isPassing, isUnreachable, sqlState } from './failures.ts'

/** @throws OperatorError with the sentence, or what the work threw */
export async function explaining<T>(url: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    const sentence = thrown instanceof OperatorError ? undefined : explanation(thrown, url)
    if (sentence === undefined) throw thrown
    throw new OperatorError(sentence, { cause: thrown })
  }
}

/** Decides by SQLSTATE and by the codes of Node's sockets and TLS. */
function explanation(thrown: unknown, url: string): string | undefined {
  const { where, user, database } = namesOf(url)
  const code = codeOf(thrown)
  const said = isUnreachable(thrown) ? (thrown as Error).cause : thrown
  const message = said instanceof Error ? firstLine(said.message) : ''
  switch (code) {
    case 'ECONNREFUSED':
    case 'ENOENT':
      return `No Postgres answers at ${where} (${code}): start it, or correct PORTOLAN_DATABASE_URL.`
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `The host of the database, ${where}, has no address (${code}): correct PORTOLAN_DATABASE_URL, or the name service.`
    case '28P01':
    case '28000':
      return `Postgres at ${where} does not let "${user}" in (${message}): correct the user, the password or the TLS mode in PORTOLAN_DATABASE_URL, or the server's pg_hba.conf.`
    case '3D000':
      return `Postgres at ${where} has no database "${database}": create it, or correct PORTOLAN_DATABASE_URL.`
    case '42501':
      return `Postgres at ${where} does not let "${user}" create tables in "${database}" (${message}): make that user the database's owner.`
    case '25006':
      return `Postgres at ${where} is read-only (a standby): set PORTOLAN_DATABASE_URL to the primary.`
    case '57P03':
      return `Postgres at ${where} does not take connections yet (${message}): start Portolan again when it does.`
    case '53300':
      return `Postgres at ${where} has no connection left (${message}): raise max_connections, or lower PORTOLAN_DATABASE_CONNECTIONS.`
    case '55P03':
      return `The tables in "${database}" could not be changed because something else uses them (${message}): end long transactions, then start again.`
  }
  if (
    /^(The server does not support SSL|There was an error establishing an SSL)/.test(message) ||
    isTls(code)
  )
    return `TLS with Postgres at ${where} fails (${message}${code === '' ? '' : `, ${code}`}): correct sslmode and sslrootcert in PORTOLAN_DATABASE_URL, or the server's certificate.`
  if (isUnreachable(thrown))
    return `Postgres at ${where} cannot be reached (${code || message}): is it running, and does a firewall let this host through?`
  if (isPassing(thrown))
    return `Postgres at ${where} cannot serve a start now (${message}): start again later.`
  return undefined
}

function isTls(code: string): boolean {
  return /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|EPROTO)/.test(code)
}

/** For an attempt at several addresses, returns the code of the first. */
function codeOf(thrown: unknown): string {
  const code = sqlState(thrown)
  if (code === '' && thrown instanceof AggregateError) return codeOf(thrown.errors[0])
  return code
}

function firstLine(text: string): string {
  return (text.split('\n', 1)[0] ?? '').slice(0, 200)
}

function namesOf(url: string): { where: string; user: string; database: string } {
  const parsed = new URL(url)
  const host = parsed.searchParams.get('host') ?? decodeURIComponent(parsed.hostname)
  const port = parsed.searchParams.get('port') ?? (parsed.port || '5432')
  const user = decodeURIComponent(parsed.username)
  return {
    where: host.startsWith('/') ? host : `${host}:${port}`,
    user,
    database: decodeURIComponent(parsed.pathname.slice(1)) || user,
  }
}
