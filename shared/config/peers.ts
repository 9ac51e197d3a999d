// Settings of other regions and of the keys that regions share.

import { type KafkaConfig, type KafkaConnection, topicOf } from './kafka.ts'
import { brokersByRegion, byRegion, keyList, publicUrl } from './parsers.ts'
import { optional, type Parsed, secret, type Values } from './variable.ts'

export const peerVariables = Object.freeze({
  PORTOLAN_PEERS: optional(
    byRegion(publicUrl),
    'Other regions: `us=https://us.example,ap=https://ap.example`. This region follows each, and each may follow ' +
      'this one. If unset, there are no other regions.',
  ),
  PORTOLAN_PEERS_KAFKA: optional(
    brokersByRegion,
    "Kafka brokers of other regions, where reachable: `us=k1:9093+k2:9093`. TLS and SASL settings are this region's; " +
      'topics have their default names. A peer without brokers is followed only by HTTP.',
  ),
  PORTOLAN_PEER_KEYS: secret(
    keyList,
    'Comma-separated keys that all regions share. The first signs requests to other regions; all are accepted, so ' +
      'that keys can be rotated. If unset, no other region can read the log.',
  ),
  PORTOLAN_SECRETS_KEY: secret(
    keyList,
    'Comma-separated keys that encrypt secrets in the database. All nodes and regions need the same keys. The first ' +
      'encrypts; all decrypt, so that keys can be rotated. If unset, the embedded database uses a generated key in ' +
      '`secrets-key` under the data directory; any other database needs a key here for accounts and webhooks.',
  ),
})

export interface PeerConfig {
  readonly name: string
  /** Its origin: scheme, host and port. */
  readonly url: string
  /** undefined: the peer is followed only by HTTP. */
  readonly kafka: KafkaConfig | undefined
}

export interface PeersConfig {
  /** Other regions, in bytewise order of their names. Empty if there are none. */
  readonly peers: readonly PeerConfig[]
  /** Secrets that all regions share. The first one signs. undefined: no other region may read the log. */
  readonly peerKeys: readonly string[] | undefined
  /** Keys that seal secrets in the database. The first one seals. undefined: the data directory may hold a key. */
  readonly secretsKeys: readonly string[] | undefined
}

export function peersConfig(values: Values<typeof peerVariables>, connection: KafkaConnection): PeersConfig {
  const kafkaOf = (name: string): KafkaConfig | undefined => {
    const list = values.PORTOLAN_PEERS_KAFKA?.get(name) ?? []
    if (list.length === 0) return undefined
    return { brokers: list, topic: topicOf(name), replicas: undefined, ...connection }
  }
  const peers = [...(values.PORTOLAN_PEERS ?? [])].map(([name, url]) => ({
    name,
    url,
    kafka: kafkaOf(name),
  }))
  return {
    peers: peers.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name))),
    peerKeys: values.PORTOLAN_PEER_KEYS,
    secretsKeys: values.PORTOLAN_SECRETS_KEY,
  }
}

export function peerProblems(
  values: Parsed<typeof peerVariables> & { readonly PORTOLAN_REGION: string | undefined },
  isSet: (name: string) => boolean,
): string[] {
  const { PORTOLAN_PEERS: peers, PORTOLAN_PEERS_KAFKA: kafka, PORTOLAN_REGION: region } = values
  const problems: string[] = []
  if (peers !== undefined && !isSet('PORTOLAN_PEER_KEYS'))
    problems.push('PORTOLAN_PEERS needs PORTOLAN_PEER_KEYS, the same in all regions')
  if (region !== undefined && peers?.has(region))
    problems.push(`PORTOLAN_PEERS names "${region}", which is this region (PORTOLAN_REGION)`)
  for (const name of kafka?.keys() ?? [])
    if (!peers?.has(name))
      problems.push(`PORTOLAN_PEERS_KAFKA names "${name}", which PORTOLAN_PEERS does not`)
  return problems
}
