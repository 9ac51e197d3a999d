// tests: shared/config/auth.ts, shared/config/blobs.ts, shared/config/database.ts, shared/config/events.ts
// tests: shared/config/janitor.ts, shared/config/kafka.ts, shared/config/limits.ts, shared/config/parsers.ts
// tests: shared/config/peers.ts, shared/config/server.ts, shared/config/variable.ts, shared/config/webhooks.ts

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { ConfigError, loadConfig } from '#shared/config/load.ts'
import { testDirectory } from '../../support/region.ts'

function problems(environment: Record<string, string>): readonly string[] {
  try {
    loadConfig(environment)
  } catch (thrown) {
    assert.ok(thrown instanceof ConfigError)
    return thrown.problems
  }
  return []
}

test('the default is a registry on loopback with everything embedded, deeply frozen', () => {
  const config = loadConfig({ PATH: '/bin' })
  assert.deepEqual(config.listen, { host: 'localhost', port: 5000 })
  assert.equal(config.region, 'eu')
  assert.equal(config.dataDir, '.portolan')
  assert.equal(config.database.url, undefined)
  assert.equal(config.auth.mode, 'none')
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.auth) && Object.isFrozen(config.auth.admins))
})

test('all problems are reported at once, and a misspelt name with the nearest one', () => {
  const found = problems({
    PORTOLAN_LISTN: 'x',
    PORTOLAN_REGION: 'EU',
    PORTOLAN_PROCESSES: '0',
    PORTOLAN_SPARSE: 'some',
    PORTOLAN_CACHE_BYTES: '1TiB',
  })
  assert.equal(found.length, 5)
  assert.match(found[0] ?? '', /PORTOLAN_LISTN is unknown; the nearest name is PORTOLAN_LISTEN/)
})

test('names of CI and of other programs are ignored', () => {
  assert.deepEqual(problems({ PORTOLAN_CI_CACHE: '/x', PORTO: 'x', OTEL_SERVICE_NAME: 'x' }), [])
})

test('listening beyond loopback without authentication needs an explicit setting', () => {
  for (const listen of [':5000', '0.0.0.0:5000', '[::]:5000', '10.0.0.1:5000', 'registry.example:5000']) {
    assert.match(
      problems({ PORTOLAN_LISTEN: listen })[0] ?? '',
      /PORTOLAN_AUTH=accounts.*PORTOLAN_AUTH=none/s,
      listen,
    )
    assert.deepEqual(problems({ PORTOLAN_LISTEN: listen, PORTOLAN_AUTH: 'none' }), [])
  }
  for (const listen of ['localhost:1', '127.0.0.1:5000', '127.8.9.1:5000', '[::1]:5000'])
    assert.deepEqual(problems({ PORTOLAN_LISTEN: listen }), [])
})

test('settings that belong together are required together', () => {
  assert.match(problems({ PORTOLAN_AUTH: 'accounts' })[0] ?? '', /PORTOLAN_HTPASSWD_FILE/)
  assert.match(problems({ PORTOLAN_EMBEDDED: 'forbid' })[0] ?? '', /PORTOLAN_DATABASE_URL/)
  const forbid = { PORTOLAN_EMBEDDED: 'forbid', PORTOLAN_DATABASE_URL: 'postgres://h/d' }
  assert.match(problems(forbid)[0] ?? '', /PORTOLAN_BLOBS/)
  const withBlobs = { ...forbid, PORTOLAN_BLOBS: 'file' }
  assert.match(problems(withBlobs)[0] ?? '', /PORTOLAN_KAFKA_BROKERS/)
  for (const brokers of ['none', 'kafka:9092'])
    assert.match(problems({ ...withBlobs, PORTOLAN_KAFKA_BROKERS: brokers })[0] ?? '', /PORTOLAN_SECRETS_KEY/)
  const key = 'a-key-of-more-than-32-characters-0123'
  assert.deepEqual(problems({ ...withBlobs, PORTOLAN_KAFKA_BROKERS: 'none', PORTOLAN_SECRETS_KEY: key }), [])
})

