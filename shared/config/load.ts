// Loads the configuration from the environment once and freezes it. No other file reads the environment.
//
// All problems are reported together, including contradictions. An unknown PORTOLAN_ name is a problem, because a
// misspelt variable that is silently ignored is the most common cause of an outage. A secret may come from a file
// (`<NAME>_FILE`). Infrastructure that is not configured is embedded, unless PORTOLAN_EMBEDDED=forbid.

import { readFileSync } from 'node:fs'
import { OperatorError } from '#shared/errors.ts'
import { type AuthConfig, authConfig, authProblems, authVariables } from './auth.ts'
import { blobProblems, blobVariables, type StoresConfig, storesConfig } from './blobs.ts'
import { type DatabaseConfig, databaseConfig, databaseVariables, embeddedProblems } from './database.ts'
import { type EventsConfig, eventsConfig, eventVariables } from './events.ts'
import { type JanitorConfig, janitorConfig, janitorVariables } from './janitor.ts'
import { type KafkaConfig, kafkaConfig, kafkaConnection, kafkaProblems, kafkaVariables } from './kafka.ts'
import { type ByteLimits, limitsConfig, limitVariables, type RegistryLimits } from './limits.ts'
import { ConfigValueError } from './parsers.ts'
import { type PeersConfig, peerProblems, peersConfig, peerVariables } from './peers.ts'
import { type ServerConfig, serverConfig, serverVariables } from './server.ts'
import { nearest, nearlyBegins } from './spelling.ts'
import type { Parsed, Values, Variable } from './variable.ts'
import { type WebhooksConfig, webhooksConfig, webhookVariables } from './webhooks.ts'

/** The concerns, in the order of the documentation. */
export const concerns = Object.freeze({
  Server: serverVariables,
  'Database and embedded parts': databaseVariables,
  Blobs: blobVariables,
  Kafka: kafkaVariables,
  'Other regions': peerVariables,
  'Accounts and access': authVariables,
  Limits: limitVariables,
  Events: eventVariables,
  Webhooks: webhookVariables,
  Janitor: janitorVariables,
})

export const variables = Object.freeze({
  ...serverVariables,
  ...databaseVariables,
  ...blobVariables,
  ...kafkaVariables,
  ...peerVariables,
  ...authVariables,
  ...limitVariables,
  ...eventVariables,
  ...webhookVariables,
  ...janitorVariables,
})

export type VariableName = keyof typeof variables
export type Environment = Readonly<Record<string, string | undefined>>

export interface Config extends ServerConfig, StoresConfig, PeersConfig {
  readonly database: DatabaseConfig
  /** undefined if there is no Kafka: readers use the log. */
  readonly kafka: KafkaConfig | undefined
  readonly auth: AuthConfig
  readonly registry: RegistryLimits
  readonly bytes: ByteLimits
  readonly events: EventsConfig
  readonly webhooks: WebhooksConfig
  readonly janitor: JanitorConfig
  /**
   * Set by a parent process. `api`: one of several API processes that share the port. `api-embedded`: the same, and the
   * parent runs their database. `region`: a region of a world.
   */
  readonly child: 'api' | 'api-embedded' | 'region' | undefined
}

