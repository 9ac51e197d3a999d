// Opens the region's Kafka from the configuration. Imported only where needed: kafkajs takes a tenth of a second to
// load.

import { readFileSync } from 'node:fs'
import type { KafkaConfig } from '#shared/config/kafka.ts'
import { OperatorError } from '#shared/errors.ts'
import type { Log } from '#shared/observability/log.ts'
import { createKafkaBus, type KafkaBus } from './kafka-bus.ts'

/** @throws OperatorError if the file of the certificate authority cannot be read */
export function openKafka(
  config: KafkaConfig,
  context: { readonly name: string; readonly log: Log; readonly keys?: readonly string[] | undefined },
): KafkaBus {
  const { brokers, topic, tls, caFile, sasl } = config
  return createKafkaBus({
    brokers,
    topic,
    clientId: `portolan-${context.name}`,
    tls: tls ? { ca: caFile === undefined ? undefined : authority(caFile) } : undefined,
    sasl,
    keys: context.keys,
    onLine: (line) => context.log.debug({ line }, 'kafkajs'),
  })
}

function authority(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (thrown) {
    throw new OperatorError(`PORTOLAN_KAFKA_CA_FILE cannot be read: ${(thrown as Error).message}`)
  }
}
