// A reader in a separate process, to be frozen and killed. It sends the IDs of received events to its parent. On a
// message from the parent, it disposes of its subscription and exits.
//
//   node kafka-reader-node.ts BROKERS TOPIC GROUP

import { createKafkaBus } from '#shared/bus/kafka-bus.ts'

const [brokers = '', topic = '', group = ''] = process.argv.slice(2)
const bus = createKafkaBus({
  brokers: brokers.split(','),
  topic,
  clientId: 'reader',
  tls: undefined,
  sasl: undefined,
})
const subscription = bus.subscribe({
  group,
  position: async (shard) => ({ shard, epoch: 1, seq: 0 }),
  async handle({ shard, events }) {
    process.send?.({ shard, ids: events.map(({ id }) => id) })
  },
  onProblem: (problem) => process.send?.({ problem: String(problem) }),
})
process.once('message', async () => {
  await subscription[Symbol.asyncDispose]()
  await bus[Symbol.asyncDispose]()
  process.disconnect()
})
