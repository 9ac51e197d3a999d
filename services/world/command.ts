// The world: several regions on one machine behind one port. It shows what Portolan does without installing anything.
//
//   npm start                        regions eu and us behind localhost:5000
//   npm start -- world --regions eu,us,ap --port 5000 --kafka eu=localhost:9092,us=localhost:9093
//
// Each region is a separate process (region-process.ts). Their registries listen on the ports after the balancer's port,
// their metrics 1,000 ports higher. The regions share two keys in the data directory: `peer-key` signs requests between
// them, `secrets-key` encrypts secrets. They share nothing else: kill one process, and one region is lost.

import { join, resolve } from 'node:path'
import { brokersByRegion, integer, regionName, words } from '#shared/config/parsers.ts'
import { makeDurableDirectory } from '#shared/embedded/durable-directory.ts'
import { OperatorError } from '#shared/errors.ts'
import { requireFree } from '#shared/observability/listen.ts'
import { makeKeyFile } from '#shared/secrets/key-file.ts'
import { secretsKeyPath } from '#shared/secrets/secrets-key.ts'
import { startBalancer } from './balancer.ts'
import { type RegionProcess, startRegionProcess } from './region-process.ts'

const REGIONS_MAX = 9
const METRICS_PORT_ABOVE = 1_000