test("Kafka is configured by its brokers; the topic defaults to the region's; SASL settings must be complete", () => {
  assert.equal(loadConfig({}).kafka, undefined)
  assert.equal(loadConfig({ PORTOLAN_KAFKA_BROKERS: 'none' }).kafka, undefined)
  const brokers = { PORTOLAN_KAFKA_BROKERS: 'k1:9092, [::1]:9093', PORTOLAN_REGION: 'us' }
  const { kafka } = loadConfig(brokers)
  assert.deepEqual(kafka?.brokers, ['k1:9092', '[::1]:9093'])
  assert.equal(kafka?.topic, 'portolan.us.events')
  for (const wrong of ['kafka', 'k1:9092,', 'http://k1:9092', 'k1:99999'])
    assert.match(problems({ PORTOLAN_KAFKA_BROKERS: wrong })[0] ?? '', /host:port/, wrong)
  assert.match(problems({ ...brokers, PORTOLAN_KAFKA_TOPIC: 'a/b' })[0] ?? '', /not a valid topic name/)
  assert.match(problems({ ...brokers, PORTOLAN_KAFKA_USERNAME: 'u' })[0] ?? '', /must be set together/)
  const account = { ...brokers, PORTOLAN_KAFKA_USERNAME: 'u', PORTOLAN_KAFKA_PASSWORD: 'p' }
  assert.equal(loadConfig(account).kafka?.sasl?.mechanism, 'scram-sha-512')
  assert.match(problems({ ...account, PORTOLAN_KAFKA_SASL: 'plain' })[0] ?? '', /requires PORTOLAN_KAFKA_TLS/)
  assert.match(problems({ ...brokers, PORTOLAN_KAFKA_CA_FILE: '/ca' })[0] ?? '', /needs PORTOLAN_KAFKA_TLS/)
})

test('the chosen store needs its settings, every configured store is known, and others are ignored', () => {
  assert.deepEqual(problems({ PORTOLAN_BLOBS: 's3' }), ['blobs in s3 need PORTOLAN_S3_BUCKET'])
  assert.deepEqual(problems({ PORTOLAN_BLOBS: 'azure', PORTOLAN_AZURE_ACCOUNT_KEY: 'k' }), [
    'blobs in azure need PORTOLAN_AZURE_ACCOUNT',
    'blobs in azure need PORTOLAN_AZURE_CONTAINER',
    'blobs in azure need PORTOLAN_AZURE_ENDPOINT',
  ])
  const config = loadConfig({ PORTOLAN_BLOBS: 's3', PORTOLAN_S3_BUCKET: 'b', PORTOLAN_GCS_BUCKET: 'g' })
  assert.equal(config.blobs.kind, 's3')
  assert.deepEqual(
    config.stores.map(({ kind }) => kind),
    ['file', 's3', 'gcs'],
  )
  assert.match(problems({ PORTOLAN_REDIRECT: 'on' })[0] ?? '', /needs an object store/)
})

