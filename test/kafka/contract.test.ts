// The contract of Bus on Apache Kafka. Each test has its own topic.
// tests: shared/bus/kafka-bus.ts

import { randomUUID } from 'node:crypto'
import { after, before, describe } from 'node:test'
import { createKafkaBus, type KafkaBus } from '#shared/bus/kafka-bus.ts'
import { busContract } from '../contract/bus.ts'
import { publishLog } from '../support/kafka-log.ts'
import { fillLog } from '../support/log-writer.ts'
import { type KafkaCluster, startKafka, withoutKafka } from '../support/parts/kafka.ts'
import { testRegion } from '../support/region.ts'

describe('kafka', { skip: withoutKafka() }, () => {
  let cluster: KafkaCluster
  before(async () => {
    cluster = await startKafka()
  })
  after(() => cluster[Symbol.asyncDispose]())

  busContract('Kafka', async (t) => {
    const { region } = await testRegion(t)
    const topic = `test.${randomUUID()}`
    const open: KafkaBus[] = []
    const another = () => {
      const bus = createKafkaBus({
        brokers: cluster.brokers.map(({ address }) => address),
        topic,
        clientId: 'test',
        tls: undefined,
        sasl: undefined,
        // Signed and verified, as between regions.
        keys: ['a-key-of-the-regions-0123456789-0123456789'],
      })
      open.push(bus)
      return bus
    }
    const bus = another()
    t.after(async () => {
      for (const one of open) await one[Symbol.asyncDispose]()
    })
    await bus.ensureTopic({ retentionSeconds: 3600, replicas: undefined })
    const publish = publishLog(region, bus)
    return {
      bus,
      another,
      async emit(options) {
        await fillLog(region, options)
        await publish()
      },
    }
  })
})
