// Apache Kafka for tests: real brokers in KRaft mode, each with its own port and directory. The jars come from Maven
// and are kept in the cache folder. A started broker is stopped by its PID. Without the jars or Java, tests skip with a
// visible line; under CI that is an error.
//
//   node test/support/parts/kafka.ts      downloads the jars

import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createWriteStream, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { eventually } from '../eventually.ts'
import { freePort } from '../portolan-process.ts'
import { cacheDirectory } from './tools.ts'

const run = promisify(execFile)
const VERSION = '4.4.0'
const MAVEN_TIMEOUT_MS = 10 * 60_000
const START_TIMEOUT_MS = 60_000

const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>portolan.test</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>${VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.5</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.6.1</version>
      </plugin>
    </plugins>
  </build>
</project>
`

function jarsDirectory(): string {
  return join(cacheDirectory(), `kafka-${VERSION}`)
}

async function installKafka(): Promise<void> {
  if (existsSync(jarsDirectory())) return
  await mkdir(cacheDirectory(), { recursive: true })
  const directory = await mkdtemp(join(cacheDirectory(), '.kafka-'))
  try {
    await writeFile(join(directory, 'pom.xml'), POM)
    const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', '-DoutputDirectory=libs']
    await run('mvn', ['-B', '-ntp', '-q', ...goal], { cwd: directory, timeout: MAVEN_TIMEOUT_MS })
    await rename(join(directory, 'libs'), jarsDirectory())
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** For a test's `skip`: false, or a line that names what is missing. */
export function withoutKafka(): string | false {
  const missing = !existsSync(jarsDirectory()) || !hasJava()
  if (missing && process.env.CI === 'true') throw new Error('CI has no Kafka: .ci/install installs it')
  return missing && 'Apache Kafka is missing (.ci/install installs it; it requires Java and Maven)'
}

function hasJava(): boolean {
  try {
    execFileSync('java', ['-version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

export interface KafkaBroker {
  /** host:port */
  readonly address: string
  readonly pid: number
  kill(signal: NodeJS.Signals): void
  /** Restarts the broker after a kill, on the same port and data. */
  restart(): Promise<void>
}

export interface KafkaCluster extends AsyncDisposable {
  readonly brokers: readonly KafkaBroker[]
  /** The Portolan settings for this cluster. */
  readonly env: Readonly<Record<string, string>>
}

export interface KafkaOptions {
  /** The first one is the controller. */
  brokers?: 1 | 2
  /** Use TLS with this certificate for 127.0.0.1, and these accounts. */
  secure?: { pem: string; caFile: string; user: string; password: string }
  /** Additional lines for server.properties. */
  properties?: readonly string[]
  /** Do not start now; `restart` starts it later. */
  stopped?: boolean
}

const SASL_MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']

export async function startKafka(options: KafkaOptions = {}): Promise<KafkaCluster> {
  const { brokers: count = 1, stopped = false } = options
  const directory = await mkdtemp(join(tmpdir(), 'portolan-kafka-'))
  // An ID that begins with a hyphen would be parsed as an option.
  const clusterId = Buffer.concat([Buffer.of(0), randomBytes(15)]).toString('base64url')
  const controllerPort = await freePort()
  const children: ChildProcess[] = []
  const brokers: KafkaBroker[] = []
  for (let node = 1; node <= count; node++) {
    const port = await freePort()
    const home = join(directory, String(node))
    await mkdir(home)
    const file = join(home, 'server.properties')
    await writeFile(file, properties({ ...options, node, port, controllerPort, home }).join('\n'))
    const scram = (options.secure === undefined ? [] : SASL_MECHANISMS.slice(1)).flatMap((mechanism) => [
      '--add-scram',
      `${mechanism}=[name=${options.secure?.user},password=${options.secure?.password}]`,
    ])
    await java(
      ['-Xmx128m', '-XX:TieredStopAtLevel=1'],
      ['kafka.tools.StorageTool', 'format', node === 1 ? '--standalone' : '--no-initial-controllers'],
      ['--ignore-formatted', '-t', clusterId, '-c', file, ...(node === 1 ? scram : [])],
    )
    const start = async () => {
      const child = spawn('java', [...SERVER_FLAGS, '-cp', `${jarsDirectory()}/*`, 'kafka.Kafka', file], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      children[node] = child
      let log = ''
      child.stdout?.on('data', (chunk: Buffer) => {
        log = (log + chunk.toString()).slice(-64 * 1024)
      })
      if (process.env.TEST_KAFKA_LOG !== undefined) {
        child.stdout?.pipe(createWriteStream(`${process.env.TEST_KAFKA_LOG}.${node}`))
      }
      await eventually(
        'Kafka to be up',
        () => {
          if (child.exitCode !== null) throw new Error(`Kafka ended:\n${log}`)
          return log.includes('Kafka Server started')
        },
        START_TIMEOUT_MS,
      )
    }
    brokers.push({
      address: `127.0.0.1:${port}`,
      get pid() {
        return children[node]?.pid ?? 0
      },
      kill: (signal) => children[node]?.kill(signal),
      async restart() {
        await ended(children[node])
        await start()
      },
    })
    if (!stopped) await start()
  }
  return {
    brokers,
    env: {
      PORTOLAN_KAFKA_BROKERS: brokers.map(({ address }) => address).join(','),
      ...(options.secure !== undefined && {
        PORTOLAN_KAFKA_TLS: 'true',
        PORTOLAN_KAFKA_CA_FILE: options.secure.caFile,
        PORTOLAN_KAFKA_USERNAME: options.secure.user,
        PORTOLAN_KAFKA_PASSWORD: options.secure.password,
      }),
    },
    async [Symbol.asyncDispose]() {
      for (const child of children) child?.kill('SIGKILL')
      for (const child of children) await ended(child)
      await rm(directory, { recursive: true, force: true })
    },
  }
}

const SERVER_FLAGS = [
  '-Xms128m',
  '-Xmx256m',
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-XX:MaxDirectMemorySize=128m',
  '-Dorg.apache.logging.log4j.level=INFO',
]

async function java(flags: readonly string[], main: readonly string[], rest: readonly string[]) {
  await run('java', [...flags, '-cp', `${jarsDirectory()}/*`, ...main, ...rest])
}

function ended(child: ChildProcess | undefined): Promise<void> {
  return new Promise((done) => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) done()
    else child.once('exit', () => done())
  })
}

function properties(
  options: KafkaOptions & { node: number; port: number; controllerPort: number; home: string },
): string[] {
  const { node, port, controllerPort, home, secure } = options
  const first = node === 1
  const client = secure === undefined ? 'PLAINTEXT' : 'SASL_SSL'
  const controller = `CONTROLLER://127.0.0.1:${controllerPort}`
  // Brokers connect to each other in plain text. Clients use TLS if it is configured.
  const listeners = [`${client}://127.0.0.1:${port}`, ...(first ? [controller] : [])].join(',')
  const jaas =
    secure === undefined
      ? []
      : [
          `listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="${secure.user}" password="${secure.password}" user_${secure.user}="${secure.password}";`,
          ...['256', '512'].map(
            (bits) =>
              `listener.name.sasl_ssl.scram-sha-${bits}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="${secure.user}" password="${secure.password}";`,
          ),
          `sasl.enabled.mechanisms=${SASL_MECHANISMS.join(',')}`,
          'sasl.mechanism.inter.broker.protocol=PLAIN',
          'ssl.keystore.type=PEM',
          `ssl.keystore.location=${secure.pem}`,
          'ssl.truststore.type=PEM',
          `ssl.truststore.location=${secure.caFile}`,
        ]
  return [
    `process.roles=${first ? 'broker,controller' : 'broker'}`,
    `node.id=${node}`,
    `controller.quorum.bootstrap.servers=127.0.0.1:${controllerPort}`,
    'controller.listener.names=CONTROLLER',
    'listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL',
    `listeners=${listeners}`,
    `advertised.listeners=${listeners}`,
    `inter.broker.listener.name=${client}`,
    `log.dirs=${join(home, 'data')}`,
    'auto.create.topics.enable=false',
    'default.replication.factor=1',
    'min.insync.replicas=1',
    'offsets.topic.replication.factor=1',
    'offsets.topic.num.partitions=4',
    'transaction.state.log.replication.factor=1',
    'transaction.state.log.min.isr=1',
    'share.coordinator.state.topic.replication.factor=1',
    'share.coordinator.state.topic.min.isr=1',
    'group.initial.rebalance.delay.ms=0',
    'group.min.session.timeout.ms=1000',
    'broker.session.timeout.ms=3000',
    'broker.heartbeat.interval.ms=500',
    'log.retention.check.interval.ms=1000',
    'log.initial.task.delay.ms=500',
    'log.cleaner.dedupe.buffer.size=16777216',
    ...jaas,
    ...(options.properties ?? []),
    '',
  ]
}

/** Creates a certificate for 127.0.0.1 in the broker's format, and the CA that clients trust. */
export async function kafkaCertificate(directory: string): Promise<{ pem: string; caFile: string }> {
  const at = (name: string) => join(directory, name)
  const subject = ['-subj', '/CN=portolan-test-ca']
  await run('openssl', [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...subject],
    ...['-keyout', at('ca.key'), '-out', at('ca.crt')],
  ])
  await run('openssl', [
    ...['req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=127.0.0.1'],
    ...['-keyout', at('broker.key'), '-out', at('broker.csr')],
  ])
  await writeFile(at('san'), 'subjectAltName=IP:127.0.0.1')
  await run('openssl', [
    ...['x509', '-req', '-days', '2', '-in', at('broker.csr'), '-CA', at('ca.crt'), '-CAkey', at('ca.key')],
    ...['-CAcreateserial', '-extfile', at('san'), '-out', at('broker.crt')],
  ])
  const parts = await Promise.all(['broker.key', 'broker.crt', 'ca.crt'].map((name) => readFile(at(name))))
  await writeFile(at('broker.pem'), Buffer.concat(parts))
  return { pem: at('broker.pem'), caFile: at('ca.crt') }
}

if (import.meta.main) {
  const startMs = performance.now()
  await installKafka()
  process.stdout.write(`kafka: ${Math.round((performance.now() - startMs) / 1000)} s\n`)
}
