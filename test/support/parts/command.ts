// Runs programs for tests. Returns their output, or throws an error that shows it.

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'

const TIMEOUT_MS = 180_000

export interface CommandOptions {
  env?: Readonly<Record<string, string | undefined>>
  cwd?: string
  input?: string
}

/** Resolves with the standard output. If the program fails, rejects with both outputs. */
export function command(
  program: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      [...args],
      {
        timeout: TIMEOUT_MS,
        maxBuffer: 16 * 1024 * 1024,
        env: { ...process.env, ...options.env },
        ...(options.cwd !== undefined && { cwd: options.cwd }),
      },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else
          reject(
            new Error(`${program} ${args.join(' ')}: ${error.message}\n${stdout}\n${stderr}`, {
              cause: error,
            }),
          )
      },
    )
    if (options.input !== undefined) child.stdin?.end(options.input)
  })
}

/** Returns true if the program is on the PATH. With CI=true, a missing program is an error: .ci/install installs it. */
export function hasProgram(name: string): boolean {
  const found = (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, name)))
  if (!found && process.env.CI === 'true') throw new Error(`CI has no ${name}: .ci/install installs it`)
  return found
}

/** For a test's `skip`: false, or a line that names what is missing. */
export function missing(...names: readonly string[]): string | false {
  const absent = names.filter((name) => !hasProgram(name))
  return absent.length > 0 && `this machine has no ${absent.join(', ')}`
}
