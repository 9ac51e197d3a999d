// The message that an operator sees when a store is misconfigured: one sentence that says what to do.
// tests: shared/region-stores.ts

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { startObjectStore, withoutStore } from '../support/parts/object-stores.ts'
import { testRegion } from '../support/region.ts'
import { startStoreProxy } from '../support/store-proxy.ts'

describe('the check at startup reports what is wrong', { skip: withoutStore('minio') }, () => {
  test('with S3', async (t) => {
    const server = await startObjectStore('minio')
    t.after(() => server[Symbol.asyncDispose]())
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...env } = server.env
    Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY })
    const proxy = await startStoreProxy(server)
    t.after(() => proxy[Symbol.asyncDispose]())
    const opening = (other: Record<string, string>) => testRegion(t, { env: { ...env, ...other } })

    await assert.rejects(
      opening({ PORTOLAN_S3_BUCKET: 'nothing' }),
      /cannot write to the S3 bucket "nothing": the bucket "nothing" does not exist: create it/,
    )
    await assert.rejects(
      opening({ PORTOLAN_S3_REGION: 'eu-west-9' }),
      /another region: correct PORTOLAN_S3_REGION/,
    )
    process.env.AWS_SECRET_ACCESS_KEY = 'wrong'
    await assert.rejects(opening({}), /does not accept the access key/)
    process.env.AWS_SECRET_ACCESS_KEY = AWS_SECRET_ACCESS_KEY
    proxy.harm = ({ method }) =>
      method === 'POST' ? { kind: 'status', status: 403, code: 'AccessDenied' } : undefined
    await assert.rejects(
      opening({ PORTOLAN_S3_ENDPOINT: proxy.url }),
      /cannot delete from the S3 bucket "images": the credentials have no right/,
    )
    proxy.harm = () => ({ kind: 'status', status: 403, code: 'RequestTimeTooSkewed' })
    await assert.rejects(opening({ PORTOLAN_S3_ENDPOINT: proxy.url }), /clock differs/)
  })
})
