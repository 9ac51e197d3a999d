// Reads accounts from an htpasswd file: one `name:bcrypt-hash` per line, as `htpasswd -B` writes it.
//
// A login checks the file for changes, at most once a second. If a changed file cannot be read, the accounts stay as
// they were and the problem is logged: a file that an editor has only half written must not lock everybody out.

import { readFile, stat } from 'node:fs/promises'
import { OperatorError } from '#shared/errors.ts'

const FILE_BYTES_MAX = 4 * 1024 * 1024
const ACCOUNTS_MAX = 10_000
const NAME_LENGTH_MAX = 255
const LOOK_AGAIN_MS = 1_000
/** A cost of 14 (2^14 rounds) takes a second. A file with a cost of 31 would stop every login. */
const COST_MAX = 14
const HASH = /^\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}$/

export interface Account {
  readonly name: string
  /** In the `$2b$` form. htpasswd's `$2y$` is the same algorithm under another prefix. */
  readonly hash: string
  readonly cost: number
}

/** @throws OperatorError with the number of the first bad line. The message never contains the hash. */
export function parseHtpasswd(text: string): Map<string, Account> {
  const accounts = new Map<string, Account>()
  for (const [index, line] of text.split('\n').entries()) {
    const entry = line.trim()
    if (entry === '' || entry.startsWith('#')) continue
    const where = `line ${index + 1} of the htpasswd file`
    const colon = entry.indexOf(':')
    const name = entry.slice(0, Math.max(0, colon))
    const match = HASH.exec(entry.slice(colon + 1))
    if (name === '' || name.length > NAME_LENGTH_MAX) throw new OperatorError(`${where} has no account name`)
    if (match === null)
      throw new OperatorError(`${where} (${name}) has no bcrypt hash: create it with htpasswd -B`)
    const cost = Number(match[1])
    if (cost > COST_MAX) throw new OperatorError(`${where} (${name}) has a bcrypt cost above ${COST_MAX}`)
    if (accounts.has(name)) throw new OperatorError(`${where} repeats the account ${name}`)
    if (accounts.size === ACCOUNTS_MAX)
      throw new OperatorError(`the htpasswd file has more than ${ACCOUNTS_MAX} accounts`)
    accounts.set(name, { name, hash: `$2b$${entry.slice(colon + 5)}`, cost })
  }
  return accounts
}

export interface Accounts {
  find(name: string): Promise<Account | undefined>
  /** The cost that most accounts have. A login to an unknown account is made to cost the same. */
  usualCost(): number
}

export interface AccountsOptions {
  path: string
  onProblem(error: Error): void
  nowMs?: () => number
}

/** @throws OperatorError if the file cannot be read or parsed at startup */
export async function openAccounts(options: AccountsOptions): Promise<Accounts> {
  const nowMs = options.nowMs ?? (() => performance.now())
  let { seen, accounts } = await readAccounts(options.path)
  let lookedAtMs = nowMs()
  let looking: Promise<void> | undefined

  async function look(): Promise<void> {
    try {
      const now = await fingerprint(options.path)
      if (now === seen) return
      accounts = parseHtpasswd(await readBounded(options.path))
      seen = now
    } catch (thrown) {
      options.onProblem(thrown as Error)
    }
  }

  return {
    async find(name) {
      if (nowMs() - lookedAtMs >= LOOK_AGAIN_MS) {
        lookedAtMs = nowMs()
        looking = look()
      }
      await looking
      return accounts.get(name)
    },
    usualCost() {
      const counts = new Map<number, number>()
      for (const { cost } of accounts.values()) counts.set(cost, (counts.get(cost) ?? 0) + 1)
      return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 10
    },
  }
}

async function readAccounts(path: string): Promise<{ seen: string; accounts: Map<string, Account> }> {
  try {
    return { seen: await fingerprint(path), accounts: parseHtpasswd(await readBounded(path)) }
  } catch (cause) {
    if (cause instanceof OperatorError) throw new OperatorError(`${path}: ${cause.message}.`, { cause })
    const { code } = cause as NodeJS.ErrnoException
    throw new OperatorError(
      `The accounts file ${path} cannot be read (${code}): ` +
        'correct PORTOLAN_HTPASSWD_FILE, or create it with `htpasswd -Bc`.',
      { cause },
    )
  }
}

async function fingerprint(path: string): Promise<string> {
  const { mtimeMs, size, ino } = await stat(path)
  return `${mtimeMs} ${size} ${ino}`
}

async function readBounded(path: string): Promise<string> {
  const { size } = await stat(path)
  if (size > FILE_BYTES_MAX)
    throw new OperatorError(`the htpasswd file is larger than ${FILE_BYTES_MAX} bytes`)
  return readFile(path, 'utf8')
}
