// A primary and its asynchronous hot standby, both embedded, and an address that switches between them, as a cluster
// manager or a DNS change does in a failover. The standby is a copy of a stopped server, so no tools are needed.

import { chown, cp, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { createServer, type Socket, connect as socketTo } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import { startEmbeddedPostgres } from '#shared/embedded/postgres.ts'
import { type Cleanup, execute } from './postgres.ts'
import { testDirectory } from './region.ts'

export const UNSAFE_SETTINGS: Readonly<Record<string, string>> = Object.freeze({ fsync: 'off' })

export interface Pair {
  /** URL of the primary. */
  readonly primary: string
  /** URL of the standby. */
  readonly standby: string
}

/** @param prepare runs against the server before the copy */
export async function primaryAndStandby(
  t: Cleanup,
  prepare: (url: string) => Promise<void> = async () => {},
): Promise<Pair> {
  const first = await testDirectory(t)
  const second = await testDirectory(t)
  const settings = UNSAFE_SETTINGS
  {
    await using made = await startEmbeddedPostgres({ directory: first, settings })
    await prepare(made.url)
  }
  await copyServer(first, second)
  const primary = await startEmbeddedPostgres({ directory: first, settings })
  const password = await readFile(join(first, 'password'), 'utf8')
  await writeFile(join(second, 'data', 'standby.signal'), '')
  // In the file rather than on the command line, so that it can be reset while the server runs.
  await writeFile(
    join(second, 'data', 'postgresql.auto.conf'),
    `primary_conninfo = 'host=${join(first, 'socket')} user=portolan password=${password}'\n`,
  )
  const standby = await startEmbeddedPostgres({ directory: second, settings })
  t.after(async () => {
    await standby[Symbol.asyncDispose]()
    await primary[Symbol.asyncDispose]()
  })
  return { primary: primary.url, standby: standby.url }
}

/** Copies a stopped embedded server. Its files are a valid base backup. */
export async function copyServer(from: string, to: string): Promise<void> {
  for (const part of ['data', 'password']) await cp(join(from, part), join(to, part), { recursive: true })
  const { uid, gid } = await stat(join(from, 'data'))
  const data = join(to, 'data')
  await chown(data, uid, gid)
  for (const name of await readdir(data, { recursive: true })) await chown(join(data, name), uid, gid)
}

/** Stops replication: the standby never receives later commits of the primary. */
export async function cutStreaming({ standby }: Pair): Promise<void> {
  await execute(standby, `alter system set primary_conninfo = ''`)
  await execute(standby, 'select pg_reload_conf()')
}

/** Returns true if the standby has replayed everything that the primary wrote. */
export async function caughtUp({ primary, standby }: Pair): Promise<boolean> {
  const written = await value(primary, 'select pg_current_wal_lsn()::text')
  return (await value(standby, `select pg_last_wal_replay_lsn() >= '${written}'`)) === true
}

async function value(url: string, sql: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query({ text: sql, rowMode: 'array' })
    return rows[0]?.[0]
  } finally {
    await client.end()
  }
}

export interface Switch {
  /** The URL of the switch, which forwards to the current server. */
  readonly url: string
  /** Closes all connections. New connections go to the server at this URL. */
  to(url: string): void
}

export async function startSwitch(t: Cleanup, url: string): Promise<Switch> {
  let target = url
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const { hostname } = new URL(target)
    const upstream = socketTo(join(decodeURIComponent(hostname), '.s.PGSQL.5432'))
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
    client.pipe(upstream).pipe(client)
  })
  const { promise, resolve } = Promise.withResolvers<number>()
  server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port))
  const port = await promise
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  t.after(async () => {
    cut()
    await new Promise((closed) => server.close(closed))
  })
  const { username, password, pathname } = new URL(url)
  return {
    url: `postgres://${username}:${password}@127.0.0.1:${port}${pathname}`,
    to(next) {
      target = next
      cut()
    },
  }
}
