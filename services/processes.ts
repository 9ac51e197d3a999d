// Runs several API processes on one port. This process keeps the components that the region embeds and starts the
// others as `main.ts api`, with the same configuration and the database URL. The kernel distributes connections between
// them (SO_REUSEPORT). A child that exits is restarted after a pause. Draining this process drains all of them. Metrics
// are collected from the children on request and summed.

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

/** The messages between parent and child. */
export type ProcessMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'metrics-wanted'; readonly id: number }
  | { readonly kind: 'metrics'; readonly id: number; readonly values: unknown }

export interface ApiProcesses extends Service {
  readonly port: number
  /** The metrics of all children, summed, as one text. */
  metricsText(): Promise<string>
}

/** @param environment the children's environment; this process overrides some of its variables */
export async function startApiProcesses(
  region: Region,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ApiProcesses> {
  const { config } = region
  if (config.listen.port === 0)
    throw new OperatorError('PORTOLAN_PROCESSES above 1 requires a fixed port in PORTOLAN_LISTEN.')
  // The children serve from the stores, and this process reports their readiness on the metrics port. Opening the
  // stores here reports an unusable store once.
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
      // Each child has its own process group. Ctrl-C reaches only this process, which then drains the children.
      detached: true,
    })
    children.add(child)
    child.once('exit', (code, signal) => {
      children.delete(child)
      if (stopping) return
      region.log.error({ code, signal }, 'an API process exited and will be restarted')
      void pause(RESTART_DELAY_MS).then(() => (stopping ? undefined : start().catch(report)))
    })
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new OperatorError('An API process did not become ready in time.')),
        START_TIMEOUT_MS,
      )
      child.once('exit', () =>
        reject(new OperatorError('An API process exited before it was ready; see its output above.')),
      )
      child.on('message', (message: ProcessMessage) => {
        if (message.kind !== 'ready') return
        clearTimeout(late)
        resolve()
      })
    })
  }
  const report = (error: unknown) => region.log.error({ error }, 'failed to start an API process')

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

/** In a child, until disposed: reports readiness, answers requests for metrics, and stops when the parent is gone. */
export function joinParent(region: Region, onOrphaned: () => void): Disposable {
  const send = (message: ProcessMessage) => process.send?.(message)
  process.on('message', (message: ProcessMessage) => {
    if (message.kind !== 'metrics-wanted') return
    region.metrics
      .values()
      .then((values) => send({ kind: 'metrics', id: message.id, values }))
      .catch((error: unknown) => region.log.error({ error }, 'failed to collect metrics'))
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
