// Programs that tests run Portolan against, built once from the Go module proxy into a cache folder that persists
// between runs. Versions are pinned. All programs are built with the same flags, so that they share the build cache.
//
//   node test/support/parts/tools.ts conformance crane ...     builds the missing ones

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const BUILD_TIMEOUT_MS = 30 * 60_000

interface Tool {
  readonly module: string
  readonly version: string
  /** Marks tools of the long suite, which take minutes to build. */
  readonly long?: true
}

export const tools = Object.freeze({
  conformance: {
    module: 'github.com/opencontainers/distribution-spec/conformance',
    version: 'v0.0.0-20260831232431-97274622c111',
  },
  registry: {
    module: 'github.com/distribution/distribution/v3/cmd/registry',
    version: 'v3.1.2',
  },
  crane: {
    module: 'github.com/google/go-containerregistry/cmd/crane',
    version: 'v0.22.1',
  },
  oras: { module: 'oras.land/oras/cmd/oras', version: 'v1.3.6' },
  regctl: {
    module: 'github.com/regclient/regclient/cmd/regctl',
    version: 'v0.11.7',
  },
  minio: { module: 'github.com/minio/minio', version: 'v0.0.0-20260212201848-7aac2a2c5b7c' },
  versitygw: { module: 'github.com/versity/versitygw/cmd/versitygw', version: 'v1.8.0' },
  'fake-gcs-server': { module: 'github.com/fsouza/fake-gcs-server', version: 'v1.56.1' },
  helm: { module: 'helm.sh/helm/v3/cmd/helm', version: 'v3.22.0', long: true },
  cosign: {
    module: 'github.com/sigstore/cosign/v3/cmd/cosign',
    version: 'v3.1.3',
    long: true,
  },
} satisfies Record<string, Tool>)

export type ToolName = keyof typeof tools

export function cacheDirectory(): string {
  return process.env.PORTOLAN_CI_CACHE ?? join(homedir(), '.cache', 'portolan-ci')
}

/** The path of the tool, built or not. */
export function toolPath(name: ToolName): string {
  return join(cacheDirectory(), 'bin', `${name}-${tools[name].version}`)
}

/** Returns the tool's path, or undefined if it is not built. Under CI, a missing tool of .ci/run is an error. */
export function findTool(name: ToolName): string | undefined {
  const path = toolPath(name)
  if (existsSync(path)) return path
  if (process.env.CI === 'true' && !('long' in tools[name]))
    throw new Error(`CI has no ${name}: .ci/install builds it`)
  return undefined
}

/** cosign 2.5 from Debian (.ci/cosign-from-debian). It writes signatures as tags. */
export function findDebianCosign(): string | undefined {
  const path = join(cacheDirectory(), 'bin', 'cosign-debian-2.5.0')
  if (existsSync(path)) return path
  if (process.env.CI === 'true') throw new Error('CI has no cosign: .ci/install installs it')
  return undefined
}

const RECEIVER_VERSION = '3.1.2'

/** The receiver built on distribution's notifications package (distribution-receiver/main.go). */
export function findDistributionReceiver(): string | undefined {
  const path = receiverPath()
  if (existsSync(path)) return path
  if (process.env.CI === 'true') throw new Error('CI has no distribution-receiver: .ci/install builds it')
  return undefined
}

function receiverPath(): string {
  return join(cacheDirectory(), 'bin', `distribution-receiver-v${RECEIVER_VERSION}`)
}

async function buildDistributionReceiver(): Promise<void> {
  if (existsSync(receiverPath())) return
  await mkdir(join(cacheDirectory(), 'bin'), { recursive: true })
  const built = `${receiverPath()}.${process.pid}`
  await run('go', ['build', '-trimpath', '-ldflags', '-s -w', '-o', built, '.'], {
    cwd: join(import.meta.dirname, 'distribution-receiver'),
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false' },
    timeout: BUILD_TIMEOUT_MS,
  })
  await rename(built, receiverPath())
}

const AZURITE_VERSION = '3.37.0'

/** The entry point of Azurite, a Node program. It is installed from npm into the cache because of its size. */
export function findAzurite(): string | undefined {
  const path = azuritePath()
  if (existsSync(path)) return path
  if (process.env.CI === 'true') throw new Error('CI has no azurite: .ci/install installs it')
  return undefined
}

function azuriteDirectory(): string {
  return join(cacheDirectory(), `azurite-${AZURITE_VERSION}`)
}

async function installAzurite(): Promise<void> {
  if (existsSync(azuritePath())) return
  await mkdir(azuriteDirectory(), { recursive: true })
  const flags = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', azuriteDirectory()]
  await run('npm', ['install', ...flags, `azurite@${AZURITE_VERSION}`], { timeout: BUILD_TIMEOUT_MS })
}

function azuritePath(): string {
  return join(azuriteDirectory(), 'node_modules', 'azurite', 'dist', 'src', 'blob', 'main.js')
}

export async function buildTool(name: ToolName): Promise<void> {
  const { module, version } = tools[name]
  const path = toolPath(name)
  if (existsSync(path)) return
  await mkdir(join(cacheDirectory(), 'bin'), { recursive: true })
  const directory = await mkdtemp(join(tmpdir(), 'portolan-build-'))
  try {
    await run('go', ['install', '-trimpath', '-ldflags', '-s -w', `${module}@${version}`], {
      env: {
        ...process.env,
        CGO_ENABLED: '0',
        GOBIN: directory,
        GOFLAGS: '-buildvcs=false',
      },
      timeout: BUILD_TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
    })
    // A rename is atomic, so two concurrent builders leave one complete file.
    const built = join(cacheDirectory(), 'bin', `.${name}.${process.pid}`)
    await run('mv', [join(directory, basename(module)), built])
    await rename(built, path)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

const OTHERS: Readonly<Record<string, () => Promise<void>>> = {
  azurite: installAzurite,
  'distribution-receiver': buildDistributionReceiver,
}

if (import.meta.main) {
  for (const name of process.argv.slice(2)) {
    const build = OTHERS[name] ?? (name in tools && (() => buildTool(name as ToolName)))
    if (build === false) throw new Error(`unknown tool: ${name}`)
    const startMs = performance.now()
    await build()
    process.stdout.write(`${name}: ${Math.round((performance.now() - startMs) / 1000)} s\n`)
  }
}
