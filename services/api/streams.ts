// Limits the number of replies that stay open: event streams and long polls of peers. Each holds a socket, a listener
// and up to 1 MiB that its reader has not received. So their number is bounded per process and per caller; requests
// above the bound get 429. A place is held until the work behind the reply has ended, not only until the client has
// disconnected: it counts for as long as it uses resources.

import { RegistryError } from '#shared/errors.ts'

const RETRY_AFTER_SECONDS = '10'

export interface Streams {
  /** Number of places in use. */
  readonly open: number
  /**
   * @param caller an address, or the name of a peer
   * @throws RegistryError TOOMANYREQUESTS with Retry-After
   */
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
