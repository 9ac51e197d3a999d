// Settings of other regions, and of the keys that regions share.

import { type KafkaConfig, type KafkaConnection, topicOf } from './kafka.ts'
import { brokers, byRegion, keyList, publicUrl } from './parsers.ts'
import { optional, type Parsed, secret, type Values } from './variable.ts'

export const peerVariables = Object.freeze({
  PORTOLAN_PEERS: optional(
    byRegion(publicUrl),
    'Other regions: `us=https://us.example,ap=https://ap.example`. Each is followed, and may follow this one. Unset, ' +
      'this region is alone.',
  ),
  PORTOLAN_PEERS_KAFKA: optional(
    byRegion((text) => brokers(text.replaceAll('+', ','))),
    "Brokers of other regions' Kafka, as far as they are in reach: `us=k1:9093+k2:9093`. TLS and SASL settings are this " +
      "region's, topics have their default names. A peer without brokers is followed by HTTP alone.",
  ),
  PORTOLAN_PEER_KEYS: secret(
    keyList,
    'Comma-separated keys that all regions share. The first signs requests to other regions; each is accepted, so ' +
      'that keys can be rotated. Unset, no other region can read the log.',
  ),
  PORTOLAN_SECRETS_KEY: secret(
    keyList,
    'Comma-separated keys that encrypt secrets in the database, the same in all nodes and regions. The first encrypts; ' +
      'each decrypts, so that keys can be rotated. Unset, the embedded database uses a key of its own in `secrets-key` ' +
      'under the data directory; another database needs one for accounts and webhooks.',
  ),
})

export interface PeerConfig {
  readonly name: string
  /** Its origin: scheme, host, port. */
  readonly url: string
  /** undefined: it is followed by HTTP alone. */
  readonly kafka: KafkaConfig | undefined
}

export interface PeersConfig {
  /** Other regions, in bytewise order of their names. Empty: this region is alone. */
  readonly peers: readonly PeerConfig[]
  /** Secrets that regions share; the first signs. undefined: no other region may ask. */
  readonly peerKeys: readonly string[] | undefined
  /** Keys that seal secrets in the database; the first seals. undefined: the data directory may hold one. */
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