export class ConfigError extends OperatorError {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? 'a problem' : 'problems'}:\n  ${problems.join('\n  ')}`,
    )
    this.problems = problems
  }
}

/** Not for operators: a parent process tells its child processes their role here. */
const CHILD = 'PORTOLAN_CHILD'
const PREFIX = 'PORTOLAN_'

/** @throws ConfigError with every problem found */
export function loadConfig(environment: Environment): Config {
  return readConfig(environment).config
}

/**
 * Returns the configuration and the texts that it was parsed from. Each variable and each secret's file is read only
 * once, so the two cannot differ.
 * @throws ConfigError with every problem found
 */
export function readConfig(environment: Environment): {
  config: Config
  texts: ReadonlyMap<string, Text>
} {
  const { texts, problems } = readTexts(environment)
  problems.unshift(...unknownNames(environment))
  const values = parseTexts(texts, problems)
  const isSet = (name: string) => texts.get(name)?.given === true
  problems.push(
    ...embeddedProblems(values, isSet),
    ...blobProblems(values, isSet),
    ...kafkaProblems(values, isSet),
    ...peerProblems(values, isSet),
    ...authProblems(values, isSet),
  )
  if (problems.length > 0) throw new ConfigError(problems)
  return { config: deepFreeze(build(values as Values<typeof variables>, environment[CHILD])), texts }
}

function build(values: Values<typeof variables>, child: string | undefined): Config {
  const server = serverConfig(values)
  const auth = authConfig(values)
  return {
    ...server,
    ...storesConfig(values),
    ...peersConfig(values, kafkaConnection(values)),
    ...limitsConfig(values),
    database: databaseConfig(values, { byParent: child === 'api-embedded' }),
    kafka: kafkaConfig(values, server.region),
    auth,
    events: eventsConfig(values),
    webhooks: webhooksConfig(values, { listen: server.listen, authenticated: auth.mode !== 'none' }),
    janitor: janitorConfig(values),
    child: child === 'api' || child === 'api-embedded' || child === 'region' ? child : undefined,
  }
}

interface Text {
  /** undefined if it is unset and has no default. */
  readonly text: string | undefined
  /** False if it is the default. */
  readonly given: boolean
}

/** Reads the text of every variable from the environment, a secret's file, or its default. */
function readTexts(environment: Environment): {
  texts: Map<string, Text>
  problems: string[]
} {
  const texts = new Map<string, Text>()
  const problems: string[] = []
  for (const [name, definition] of Object.entries<Variable<unknown>>(variables)) {
    try {
      const text = givenText(environment, name, definition)
      texts.set(name, { text: text ?? definition.default, given: text !== undefined })
    } catch (thrown) {
      if (!(thrown instanceof ConfigValueError)) throw thrown
      problems.push(`${name} ${thrown.message}`)
      texts.set(name, { text: undefined, given: true })
    }
  }
  return { texts, problems }
}

const SECRET_FILE_BYTES_MAX = 64 * 1024

/** Returns undefined if unset. An empty text counts as unset if the variable has no default. */
function givenText(
  environment: Environment,
  name: string,
  definition: Variable<unknown>,
): string | undefined {
  const text = environment[name]
  const path = definition.mask === undefined ? undefined : environment[`${name}_FILE`]
  if (path === undefined) return text === '' && definition.default === undefined ? undefined : text
  if (text !== undefined) throw new ConfigValueError(`and ${name}_FILE are both set: choose one`)
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (thrown) {
    throw new ConfigValueError(`_FILE names a file that cannot be read: ${(thrown as Error).message}`)
  }
  if (content.length > SECRET_FILE_BYTES_MAX)
    throw new ConfigValueError('_FILE names a file that is too large')
  return content.trim()
}

function parseTexts(texts: ReadonlyMap<string, Text>, problems: string[]): Parsed<typeof variables> {
  const entries = Object.entries<Variable<unknown>>(variables).map(([name, { parse }]) => {
    const text = texts.get(name)?.text
    try {
      return [name, text === undefined ? undefined : parse(text)]
    } catch (thrown) {
      if (!(thrown instanceof ConfigValueError)) throw thrown
      problems.push(`${name} ${thrown.message}`)
      return [name, undefined]
    }
  })
  return Object.fromEntries(entries)
}

function unknownNames(environment: Environment): string[] {
  const known = new Set<string>(Object.keys(variables))
  for (const [name, { mask }] of Object.entries<Variable<unknown>>(variables))
    if (mask !== undefined) known.add(`${name}_FILE`)
  return Object.keys(environment)
    .filter((name) => name.startsWith(PREFIX) || nearlyBegins(name, PREFIX))
    .filter((name) => name !== CHILD && !name.startsWith('PORTOLAN_CI_') && !known.has(name))
    .map((name) => `${name} is unknown; the nearest name is ${nearest(name.toUpperCase(), [...known])}`)
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) deepFreeze(inner)
  return Object.freeze(value)
}
