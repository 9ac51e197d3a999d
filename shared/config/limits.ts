// Settings of what the registry accepts, and of how much memory and disk space it may use.

import { bytes, flag, integer, oneOf } from './parsers.ts'
import { DAY_SECONDS, GIB, MIB, type Values, variable } from './variable.ts'

export const limitVariables = Object.freeze({
  PORTOLAN_SPARSE: variable(
    oneOf('none', 'index', 'all'),
    'none',
    'Which references of a manifest may be missing: `none`, the children of an `index`, or `all`. Partial mirrors ' +
      'need it; all other registries are safer with `none`.',
  ),
  PORTOLAN_DELETE: variable(flag, 'true', '`false` answers 405 to every delete of a tag, manifest or blob.'),
  PORTOLAN_UPLOAD_TTL_SECONDS: variable(
    integer({ min: 60, max: 30 * DAY_SECONDS }),
    '604800',
    'How long an upload may be idle before its bytes are removed.',
  ),
  PORTOLAN_UPLOADS_PER_REPOSITORY_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '1000',
    'Maximum open uploads per repository. More are answered 429.',
  ),
  PORTOLAN_FREE_BYTES_MIN: variable(
    bytes({ min: 0, max: 2 ** 50 }),
    '256MiB',
    'Free space that uploads must leave on the volumes of the blobs and of the embedded Postgres. An upload that ' +
      'would leave less is answered 503; pulls continue. `0` turns the limit off.',
  ),
  PORTOLAN_CACHE_BYTES: variable(
    bytes({ min: MIB, max: 64 * GIB }),
    '128MiB',
    'Memory per process that caches manifests and small blobs. More memory saves more reads from the store.',
  ),
  PORTOLAN_READ_BUFFER_BYTES: variable(
    bytes({ min: 2 * MIB, max: 4 * GIB }),
    '64MiB',
    'Memory per process for blobs that are being pulled, however many clients there are.',
  ),
  PORTOLAN_WRITE_BUFFER_BYTES: variable(
    bytes({ min: 8 * MIB, max: 64 * GIB }),
    '256MiB',
    'Memory per process for uploads to an object store. Each upload uses 5 MiB at a time; further uploads wait.',
  ),
  PORTOLAN_RATE_BYTES_PER_SECOND_MIN: variable(
    bytes({ min: 0, max: GIB }),
    '1KiB',
    'Minimum rate of a client. A client that is slower for a whole window is disconnected. `0` turns this off.',
  ),
  PORTOLAN_RATE_WINDOW_SECONDS: variable(
    integer({ min: 1, max: 3600 }),
    '60',
    'Window of the minimum rate. A client may pause for this long.',
  ),
})

export interface RegistryLimits {
  readonly sparse: 'none' | 'index' | 'all'
  readonly deletes: boolean
  readonly uploadTtlSeconds: number
  readonly uploadsPerRepositoryMax: number
}

export interface ByteLimits {
  readonly freeMin: number
  readonly cache: number
  readonly readBuffer: number
  readonly writeBuffer: number
  readonly ratePerSecondMin: number
  readonly rateWindowSeconds: number
}

export function limitsConfig(values: Values<typeof limitVariables>): {
  readonly registry: RegistryLimits
  readonly bytes: ByteLimits
} {
  return {
    registry: {
      sparse: values.PORTOLAN_SPARSE,
      deletes: values.PORTOLAN_DELETE,
      uploadTtlSeconds: values.PORTOLAN_UPLOAD_TTL_SECONDS,
      uploadsPerRepositoryMax: values.PORTOLAN_UPLOADS_PER_REPOSITORY_MAX,
    },
    bytes: {
      freeMin: values.PORTOLAN_FREE_BYTES_MIN,
      cache: values.PORTOLAN_CACHE_BYTES,
      readBuffer: values.PORTOLAN_READ_BUFFER_BYTES,
      writeBuffer: values.PORTOLAN_WRITE_BUFFER_BYTES,
      ratePerSecondMin: values.PORTOLAN_RATE_BYTES_PER_SECOND_MIN,
      rateWindowSeconds: values.PORTOLAN_RATE_WINDOW_SECONDS,
    },
  }
}
