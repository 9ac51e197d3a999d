// Several API processes on the one port: this process keeps what the region embeds and starts the others as `main.ts
// api`, with the same configuration and the database's address. The kernel spreads connections over them (SO_REUSEPORT).
// A child that dies is started again after a pause; draining this process drains them all. Metrics are gathered from
// the children when asked for, and added up.

import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { OperatorError } from '#shared/errors.ts'
import { aggregateMetrics } from '#shared/observability/metrics.ts'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'

const RESTART_DELAY_MS = 500
const START_TIMEOUT_MS = 30_000
const METRICS_TIMEOUT_MS = 2_000

/** What parent and child say to each other. */
export type ProcessMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'metrics-wanted'; readonly id: number }
  | { readonly kind: 'metrics'; readonly id: number; readonly values: unknown }

export interface ApiProcesses extends Service {
  readonly port: number
  /** The numbers of all children as one text. */
  metricsText(): Promise<string>
}

/** @param environment what the children are configured with, beside what this process decided for them */
export async function startApiProcesses(
  region: Region,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ApiProcesses> {
  const { config } = region
  if (config.listen.port === 0)
    throw new OperatorError('PORTOLAN_PROCESSES above 1 needs a fixed port in PORTOLAN_LISTEN.')
  // The children serve from the stores, and this process tells whether they are ready on the metrics port. A store that
  // cannot be used is told here, once.
  await region.openStores()
  const children = new Set<ChildProcess>()
  let stopping = false
  let asked = 0

  const start = (): Promise<void> => {
    const child = fork(fileURLToPath(new URL('./main.ts', import.meta.url)), ['api'], {
      env: {
        ...environment,
        PORTOLAN_DATABASE_URL: region.databaseUrl,
        PORTOLAN_DATABASE_URL_FILE: undefined,
        PORTOLAN_METRICS_LISTEN: 'off',
        PORTOLAN_PROCESSES: '1',
        PORTOLAN_CHILD: config.database.embedded ? 'api-embedded' : 'api',
      },
      // A group of their own: Ctrl-C reaches this process, which drains them in order.
      detached: true,
    })
    children.add(child)
    child.once('exit', (code, signal) => {
      children.delete(child)
      if (stopping) return
      region.log.error({ code, signal }, 'an API process ended and is started again')
      void pause(RESTART_DELAY_MS).then(() => (stopping ? undefined : start().catch(report)))
    })
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new OperatorError('An API process did not become ready in time.')),
        START_TIMEOUT_MS,
      )
      child.once('exit', () =>
        reject(new OperatorError('An API process ended before it was ready; what it said is above.')),
      )
      child.on('message', (message: ProcessMessage) => {
        if (message.kind !== 'ready') return
        clearTimeout(late)
        resolve()
      })
    })
  }
  const report = (error: unknown) => region.log.error({ error }, 'an API process could not be started')

  const ask = (child: ChildProcess): Promise<unknown> => {
    const id = ++asked
    return new Promise((resolve) => {
      const late = setTimeout(() => answered({ kind: 'metrics', id, values: [] }), METRICS_TIMEOUT_MS)
      const answered = (message: ProcessMessage) => {
        if (message.kind !== 'metrics' || message.id !== id) return
        clearTimeout(late)
        child.off('message', answered)
        resolve(message.values)
      }
      child.on('message', answered)
      child.send({ kind: 'metrics-wanted', id } satisfies ProcessMessage)
    })
  }

  await Promise.all(Array.from({ length: config.processes }, start))
  return {
    name: 'api',
    port: config.listen.port,
    metricsText: async () => aggregateMetrics(await Promise.all([...children].map(ask))),
    async [Symbol.asyncDispose]() {
      stopping = true
      await Promise.all(
        [...children].map(async (child) => {
          const exited = new Promise((done) => child.once('exit', done))
          child.kill('SIGTERM')
          await exited
        }),
      )
    },
  }
}

/** In a child: says that it is ready, answers for its metrics, and ends when the parent is gone, until disposed. */
export function joinParent(region: Region, onOrphaned: () => void): Disposable {
  const send = (message: ProcessMessage) => process.send?.(message)
  process.on('message', (message: ProcessMessage) => {
    if (message.kind !== 'metrics-wanted') return
    region.metrics
      .values()
      .then((values) => send({ kind: 'metrics', id: message.id, values }))
      .catch((error: unknown) => region.log.error({ error }, 'metrics could not be gathered'))
  })
  process.on('disconnect', onOrphaned)
  send({ kind: 'ready' })
  return {
    [Symbol.dispose]() {
      // An open channel would keep the process alive.
      process.off('disconnect', onOrphaned)
      if (process.connected) process.disconnect()
    },
  }
}