export interface WorldOptions {
  readonly regions?: string | undefined
  readonly port?: string | undefined
  readonly kafka?: string | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** Variables that a world accepts. If any other is set, `npm start` runs one region, as configured. */
const WORLD_VARIABLES: readonly string[] = Object.freeze(['PORTOLAN_DATA_DIR', 'PORTOLAN_LOG_LEVEL'])

/** Returns the first variable that configures a region; undefined if there is none. */
export function configuresRegion(environment: Environment): string | undefined {
  return Object.keys(environment).find(
    (name) =>
      name.startsWith('PORTOLAN_') && !name.startsWith('PORTOLAN_CI_') && !WORLD_VARIABLES.includes(name),
  )
}

/** Runs until `stop` resolves. @throws OperatorError for what stands in the way */
export async function runWorld(
  options: WorldOptions,
  environment: Environment,
  stop: PromiseLike<void>,
): Promise<void> {
  const { regions, port, kafka } = parsed(options)
  const places = regions.map((name, index) => ({ name, port: port + 1 + index }))
  // Before anything is created: a port in use is reported at once.
  for (const each of [port, ...places.flatMap((place) => [place.port, metricsPort(place)])])
    await requireFree({ host: 'localhost', port: each })
  const data = resolve(environment.PORTOLAN_DATA_DIR || '.portolan')
  await makeKeys(data, regions)
  await using running = new AsyncDisposableStack()
  let greeted = false
  const say = (line: string) => process.stdout.write(`${line}\n`)
  const processes = places.map((place) => {
    const others = places.filter((other) => other !== place)
    return running.use(
      startRegionProcess({
        name: place.name,
        environment: regionEnvironment(environment, { place, others, data, kafka }),
        onEnd: (how) => say(`The region ${place.name} ended (${how}); it restarts in 10 s.`),
        onReady: (pid) => greeted && say(`The region ${place.name} is back, with pid ${pid}.`),
        onProblem: (error) => say(error instanceof Error ? error.message : String(error)),
      }),
    )
  })
  await Promise.all(processes.map(({ ready }) => ready))
  running.use(
    await startBalancer({
      listen: { host: 'localhost', port },
      regions: places,
      onChange: (name, ready) => greeted && say(`The region ${name} is ${ready ? 'ready' : 'not ready'}.`),
    }),
  )
  say(greeting({ port, places, processes, data }))
  greeted = true
  await stop
  // All regions drain at once, with the balancer still in front of them: requests in progress finish.
  await Promise.all(processes.map((region) => region[Symbol.asyncDispose]()))
}

interface Place {
  readonly name: string
  readonly port: number
}

function metricsPort({ port }: Place): number {
  return port + METRICS_PORT_ABOVE
}

function parsed(options: WorldOptions) {
  const read = <T>(name: string, text: string, parse: (text: string) => T): T => {
    try {
      return parse(text)
    } catch (thrown) {
      throw new OperatorError(`--${name} ${(thrown as Error).message}.`, { cause: thrown })
    }
  }
  const regions = read('regions', options.regions ?? 'eu,us', (text) => words(text).map(regionName))
  if (regions.length < 1 || regions.length > REGIONS_MAX || new Set(regions).size < regions.length)
    throw new OperatorError(`--regions needs one to ${REGIONS_MAX} names, each once.`)
  const port = read('port', options.port ?? '5000', integer({ min: 1, max: 60_000 }))
  const kafka = read('kafka', options.kafka ?? '', (text) =>
    text === '' ? new Map<string, readonly string[]>() : brokersByRegion(text),
  )
  const stranger = [...kafka.keys()].find((name) => !regions.includes(name))
  if (stranger !== undefined) throw new OperatorError(`--kafka names "${stranger}", which is no region here.`)
  return { regions, port, kafka }
}

/** Creates the key for requests between regions, and the key for secrets in each region's directory. */
async function makeKeys(data: string, regions: readonly string[]): Promise<void> {
  await makeDurableDirectory(data, { mode: 0o711 })
  await makeKeyFile(join(data, 'peer-key'))
  let shared: string | undefined
  for (const name of regions) {
    const directory = join(data, name)
    await makeDurableDirectory(directory, { mode: 0o711 })
    shared = await makeKeyFile(secretsKeyPath(directory), shared)
  }
}

function regionEnvironment(
  environment: Environment,
  context: {
    place: Place
    others: readonly Place[]
    data: string
    kafka: ReadonlyMap<string, readonly string[]>
  },
): Record<string, string | undefined> {
  const { place, others, data, kafka } = context
  const own = kafka.get(place.name)
  const theirs = others.filter(({ name }) => kafka.has(name))
  return {
    ...environment,
    PORTOLAN_CHILD: 'region',
    PORTOLAN_REGION: place.name,
    PORTOLAN_DATA_DIR: data,
    // The balancer's checks would fill the terminal.
    PORTOLAN_LOG_LEVEL: environment.PORTOLAN_LOG_LEVEL || 'warn',
    PORTOLAN_LISTEN: `localhost:${place.port}`,
    PORTOLAN_METRICS_LISTEN: `localhost:${metricsPort(place)}`,
    PORTOLAN_PEERS: others.map(({ name, port }) => `${name}=http://127.0.0.1:${port}`).join(',') || undefined,
    PORTOLAN_PEER_KEYS_FILE: join(data, 'peer-key'),
    ...(own !== undefined && { PORTOLAN_KAFKA_BROKERS: own.join(',') }),
    ...(theirs.length > 0 && {
      PORTOLAN_PEERS_KAFKA: theirs.map(({ name }) => `${name}=${kafka.get(name)?.join('+')}`).join(','),
    }),
  }
}

function greeting(context: {
  port: number
  places: readonly Place[]
  processes: readonly RegionProcess[]
  data: string
}): string {
  const { port, places, processes, data } = context
  const names = places.map(({ name }) => name)
  return [
    '',
    `Portolan, ${names.length === 1 ? 'a world of one region' : `a world of ${names.length} regions`}`,
    `  registry   http://localhost:${port}  (the first region that is ready: ${names.join(', ')})`,
    ...places.map(
      (place, index) =>
        `  ${place.name.padEnd(9)}  http://localhost:${place.port}  pid ${processes[index]?.pid}, metrics http://localhost:${metricsPort(place)}/metrics`,
    ),
    `  try        docker tag hello-world localhost:${port}/hello && docker push localhost:${port}/hello`,
    `             docker pull localhost:${places.at(-1)?.port}/hello`,
    `  data       ${data}`,
    '  stop       Ctrl-C',
    '',
  ].join('\n')
}
