// Settings of this region's Kafka.

import { brokers, flag, integer, oneOf, plain, topicName } from './parsers.ts'
import { optional, type Parsed, secret, type Values, variable } from './variable.ts'

export const kafkaVariables = Object.freeze({
  PORTOLAN_KAFKA_BROKERS: optional(
    brokers,
    "`host:port` list of this region's Kafka brokers. Kafka receives every event. If unset or `none`, readers use " +
      'the log in the database.',
  ),
  PORTOLAN_KAFKA_TOPIC: optional(
    topicName,
    "Topic of this region's events. If unset, it is `portolan.<region>.events`. Each region needs its own topic.",
  ),
  PORTOLAN_KAFKA_REPLICAS: optional(
    integer({ min: 1, max: 9 }),
    'Replicas of the topic if Portolan creates it. If unset, one per broker, up to three. With three or more, two ' +
      'must acknowledge each event.',
  ),
  PORTOLAN_KAFKA_TLS: variable(flag, 'false', '`true` uses TLS for connections to the brokers.'),
  PORTOLAN_KAFKA_CA_FILE: optional(
    plain,
    "File of the certificate authority that signed the brokers' certificates. If unset, the system's are used.",
  ),
  PORTOLAN_KAFKA_SASL: variable(
    oneOf('scram-sha-512', 'scram-sha-256', 'plain'),
    'scram-sha-512',
    'SASL mechanism, used if PORTOLAN_KAFKA_USERNAME is set. `plain` sends the password and requires TLS.',
  ),
  PORTOLAN_KAFKA_USERNAME: optional(plain, 'Account on the brokers. If unset, there is no authentication.'),
  PORTOLAN_KAFKA_PASSWORD: secret(plain, 'Password of that account.'),
})

export interface KafkaConfig extends KafkaConnection {
  /** `host:port` of each broker. */
  readonly brokers: readonly string[]
  readonly topic: string
  /** undefined: one per broker, up to three. */
  readonly replicas: number | undefined
}

/** How to connect to the brokers of this region and of other regions. */
export interface KafkaConnection {
  readonly tls: boolean
  readonly caFile: string | undefined
  readonly sasl:
    | {
        readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
        readonly username: string
        readonly password: string
      }
    | undefined
}

/** Returns undefined if there is no Kafka. Readers then use the log. */
export function kafkaConfig(values: Values<typeof kafkaVariables>, region: string): KafkaConfig | undefined {
  const list = values.PORTOLAN_KAFKA_BROKERS ?? []
  if (list.length === 0) return undefined
  return {
    brokers: list,
    topic: values.PORTOLAN_KAFKA_TOPIC ?? topicOf(region),
    replicas: values.PORTOLAN_KAFKA_REPLICAS,
    ...kafkaConnection(values),
  }
}

export function kafkaConnection(values: Values<typeof kafkaVariables>): KafkaConnection {
  const { PORTOLAN_KAFKA_USERNAME: username, PORTOLAN_KAFKA_PASSWORD: password } = values
  const sasl =
    username === undefined || password === undefined
      ? undefined
      : { mechanism: values.PORTOLAN_KAFKA_SASL, username, password }
  return { tls: values.PORTOLAN_KAFKA_TLS, caFile: values.PORTOLAN_KAFKA_CA_FILE, sasl }
}

/** Returns the default topic of a region. */
export function topicOf(region: string): string {
  return `portolan.${region}.events`
}

export function kafkaProblems(
  values: Parsed<typeof kafkaVariables>,
  isSet: (name: keyof typeof kafkaVariables) => boolean,
): string[] {
  const withoutTls = values.PORTOLAN_KAFKA_TLS === false
  const problems: string[] = []
  if (isSet('PORTOLAN_KAFKA_USERNAME') !== isSet('PORTOLAN_KAFKA_PASSWORD'))
    problems.push('PORTOLAN_KAFKA_USERNAME and PORTOLAN_KAFKA_PASSWORD must be set together')
  if (isSet('PORTOLAN_KAFKA_USERNAME') && values.PORTOLAN_KAFKA_SASL === 'plain' && withoutTls)
    problems.push('PORTOLAN_KAFKA_SASL=plain sends the password: it requires PORTOLAN_KAFKA_TLS=true')
  if (isSet('PORTOLAN_KAFKA_CA_FILE') && withoutTls)
    problems.push('PORTOLAN_KAFKA_CA_FILE needs PORTOLAN_KAFKA_TLS=true')
  return problems
}
