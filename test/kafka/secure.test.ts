// Kafka with TLS and a password, configured the way an operator does it.
// tests: shared/bus/open-kafka.ts

import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { openKafka } from '#shared/bus/open-kafka.ts'
import { loadConfig } from '#shared/config/load.ts'
import { eventually } from '../support/eventually.ts'
import { readWith } from '../support/follower.ts'
import { publishLog } from '../support/kafka-log.ts'
import { fillLog } from '../support/log-writer.ts'
import { type KafkaCluster, kafkaCertificate, startKafka, withoutKafka } from '../support/parts/kafka.ts'
import { testRegion } from '../support/region.ts'

describe('kafka, secured', { skip: withoutKafka() }, () => {
  const account = { user: 'bob', password: 'a b$c' }
  let cluster: KafkaCluster
  let passwordFile: string
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'portolan-test-'))
    passwordFile = join(directory, 'password')
    await writeFile(passwordFile, `${account.password}\n`)
    cluster = await startKafka({ secure: { ...(await kafkaCertificate(directory)), ...account } })
  })
  after(async () => {
    await cluster[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })

  for (const sasl of ['plain', 'scram-sha-256', 'scram-sha-512']) {
    test(`${sasl} over TLS with the password from a file: events are published and read`, async (t) => {
      const { region } = await testRegion(t)
      const { PORTOLAN_KAFKA_PASSWORD: _password, ...env } = cluster.env
      const config = loadConfig({
        ...env,
        PORTOLAN_KAFKA_SASL: sasl,
        PORTOLAN_KAFKA_PASSWORD_FILE: passwordFile,
        PORTOLAN_KAFKA_TOPIC: `test.${sasl}`,
      })
      assert.ok(config.kafka)
      await using bus = openKafka(config.kafka, region)
      await bus.ensureTopic({ retentionSeconds: 3600, replicas: undefined })
      await using reader = readWith(bus, { group: sasl })
      await fillLog(region, { count: 16 })
      await publishLog(region, bus)()
      await eventually('the events', () => reader.count() === 16, 30_000)
      reader.assertWhole(16)
    })
  }

  test('a wrong password, a missing account or missing TLS fails at once with a clear error', async (t) => {
    const { region } = await testRegion(t)
    const { PORTOLAN_KAFKA_USERNAME: _user, PORTOLAN_KAFKA_PASSWORD: _password, ...anonymous } = cluster.env
    const { PORTOLAN_KAFKA_TLS: _tls, PORTOLAN_KAFKA_CA_FILE: _ca, ...clear } = anonymous
    const refused: [Record<string, string>, RegExp][] = [
      [{ ...cluster.env, PORTOLAN_KAFKA_PASSWORD: 'wrong' }, /authentication failed/i],
      [{ ...anonymous }, /closed connection/i],
      [{ ...clear }, /closed connection/i],
    ]
    for (const [env, why] of refused) {
      const { kafka } = loadConfig(env)
      assert.ok(kafka)
      await using bus = openKafka(kafka, region)
      await assert.rejects(bus.ensureTopic({ retentionSeconds: 60, replicas: 1 }), why)
    }
  })

  test('an untrusted certificate is rejected', async (t) => {
    const { region } = await testRegion(t)
    const { PORTOLAN_KAFKA_CA_FILE: _ca, ...env } = cluster.env
    const { kafka } = loadConfig({ ...env })
    assert.ok(kafka)
    await using bus = openKafka(kafka, region)
    await assert.rejects(bus.ensureTopic({ retentionSeconds: 60, replicas: 1 }), /certificate/)
  })

  test('a missing CA file is reported at startup', () => {
    const { kafka } = loadConfig({ ...cluster.env, PORTOLAN_KAFKA_CA_FILE: '/nowhere/ca.pem' })
    assert.ok(kafka)
    const context = { name: 'eu', log: {} as never }
    assert.throws(() => openKafka(kafka, context), /PORTOLAN_KAFKA_CA_FILE cannot be read/)
  })
})
