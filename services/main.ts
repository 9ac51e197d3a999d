// The entry point. It resolves the service names, loads the configuration, opens the region, starts the services, waits
// for a stop request, and drains.
//
//   main.ts [world]              the regions eu and us behind one port, for a demo; only if nothing is configured
//   main.ts all                  all services of a region in this process
//   main.ts api janitor          some of the services
//   main.ts move-blobs --to s3   moves the region's blobs to another store and exits
//   main.ts adopt-store --yes    assigns the configured store to this database and exits
//   main.ts sweep --yes          removes objects that no row references, ignoring the sweep limits, and exits
//   main.ts --print-config       prints the effective configuration with secrets masked
//
// The process runs until SIGINT, SIGTERM or SIGHUP, until something it depends on fails, or until the npm that started
// it exits (see stop-request.ts). An OperatorError prints one sentence to standard error and exits with code 1. A bug
// prints its stack.

import { parseArgs } from 'node:util'
import { printConfig } from '#shared/config/describe.ts'
import { type Config, loadConfig } from '#shared/config/load.ts'
import { nearest } from '#shared/config/spelling.ts'
import { OperatorError } from '#shared/errors.ts'
import { requireFree } from '#shared/observability/listen.ts'
import { startProbeServer } from '#shared/observability/probe-server.ts'
import { openRegion, type Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
import { greeting } from './greeting.ts'
import { giveBackIdleMemory } from './idle-memory.ts'
import { stopRequest } from './stop-request.ts'

type Start = (region: Region) => Promise<Service & { port?: number; metricsText?: () => Promise<string> }>

/** Loaded on demand: a process loads only the services it runs. */
const SERVICES: Readonly<Record<string, () => Promise<Start>>> = Object.freeze({
  api: async () => {
    const { startApiProcesses } = await import('./processes.ts')
    const { startApi } = await import('./api/service.ts')
    return (region) => {
      if (region.config.processes > 1) return startApiProcesses(region, process.env)
      return startApi(region, { reusePort: isApiChild(region.config) })
    }
  },
  relay: async () => (await import('./relay/service.ts')).startRelay,
  webhooks: async () => (await import('./webhooks/service.ts')).startWebhooks,
  replicator: async () => (await import('./replicator/service.ts')).startReplicator,
  janitor: async () => (await import('./janitor/service.ts')).startJanitor,
})

type Options = {
  'print-config'?: boolean
  to?: string
  yes?: boolean
  regions?: string
  port?: string
  kafka?: string
}

/** Commands that run alone and exit. Each returns the exit code. */
const COMMANDS: Readonly<
  Record<string, () => Promise<(config: Config, options: Options) => Promise<number>>>
> = Object.freeze({
  'move-blobs': async () => {
    const { moveBlobs } = await import('./move-blobs/command.ts')
    return (config, { to }) => moveBlobs(config, to)
  },
  'adopt-store': async () => {
    const { adoptStore } = await import('./adopt-store/command.ts')
    return (config, { yes = false }) => adoptStore(config, { yes })
  },
  sweep: async () => {
    const { sweep } = await import('./janitor/command.ts')
    return (config, { yes = false }) => sweep(config, { yes })
  },
})

const OPTIONS = Object.freeze({
  'print-config': { type: 'boolean' },
  to: { type: 'string' },
  yes: { type: 'boolean' },
  regions: { type: 'string' },
  port: { type: 'string' },
  kafka: { type: 'string' },
} as const)

async function main(): Promise<void> {
  const { values, names, positionals, command } = commandLine(process.argv.slice(2))
  if (values['print-config']) {
    process.stdout.write(`${printConfig(process.env)}\n`)
    return
  }
  if (positionals.length === 0 || positionals.includes('world')) {
    const { configuresRegion, runWorld } = await import('./world/command.ts')
    const configured = positionals.length === 0 ? configuresRegion(process.env) : undefined
    if (configured === undefined) {
      using stop = stopRequest(process.env)
      return runWorld(values, process.env, stop.requested)
    }
    process.stdout.write(`${configured} is set, so this is one region and not a world.\n`)
  }
  const config = loadConfig(process.env)
  if (command !== undefined) {
    process.exitCode = await (await command())(config, values)
    return
  }
  using stop = stopRequest(process.env)
  // Checked before a database is created or a schema is changed, so that a port in use or a missing accounts file
  // is reported immediately.
  if (names.includes('api') && !isApiChild(config)) {
    await requireFree(config.listen)
    await (await import('./api/open-auth.ts')).requireAccounts(config)
  }
  if (config.metricsListen !== undefined) await requireFree(config.metricsListen)
  await using running = new AsyncDisposableStack()
  // The start may wait a long time for a database that does not answer or that another node is migrating.
  const starting = stop.boundStart(config.drainSeconds * 1_000)
  const region = running.use(await openRegion(config))
  let port: number | undefined
  let { text: metricsText } = region.metrics
  for (const name of names) {
    const load = SERVICES[name] as () => Promise<Start>
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
        onError: (error) => region.logFailure(error, 'a probe failed'),
      }),
    )
  }
  starting[Symbol.dispose]()
  using _memory = giveBackIdleMemory()
  if (config.child !== undefined)
    running.use((await import('./processes.ts')).joinParent(region, stop.request))
  else process.stdout.write(greeting(config, port))
  const reason = await Promise.race([stop.requested, region.failed])
  if (reason instanceof Error) throw reason
}

/** @throws OperatorError for an unknown service or option; the message suggests the nearest name */
function commandLine(args: readonly string[]) {
  const { values, positionals, tokens } = parseArgs({
    args: [...args],
    options: OPTIONS,
    allowPositionals: true,
    strict: false,
    tokens: true,
  })
  for (const token of tokens) {
    if (token.kind !== 'option') continue
    const option = OPTIONS[token.name as keyof typeof OPTIONS]
    if (option === undefined) {
      const meant = nearest(token.name, Object.keys(OPTIONS))
      throw new OperatorError(`Unknown option "${token.rawName}". The nearest is --${meant}.`)
    }
    if ((option.type === 'string') !== (token.value !== undefined)) {
      throw new OperatorError(
        `The option ${token.rawName} ${option.type === 'string' ? 'requires a value' : 'does not take a value'}.`,
      )
    }
  }
  const commands = Object.keys(COMMANDS)
  const known = ['world', 'all', ...Object.keys(SERVICES), ...commands]
  for (const name of positionals) {
    if (known.includes(name)) continue
    throw new OperatorError(
      `Unknown service "${name}". The nearest is ${nearest(name, known)}. Choose from ${known.join(', ')}.`,
    )
  }
  const alone = positionals.find((name) => commands.includes(name))
  if (alone !== undefined && positionals.length > 1)
    throw new OperatorError(`${alone} runs alone. Start the services in other processes.`)
  if (positionals.includes('world') && positionals.length > 1)
    throw new OperatorError('world runs alone. It starts the services of its regions itself.')
  const all = positionals.length === 0 || positionals.includes('all')
  return {
    positionals,
    command: alone === undefined ? undefined : COMMANDS[alone],
    names: all ? Object.keys(SERVICES) : [...new Set(positionals)],
    values: values as Options,
  }
}

function isApiChild({ child }: Config): boolean {
  return child === 'api' || child === 'api-embedded'
}

try {
  await main()
} catch (thrown) {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown))
  process.stderr.write(`${error instanceof OperatorError ? error.message : error.stack}\n`)
  process.exitCode = 1
}
