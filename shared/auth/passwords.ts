// Checks passwords without revealing which accounts exist, and without letting logins overload the process.
//
// bcrypt runs off the main thread, two hashes at a time, behind a queue that client networks share fairly. An unknown
// account costs the same hash as a known one, so the response time does not reveal which names exist. The result of a
// login is cached for a minute, under an HMAC with a key that exists only in this process. A correct password then
// needs no second hash, and a program that repeats one stale password counts as one failure. Identical logins that run
// at the same time share one hash. Other failures delay the next attempt on that account from that network
// (login-failures.ts). The delay is checked before the cache; otherwise the cache would answer any number of guesses.

import { createHmac, randomBytes } from 'node:crypto'
import bcrypt from 'bcrypt'
import { LRUCache } from 'lru-cache'
import { RegistryError } from '#shared/errors.ts'
import { networkOf } from './client-network.ts'
import { createFairQueue, QueueFullError } from './fair-queue.ts'
import type { Account, Accounts } from './htpasswd.ts'
import { createLoginFailures } from './login-failures.ts'

const HASHES_AT_ONCE = 2
/** A hash takes 50 ms to 1 s, depending on its cost. A longer queue would only make logins time out. */
const HASHES_WAITING_MAX = 64
const HASHES_WAITING_PER_NETWORK_MAX = 32
const REMEMBER_MS = 60_000
const REMEMBERED_MAX = 10_000
/** bcrypt ignores everything after 72 bytes: a longer password would be accepted by its first 72 bytes alone. */
const PASSWORD_BYTES_MAX = 72
const NAME_TOLD_LENGTH_MAX = 64

export interface Login {
  readonly name: string
  readonly password: string
  /** The client's address. */
  readonly address: string
}

export interface PasswordChecker {
  /**
   * Returns the account if the password matches. Returns undefined for an unknown account or a wrong password; the
   * caller cannot tell which.
   * @throws RegistryError TOOMANYREQUESTS if the queue is full, or after too many failures from this network
   */
  check(login: Login): Promise<Account | undefined>
}

export interface PasswordCheckerOptions {
  accounts: Accounts
  /** Called for each failed login, to log it. `name` is cut to 64 characters. */
  onFailure?: (failure: { name: string; address: string }) => void
  nowMs?: () => number
  /** Test seam: counts the hashes that are computed. */
  compare?: (password: string, hash: string) => Promise<boolean>
}

export function createPasswordChecker(options: PasswordCheckerOptions): PasswordChecker {
  const { accounts, onFailure } = options
  const nowMs = options.nowMs ?? (() => performance.now())
  const compare = options.compare ?? ((password, hash) => bcrypt.compare(password, hash))
  const key = randomBytes(32)
  const keyed = (...parts: readonly string[]) =>
    createHmac('sha256', key).update(parts.join('\0')).digest('base64')
  const remembered = new LRUCache<string, { matches: boolean; untilMs: number }>({ max: REMEMBERED_MAX })
  /** At most as many as the queue holds. */
  const underWay = new Map<string, Promise<boolean>>()
  const failures = createLoginFailures(nowMs)
  const queue = createFairQueue({
    atOnce: HASHES_AT_ONCE,
    waitingMax: HASHES_WAITING_MAX,
    waitingPerOriginMax: HASHES_WAITING_PER_NETWORK_MAX,
  })

  /** Returns true if the password matches the hash. @throws RegistryError TOOMANYREQUESTS */
  async function hashed(
    login: Login,
    options: { hash: string; network: string; who: string },
  ): Promise<boolean> {
    const { hash, network, who } = options
    const fits = Buffer.byteLength(login.password) <= PASSWORD_BYTES_MAX
    failures.charge(who)
    try {
      const matches = (await queue.run(network, () => compare(fits ? login.password : '', hash))) && fits
      if (matches) failures.takeBack(who)
      return matches
    } catch (thrown) {
      if (!(thrown instanceof QueueFullError && thrown.full === 'own')) failures.takeBack(who)
      if (!(thrown instanceof QueueFullError)) throw thrown
      throw tooMany('too many logins at once', 1_000)
    }
  }

  return {
    async check(login) {
      const { name, address } = login
      const network = networkOf(address)
      const who = keyed(network, name)
      const account = await accounts.find(name)
      const waitMs = failures.waitMs(who)
      if (waitMs > 0) throw tooMany('too many failed logins', waitMs)
      const hash = account?.hash ?? nobodysHash(accounts.usualCost())
      const proof = keyed(name, login.password, hash)
      let known = remembered.get(proof)
      if (known === undefined || known.untilMs <= nowMs()) {
        let working = underWay.get(proof)
        if (working === undefined) {
          working = hashed(login, { hash, network, who }).finally(() => underWay.delete(proof))
          underWay.set(proof, working)
        }
        known = { matches: await working, untilMs: nowMs() + REMEMBER_MS }
        remembered.set(proof, known)
      }
      if (known.matches && account !== undefined) return account
      onFailure?.({ name: name.slice(0, NAME_TOLD_LENGTH_MAX), address })
      return undefined
    },
  }
}

/** Returns a well-formed hash that matches no password, with the cost that the file's accounts use. */
function nobodysHash(cost: number): string {
  return `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(53)}`
}

function tooMany(message: string, waitMs: number): RegistryError {
  return new RegistryError('TOOMANYREQUESTS', {
    message,
    headers: { 'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1_000))) },
  })
}
