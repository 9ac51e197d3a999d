// Settings of what the registry accepts, and of how much memory and disk it may use.

import { bytes, flag, integer, oneOf } from './parsers.ts'
import { DAY_SECONDS, GIB, MIB, type Values, variable } from './variable.ts'

export const limitVariables = Object.freeze({
  PORTOLAN_SPARSE: variable(
    oneOf('none', 'index', 'all'),
    'none',
    'What a manifest may reference without having it: `none`, an `index` its children, or `all` references. Mirrors ' +
      'of parts need it; everyone else is safer without.',
  ),
  PORTOLAN_DELETE: variable(
    flag,
    'true',
    '`false` answers every delete of tags, manifests and blobs with 405.',
  ),
  PORTOLAN_UPLOAD_TTL_SECONDS: variable(
    integer({ min: 60, max: 30 * DAY_SECONDS }),
    '604800',
    'How long an upload may be idle before its bytes are removed.',
  ),
  PORTOLAN_UPLOADS_PER_REPOSITORY_MAX: variable(
    integer({ min: 1, max: 100_000 }),
    '1000',
    'Open uploads in one repository. More are answered 429.',
  ),
  PORTOLAN_FREE_BYTES_MIN: variable(
    bytes({ min: 0, max: 2 ** 50 }),
    '256MiB',
    'Free space that uploads leave on the volumes of the blobs and of the embedded Postgres. An upload that would cross ' +
      'it is answered 503; pulls continue. 0 refuses nothing.',
  ),
  PORTOLAN_CACHE_BYTES: variable(
    bytes({ min: MIB, max: 64 * GIB }),
    '128MiB',
    'Memory of each process for manifests and small blobs. More keeps more pulls away from the disk.',
  ),
  PORTOLAN_READ_BUFFER_BYTES: variable(
    bytes({ min: 2 * MIB, max: 4 * GIB }),
    '64MiB',
    'Memory of each process for blobs that are being pulled, whatever the number of clients.',
  ),
  PORTOLAN_WRITE_BUFFER_BYTES: variable(
    bytes({ min: 8 * MIB, max: 64 * GIB }),
    '256MiB',
    'Memory of each process for uploads to an object store, 5 MiB at a time for each. Further uploads wait.',
  ),
  PORTOLAN_RATE_BYTES_PER_SECOND_MIN: variable(
    bytes({ min: 0, max: GIB }),
    '1KiB',
    'A client that stays slower than this for a whole window is disconnected. 0 never disconnects.',
  ),
  PORTOLAN_RATE_WINDOW_SECONDS: variable(
    integer({ min: 1, max: 3600 }),
    '60',
    'Window of the minimum rate. A pause of this length is allowed.',
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
