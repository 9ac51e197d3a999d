// The table of failures of each adapter: what is retried, how it is classified, and what the operator reads.
// tests: shared/blobs/objects/azure-service.ts, shared/blobs/objects/gcs-service.ts
// tests: shared/blobs/objects/s3-service.ts

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { azureFailureOf } from '#shared/blobs/objects/azure-service.ts'
import { gcsFailureOf } from '#shared/blobs/objects/gcs-service.ts'
import { s3FailureOf } from '#shared/blobs/objects/s3-service.ts'

const s3 = (error: object) => s3FailureOf(error, { bucket: 'images', endpoint: undefined })
const gcs = (error: object) => gcsFailureOf(error, { bucket: 'images', endpoint: undefined })
const azure = (error: object) => azureFailureOf(error, { container: 'images', endpoint: 'https://a.example' })
const status = (code: number, name = 'X') => ({ name, $metadata: { httpStatusCode: code } })

test('what passes by itself is asked again, in every store', () => {
  for (const failure of [
    s3(status(503, 'SlowDown')),
    s3(status(500, 'InternalError')),
    s3(status(400, 'RequestTimeout')),
    s3(status(400, 'XAmzContentSHA256Mismatch')),
    s3({ code: 'ECONNRESET' }),
    s3({ name: 'TimeoutError' }),
    gcs({ code: 503 }),
    gcs({ code: 429 }),
    gcs({ cause: { code: 'ECONNRESET' } }),
    azure({ code: 'ServerBusy', statusCode: 503 }),
    azure({ code: 'Md5Mismatch', statusCode: 400 }),
    azure({ code: 'ECONNREFUSED' }),
  ]) {
    assert.deepEqual([failure.kind, failure.again], ['unavailable', true])
  }
})

test('what the operator or the client has to change is told at once', () => {
  for (const [failure, kind, sentence] of [
    [s3(status(404, 'NoSuchKey')), 'missing', /NoSuchKey/],
    [s3(status(404, 'NoSuchBucket')), 'denied', /"images" does not exist/],
    [s3(status(404, 'NoSuchUpload')), 'lost', /NoSuchUpload/],
    [s3(status(403, 'AccessDenied')), 'denied', /no right/],
    [s3(status(403, 'RequestTimeTooSkewed')), 'denied', /clock/],
    [s3(status(301, 'PermanentRedirect')), 'denied', /PORTOLAN_S3_REGION/],
    [s3({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }), 'unavailable', /NODE_EXTRA_CA_CERTS/],
    [s3(status(507, 'XMinioStorageFull')), 'full', /XMinioStorageFull/],
    [gcs({ code: 404, message: 'No such object' }), 'missing', /does not exist/],
    [gcs({ code: 404, message: 'The specified bucket does not exist.' }), 'denied', /PORTOLAN_GCS_BUCKET/],
    [gcs({ code: 410 }), 'lost', /session/],
    [gcs({ code: 403 }), 'denied', /Storage Object User/],
    [gcs({ message: 'Could not load the default credentials.' }), 'denied', /workload identity/],
    [azure({ code: 'BlobNotFound', statusCode: 404 }), 'missing', /BlobNotFound/],
    [azure({ code: 'ContainerNotFound', statusCode: 404 }), 'denied', /PORTOLAN_AZURE_CONTAINER/],
    [azure({ code: 'InvalidBlockList', statusCode: 400 }), 'lost', /InvalidBlockList/],
    [azure({ code: 'AuthorizationPermissionMismatch', statusCode: 403 }), 'denied', /Contributor/],
    [azure({ name: 'CredentialUnavailableError' }), 'unavailable', /managed identity/],
  ] as const) {
    assert.deepEqual([failure.kind, failure.again], [kind, false], failure.message)
    assert.match(failure.message, sentence)
  }
})