test('internal paths go only to nginx: its address is required, and no range of everybody is allowed', () => {
  const accel = { PORTOLAN_REDIRECT: 'accel' }
  assert.match(problems(accel)[0] ?? '', /needs nginx's address in PORTOLAN_TRUSTED_PROXIES/)
  for (const everybody of ['0.0.0.0/0', '::/0'])
    assert.deepEqual(problems({ ...accel, PORTOLAN_TRUSTED_PROXIES: `10.0.0.1,${everybody}` }), [
      `PORTOLAN_REDIRECT=accel with PORTOLAN_TRUSTED_PROXIES=${everybody} would reveal internal paths ` +
        "to every client: list only nginx's address",
    ])
  assert.equal(loadConfig({ ...accel, PORTOLAN_TRUSTED_PROXIES: '10.0.0.1' }).redirect.by, 'proxy')
})

test('I6: prefixes and endpoints are parsed before they reach a key or a request', () => {
  for (const prefix of ['../x', '/x', 'a//b', 'a/./b', 'a b', 'x'.repeat(201)]) {
    assert.match(problems({ PORTOLAN_S3_PREFIX: prefix })[0] ?? '', /not a prefix/, prefix)
  }
  for (const endpoint of ['minio:9000', 'ftp://h', 'http://user:secret@h', 'http://h/?x=1']) {
    assert.match(problems({ PORTOLAN_S3_ENDPOINT: endpoint })[0] ?? '', /not an http/, endpoint)
  }
  const blobs = { PORTOLAN_BLOBS: 's3', PORTOLAN_S3_BUCKET: 'b', PORTOLAN_S3_PREFIX: 'eu/images' }
  const config = loadConfig(blobs)
  assert.ok(config.blobs.kind === 's3' && config.blobs.prefix === 'eu/images/')
})

test('a secret may come from a file, but not from two places', async (t) => {
  const path = join(await testDirectory(t), 'url')
  await writeFile(path, 'postgres://u:p@h/d\n')
  assert.equal(loadConfig({ PORTOLAN_DATABASE_URL_FILE: path }).database.url, 'postgres://u:p@h/d')
  assert.match(
    problems({ PORTOLAN_DATABASE_URL_FILE: path, PORTOLAN_DATABASE_URL: 'postgres://h/d' })[0] ?? '',
    /choose one/,
  )
  assert.match(problems({ PORTOLAN_DATABASE_URL_FILE: `${path}x` })[0] ?? '', /cannot be read/)
  assert.match(problems({ PORTOLAN_REGION_FILE: path })[0] ?? '', /unknown/)
})

test('values are parsed strictly', () => {
  const config = loadConfig({
    PORTOLAN_CACHE_BYTES: '2GiB',
    PORTOLAN_FREE_BYTES_MIN: '0',
    PORTOLAN_METRICS_LISTEN: 'off',
    PORTOLAN_TRUSTED_PROXIES: '10.0.0.0/8, ::1',
    PORTOLAN_ADMINS: 'alice, bob',
    PORTOLAN_PUBLIC_URL: 'https://registry.example/',
    PORTOLAN_DELETE: 'false',
  })
  assert.equal(config.bytes.cache, 2 ** 31)
  assert.equal(config.metricsListen, undefined)
  assert.deepEqual(config.trustedProxies, ['10.0.0.0/8', '::1/128'])
  assert.deepEqual(config.auth.admins, ['alice', 'bob'])
  assert.equal(config.publicUrl, 'https://registry.example')
  assert.equal(config.registry.deletes, false)
  for (const bad of [
    { PORTOLAN_LISTEN: 'x' },
    { PORTOLAN_LISTEN: 'h:99999' },
    { PORTOLAN_PUBLIC_URL: 'https://h/path' },
    { PORTOLAN_PUBLIC_URL: 'ftp://h' },
    { PORTOLAN_TRUSTED_PROXIES: '10.0.0.0/33' },
    { PORTOLAN_DATABASE_URL: 'mysql://h/d' },
    { PORTOLAN_DELETE: 'yes' },
    { PORTOLAN_DATA_DIR: '' },
  ]) {
    assert.equal(problems(bad as unknown as Record<string, string>).length, 1, JSON.stringify(bad))
  }
})

test('contradictions are reported together with invalid values', () => {
  const found = problems({
    PORTOLAN_PROCESSES: 'many',
    PORTOLAN_LISTEN: ':5000',
    PORTOLAN_EMBEDDED: 'forbid',
    PORTOLAN_BLOBS: 's3',
    PORTOLAN_KAFKA_USERNAME: 'u',
  })
  const expected = [
    /PROCESSES/,
    /DATABASE_URL/,
    /SECRETS_KEY/,
    /forbid needs PORTOLAN_KAFKA_BROKERS/,
    /S3_BUCKET/,
    /must be set together/,
    /LISTEN/,
  ]
  for (const part of expected)
    assert.ok(
      found.some((problem) => part.test(problem)),
      `${part} in ${found}`,
    )
  assert.equal(found.length, expected.length)
})

test('an invalid value is reported once, not also as missing', () => {
  assert.deepEqual(
    problems({ PORTOLAN_BLOBS: 's3', PORTOLAN_S3_BUCKET: 'b', PORTOLAN_S3_ENDPOINT: 'x' }).length,
    1,
  )
  assert.equal(problems({ PORTOLAN_AUTH: 'account', PORTOLAN_LISTEN: ':5000' }).length, 1)
  assert.equal(
    problems({
      PORTOLAN_EMBEDDED: 'forbid',
      PORTOLAN_DATABASE_URL: 'mysql://h',
      PORTOLAN_SECRETS_KEY: 'k'.repeat(32),
      PORTOLAN_BLOBS: 'file',
      PORTOLAN_KAFKA_BROKERS: 'none',
    }).length,
    1,
  )
})

test('other regions are names with addresses, need the shared key, and are not this region', () => {
  const keys = { PORTOLAN_PEER_KEYS: 'a-key-of-more-than-32-characters-0123' }
  assert.deepEqual(loadConfig({}).peers, [])
  const { peers } = loadConfig({
    ...keys,
    PORTOLAN_PEERS: 'us=https://us.example, ap=http://ap.example:5000/',
    PORTOLAN_PEERS_KAFKA: 'us=k1:9093+k2:9093',
  })
  assert.deepEqual(
    peers.map(({ name, url, kafka }) => [name, url, kafka?.topic, kafka?.brokers]),
    [
      ['ap', 'http://ap.example:5000', undefined, undefined],
      ['us', 'https://us.example', 'portolan.us.events', ['k1:9093', 'k2:9093']],
    ],
  )
  const one = (text: string, more: Record<string, string> = keys) =>
    problems({ PORTOLAN_PEERS: text, ...more })
  assert.match(one('us=https://us.example', {})[0] ?? '', /needs PORTOLAN_PEER_KEYS/)
  assert.match(one('eu=https://eu.example')[0] ?? '', /is this region/)
  assert.match(one('us=https://a.example,us=https://b.example')[0] ?? '', /names "us" twice/)
  for (const wrong of ['us', 'US=https://us.example', 'us=us.example', 'us=https://us.example/v2', 'us='])
    assert.equal(one(wrong).length, 1, wrong)
  assert.match(
    problems({ ...keys, PORTOLAN_PEERS_KAFKA: 'us=k1:9093' })[0] ?? '',
    /which PORTOLAN_PEERS does not/,
  )
})
