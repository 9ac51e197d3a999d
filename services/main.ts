// The entry: names of services -> configuration -> region -> services -> wait -> drain.
//
//   main.ts [world]          regions eu and us behind one port, for a look; only if nothing is configured
//   main.ts all              one whole region in this process
//   main.ts api janitor      some of its services
//   main.ts move-blobs --to s3   moves the region's blobs to another store and ends
//   main.ts adopt-store --yes    makes the store that is configured this database's and ends
//   main.ts sweep --yes          removes what no row names, whatever the sweep's limits say, and ends
//   main.ts --print-config   the effective configuration, secrets masked
//
// It runs until SIGINT, SIGTERM, SIGHUP, the end of what it cannot do without, or the end of the npm that started it
// (stop-request.ts). An OperatorError is one sentence on standard error and exit code 1; a bug has its stack.

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

/** Loaded when asked for: a process has only what it runs. */
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

/** What runs alone and ends: returns the exit code. */
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
  // Before a database is made or a schema changed: a port in use and a missing file of accounts are told at once.
  if (names.includes('api') && !isApiChild(config)) {
    await requireFree(config.listen)
    await (await import('./api/open-auth.ts')).requireAccounts(config)
  }
  if (config.metricsListen !== undefined) await requireFree(config.metricsListen)
  await using running = new AsyncDisposableStack()
  // A database that others migrate or that does not answer may be waited for long.
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

/** @throws OperatorError naming the nearest service or option to one that there is not */
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
      throw new OperatorError(`There is no option "${token.rawName}"; the nearest is --${meant}.`)
    }
    if ((option.type === 'string') !== (token.value !== undefined)) {
      throw new OperatorError(
        `The option ${token.rawName} ${option.type === 'string' ? 'needs a value' : 'has no value'}.`,
      )
    }
  }
  const commands = Object.keys(COMMANDS)
  const known = ['world', 'all', ...Object.keys(SERVICES), ...commands]
  for (const name of positionals) {
    if (known.includes(name)) continue
    throw new OperatorError(
      `There is no service "${name}"; the nearest is ${nearest(name, known)}: choose from ${known.join(', ')}.`,
    )
  }
  const alone = positionals.find((name) => commands.includes(name))
  if (alone !== undefined && positionals.length > 1)
    throw new OperatorError(`${alone} runs alone: start the services in other processes.`)
  if (positionals.includes('world') && positionals.length > 1)
    throw new OperatorError('world runs alone: it starts the services of its regions itself.')
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
