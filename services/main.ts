// The entry: names of services -> configuration -> region -> services -> wait -> drain.
//
//   main.ts [all]            one whole region in this process
//   main.ts api janitor      some of its services
//   main.ts move-blobs --to s3   moves the region's blobs to another store and ends
//   main.ts adopt-store --yes    makes the store that is configured this database's and ends
//   main.ts sweep --yes          removes what no row names, whatever the sweep's limits say, and ends
//   main.ts --print-config   the effective configuration, secrets masked

import { parseArgs } from 'node:util'
import { printConfig } from '#shared/config/describe.ts'
import { ConfigError, loadConfig } from '#shared/config/load.ts'
import { startProbeServer } from '#shared/observability/probe-server.ts'
import { openRegion, type Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import { greeting } from './greeting.ts'

type Start = (region: Region) => Promise<Service & { port?: number; metricsText?: () => Promise<string> }>

/** Loaded when asked for: a process has only what it runs. */
const SERVICES: Readonly<Record<string, () => Promise<Start>>> = Object.freeze({
  api: async () => {
    const { startApiProcesses } = await import('./processes.ts')
    const { startApi } = await import('./api/service.ts')
    return (region) => {
      if (region.config.processes > 1) return startApiProcesses(region, process.env)
      return startApi(region, { reusePort: region.config.child })
    }
  },
  relay: async () => (await import('./relay/service.ts')).startRelay,
  webhooks: async () => (await import('./webhooks/service.ts')).startWebhooks,
  janitor: async () => (await import('./janitor/service.ts')).startJanitor,
})

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: {
      'print-config': { type: 'boolean' },
      to: { type: 'string' },
      yes: { type: 'boolean', default: false },
    },
    allowPositionals: true,
  })
  const names = positionals.length === 0 || positionals.includes('all') ? Object.keys(SERVICES) : positionals
  if (values['print-config']) {
    process.stdout.write(`${printConfig(process.env)}\n`)
    return
  }
  const config = loadConfig(process.env)
  if (positionals[0] === 'move-blobs') {
    const { moveBlobs } = await import('./move-blobs/command.ts')
    process.exitCode = await moveBlobs(config, values.to)
    return
  }
  if (positionals[0] === 'adopt-store') {
    const { adoptStore } = await import('./adopt-store/command.ts')
    process.exitCode = await adoptStore(config, { yes: values.yes })
    return
  }
  if (positionals[0] === 'sweep') {
    const { sweep } = await import('./janitor/command.ts')
    process.exitCode = await sweep(config, { yes: values.yes })
    return
  }
  const starts = names.map((name) => {
    const load = SERVICES[name]
    if (load === undefined)
      throw new Error(`There is no service "${name}": choose from all, ${Object.keys(SERVICES).join(', ')}.`)
    return load
  })
  const stop = Promise.withResolvers<void>()
  onStopSignal(stop.resolve)
  await using running = new AsyncDisposableStack()
  const region = running.use(await openRegion(config))
  let port: number | undefined
  let { text: metricsText } = region.metrics
  for (const load of starts) {
    const service = running.use(await (await load())(region))
    port ??= service.port
    metricsText = service.metricsText ?? metricsText
  }
  if (config.metricsListen !== undefined) {
    running.use(
      await startProbeServer({
        listen: config.metricsListen,
        metricsText,
        readiness: region.readiness,
        onError: (error) => region.log.error({ error }, 'a probe failed'),
      }),
    )
  }
  if (config.child) running.use((await import('./processes.ts')).joinParent(region, stop.resolve))
  else process.stdout.write(greeting(config, port))
  const reason = await Promise.race([stop.promise, region.failed])
  if (reason instanceof Error) throw reason
}

/** The first SIGINT or SIGTERM asks to drain; a second one ends the process without. */
function onStopSignal(stop: () => void): void {
  let asked = false
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (asked) process.exit(130)
      asked = true
      stop()
    })
  }
}

try {
  await main()
} catch (thrown) {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown))
  // What an operator can act on is a sentence; a bug needs its stack.
  const expected =
    error instanceof ConfigError || /[.:]$/.test(error.message) || error.message.includes('PORTOLAN_')
  process.stderr.write(`${expected ? error.message : error.stack}\n`)
  process.exitCode = 1
}
