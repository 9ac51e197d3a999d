// A region with a database, a directory and an API of its own, for one test.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '#shared/config/load.ts'
import { openRegion, type RegionOptions, type RegionWithStores } from '#shared/region.ts'
import { openRegistry, type Registry } from '#shared/registry/registry.ts'
import { type ApiOptions, startApi } from '../../services/api/service.ts'
import { type Cleanup, later, testDatabase } from './postgres.ts'

export interface TestRegion {
  /** With what a process opens for services that need more: tests look at all of it. */
  readonly region: RegionWithStores & Registry
  readonly logLines: string[]
}

export interface TestRegionOptions extends RegionOptions, Pick<ApiOptions, 'routes'> {
  env?: Readonly<Record<string, string>>
  /** Another region's database and directory: a second node. */
  sharing?: TestNode
}

/** Seals secrets in test databases; `env` may name another or, as '', none. */
export const TEST_SECRETS_KEY = 'test-secrets-key-0123456789-0123456789'

export async function testDirectory(t: Cleanup): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'portolan-test-'))
  later(t, () => rm(directory, { recursive: true, force: true, maxRetries: 5 }))
  return directory
}

export async function testRegion(t: Cleanup, options: TestRegionOptions = {}): Promise<TestRegion> {
  const { env, sharing, routes: _ofApi, ...regionOptions } = options
  const logLines: string[] = []
  const config = loadConfig({
    PORTOLAN_DATABASE_URL: sharing?.region.databaseUrl ?? (await testDatabase(t, env?.PORTOLAN_REGION)),
    PORTOLAN_DATA_DIR: sharing?.region.config.dataDir ?? (await testDirectory(t)),
    PORTOLAN_LISTEN: '127.0.0.1:0',
    PORTOLAN_METRICS_LISTEN: 'off',
    PORTOLAN_DRAIN_SECONDS: '1',
    PORTOLAN_SECRETS_KEY: TEST_SECRETS_KEY,
    ...env,
  })
  const opened = await openRegion(config, {
    logTo: { write: (line) => logLines.push(line) },
    ...regionOptions,
  })
  try {
    const { [Symbol.asyncDispose]: disposeRegistry, ...registry } = await openRegistry(opened)
    const disposeRegion = opened[Symbol.asyncDispose].bind(opened)
    const region = Object.assign(opened, await opened.openStores(), registry, {
      async [Symbol.asyncDispose]() {
        await disposeRegistry()
        await disposeRegion()
      },
    })
    later(t, () => region[Symbol.asyncDispose]())
    return { region, logLines }
  } catch (thrown) {
    await opened[Symbol.asyncDispose]()
    throw thrown
  }
}

export interface TestNode extends TestRegion {
  /** http://127.0.0.1:port */
  readonly url: string
  readonly port: number
  /** Ends the API; the region stays. */
  stop(): Promise<void>
}

/** A region with its API listening. */
export async function testNode(t: Cleanup, options: TestRegionOptions = {}): Promise<TestNode> {
  const opened = await testRegion(t, options)
  const { routes } = options
  const api = await startApi(opened.region, { registry: opened.region, ...(routes && { routes }) })
  // Hooks run in the order they were added, and the API has to end before what it stands on.
  const stop = async () => api[Symbol.asyncDispose]()
  const dispose = opened.region[Symbol.asyncDispose].bind(opened.region)
  opened.region[Symbol.asyncDispose] = async () => {
    await stop()
    await dispose()
  }
  return { ...opened, url: `http://127.0.0.1:${api.port}`, port: api.port, stop }
}

/** A node that keeps no blob in its database: for tests of what happens to bytes in a store, however few they are. */
export function storeNode(t: Cleanup, options: TestRegionOptions = {}): Promise<TestNode> {
  return testNode(t, { ...options, env: { PORTOLAN_INLINE_BYTES_MAX: '0', ...options.env } })
}
