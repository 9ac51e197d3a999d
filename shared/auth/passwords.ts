// Checking passwords without giving anything away and without being brought to a halt.
//
// bcrypt runs off the main thread, two at a time, behind a bounded queue. An unknown account costs the same hash as a
// known one, so time tells nobody which names exist. A success is remembered for a minute under an HMAC of the
// credentials with a key that lives in this process only; failures make the next try from there wait.

import { createHmac, randomBytes } from 'node:crypto'
import bcrypt from 'bcrypt'
import { LRUCache } from 'lru-cache'
import { RegistryError } from '#shared/errors.ts'
import type { Account, Accounts } from './htpasswd.ts'

const HASHES_AT_ONCE = 2
const HASHES_WAITING_MAX = 64
const REMEMBER_MS = 60_000
const REMEMBERED_MAX = 10_000
/** bcrypt looks at 72 bytes and no further: a longer password would be accepted by its beginning. */
const PASSWORD_BYTES_MAX = 72
/** Failures that cost nothing; each further one doubles the wait. */
const FAILURES_FREE = 10
const WAIT_MS_MAX = 60_000

export interface PasswordChecker {
  /**
   * The account when the password is its own. undefined: unknown account or wrong password, indistinguishably.
   * @throws RegistryError TOOMANYREQUESTS while the queue is full or after too many failures from this address
   */
  check(credentials: { name: string; password: string; address: string }): Promise<Account | undefined>
}

export interface PasswordCheckerOptions {
  accounts: Accounts
  nowMs?: () => number
  /** Test seam: counts the hashes that are computed. */
  compare?: (password: string, hash: string) => Promise<boolean>
}

export function createPasswordChecker(options: PasswordCheckerOptions): PasswordChecker {
  const { accounts } = options
  const nowMs = options.nowMs ?? (() => performance.now())
  const compare = options.compare ?? ((password, hash) => bcrypt.compare(password, hash))
  const key = randomBytes(32)
  const remembered = new LRUCache<string, number>({ max: REMEMBERED_MAX })
  const failures = new LRUCache<string, { count: number; untilMs: number }>({ max: REMEMBERED_MAX })
  const hashing = createGate(HASHES_AT_ONCE, HASHES_WAITING_MAX)

  function refuseWhileWaiting(who: string): void {
    const failed = failures.get(who)
    const waitMs = (failed?.untilMs ?? 0) - nowMs()
    if (waitMs > 0) throw tooMany('too many failed logins', waitMs)
  }

  function countFailure(who: string): void {
    const count = (failures.get(who)?.count ?? 0) + 1
    const waitMs =
      count <= FAILURES_FREE ? 0 : Math.min(WAIT_MS_MAX, 1_000 * 2 ** (count - FAILURES_FREE - 1))
    failures.set(who, { count, untilMs: nowMs() + waitMs })
  }

  return {
    async check({ name, password, address }) {
      const account = await accounts.find(name)
      const hash = account?.hash ?? nobodysHash(accounts.usualCost())
      const proof = createHmac('sha256', key).update(`${name}\0${password}\0${hash}`).digest('base64')
      if (account !== undefined && (remembered.get(proof) ?? 0) > nowMs()) return account
      const who = `${address}\0${name}`
      refuseWhileWaiting(who)
      const fits = Buffer.byteLength(password) <= PASSWORD_BYTES_MAX
      const matches = await hashing(() => compare(fits ? password : '', hash))
      if (!matches || !fits || account === undefined) {
        countFailure(who)
        return undefined
      }
      failures.delete(who)
      remembered.set(proof, nowMs() + REMEMBER_MS)
      return account
    },
  }
}

/** A well-formed hash that no password has, at the cost the file's accounts have. */
function nobodysHash(cost: number): string {
  return `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(53)}`
}

function tooMany(message: string, waitMs: number): RegistryError {
  return new RegistryError('TOOMANYREQUESTS', {
    message,
    headers: { 'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1_000))) },
  })
}

/** At most `atOnce` at a time and `waitingMax` in line, first come first served; beyond that 429. */
function createGate(atOnce: number, waitingMax: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0
  const waiting: (() => void)[] = []
  return async (work) => {
    if (running < atOnce) running++
    else {
      if (waiting.length >= waitingMax) throw tooMany('too many logins at once', 1_000)
      await new Promise<void>((next) => waiting.push(next))
    }
    try {
      return await work()
    } finally {
      // The place goes from hand to hand: were it given back first, a newcomer could take it before the one in line.
      const next = waiting.shift()
      if (next === undefined) running--
      else next()
    }
  }
}
