// Places for answers that stay open: event streams and peers' long polls. Each holds a socket, a listener and up to a
// MiB that its reader has not taken, so there is a number of them per process and per caller; beyond it 429. A place is
// held until the work behind it has ended, not only until the client has gone: what it cost is counted for as long as it
// costs.

import { RegistryError } from '#shared/errors.ts'

const RETRY_AFTER_SECONDS = '10'

export interface Streams {
  /** Places taken. */
  readonly open: number
  /** @param caller an address, or the name of a peer. @throws RegistryError TOOMANYREQUESTS with Retry-After */
  take(caller: string): Disposable
}

export function createStreams({ max, perCallerMax }: { max: number; perCallerMax: number }): Streams {
  const callers = new Map<string, number>()
  let open = 0
  return {
    get open() {
      return open
    },
    take(caller) {
      const held = callers.get(caller) ?? 0
      if (held >= perCallerMax) throw tooMany(`at most ${perCallerMax} streams are open for one address`)
      if (open >= max) throw tooMany(`at most ${max} streams are open in one process`)
      callers.set(caller, held + 1)
      open++
      let released = false
      return {
        [Symbol.dispose]() {
          if (released) return
          released = true
          open--
          const left = (callers.get(caller) ?? 1) - 1
          if (left === 0) callers.delete(caller)
          else callers.set(caller, left)
        },
      }
    },
  }
}

function tooMany(message: string): RegistryError {
  return new RegistryError('TOOMANYREQUESTS', { message, headers: { 'Retry-After': RETRY_AFTER_SECONDS } })
}
