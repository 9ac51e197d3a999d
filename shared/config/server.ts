// Settings of the process: where it listens, its public URL, where its data is, and how it stops.

import {
  addressRanges,
  integer,
  type ListenAddress,
  listenAddress,
  oneOf,
  orOff,
  plain,
  publicUrl,
  regionName,
} from './parsers.ts'
import { optional, type Values, variable } from './variable.ts'

export const serverVariables = Object.freeze({
  PORTOLAN_LISTEN: variable(
    listenAddress,
    'localhost:5000',
    'Address of the registry. `:5000` listens on all addresses and requires PORTOLAN_AUTH. `localhost` listens on ' +
      'both loopback addresses.',
  ),
  PORTOLAN_METRICS_LISTEN: variable(
    orOff(listenAddress),
    'localhost:5001',
    'Address of `/metrics`, `/livez` and `/readyz`, or `off`. Keep it private: it shows internals.',
  ),
  PORTOLAN_PUBLIC_URL: optional(
    publicUrl,
    'URL that clients use, if a proxy rewrites Host. The token realm is derived from it. If unset, it comes from the ' +
      'Host header or from a trusted proxy.',
  ),
  PORTOLAN_TRUSTED_PROXIES: variable(
    addressRanges,
    '',
    'Address ranges of proxies whose X-Forwarded-* headers are trusted. From any other client, they are ignored.',
  ),
  PORTOLAN_REGION: variable(
    regionName,
    'eu',
    'Name of this region. It must never change for a database, because every stored version contains it.',
  ),
  PORTOLAN_DATA_DIR: variable(
    plain,
    '.portolan',
    'Directory of the embedded Postgres and of blobs in files. Each region has its own subdirectory.',
  ),
  PORTOLAN_PROCESSES: variable(
    integer({ min: 1, max: 64 }),
    '1',
    'API processes that share the port (Linux). One per core serves more requests; each has its own caches.',
  ),
  PORTOLAN_LOG_LEVEL: variable(
    oneOf('debug', 'info', 'warn', 'error'),
    'info',
    '`info` logs each request; `warn` logs only problems.',
  ),
  PORTOLAN_DRAIN_SECONDS: variable(
    integer({ min: 0, max: 3600 }),
    '30',
    'How long open requests may take to finish when the process stops.',
  ),
})

export interface ServerConfig {
  readonly listen: ListenAddress
  /** undefined: off. */
  readonly metricsListen: ListenAddress | undefined
  readonly publicUrl: string | undefined
  readonly trustedProxies: readonly string[]
  readonly region: string
  readonly dataDir: string
  readonly processes: number
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error'
  readonly drainSeconds: number
}

export function serverConfig(values: Values<typeof serverVariables>): ServerConfig {
  return {
    listen: values.PORTOLAN_LISTEN,
    metricsListen: values.PORTOLAN_METRICS_LISTEN,
    publicUrl: values.PORTOLAN_PUBLIC_URL,
    trustedProxies: values.PORTOLAN_TRUSTED_PROXIES,
    region: values.PORTOLAN_REGION,
    dataDir: values.PORTOLAN_DATA_DIR,
    processes: values.PORTOLAN_PROCESSES,
    logLevel: values.PORTOLAN_LOG_LEVEL,
    drainSeconds: values.PORTOLAN_DRAIN_SECONDS,
  }
}
