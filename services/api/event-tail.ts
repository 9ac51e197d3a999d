// Follows the end of the log once per process for all listeners. Each tick makes one cheap query while there are
// listeners, regardless of their number, and none otherwise.
//
// Following is organised in runs. A run begins with the first listener, ends with the last, and owns its position, its
// timer and its tick. A run that has ended starts no further work, even if it was waiting for something. The next
// listener starts a new run.

import { type LoggedEvent, type LogPosition, logBounds, readEvents } from '#shared/db/event-log.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Region } from '#shared/region.ts'
import { createEventFrames, type EventFrames } from './event-frames.ts'

const TICK_MS = 50
const PAGE = 200

export interface EventTail extends AsyncDisposable {
  /** The frames that streams send for the events they receive. */
  readonly frames: EventFrames
  /** Current number of listeners. */
  readonly listeners: number
  /**
   * Registers at once; dispose the result to stop. Once `ready` has resolved, the listener receives every event that is
   * logged from then on. `ready` rejects if the log cannot be read. Throws 503 after the tail has ended.
   */
  listen(listener: TailListener): Disposable & { readonly ready: Promise<void> }
}

/** Called one after the other; must not throw or wait. */
export interface TailListener {
  onEvents(events: readonly LoggedEvent[]): void
  /** The process drains. */
  onEnd(): void
}

interface Run {
  readonly ready: Promise<void>
  /** Resolves when the current tick has ended. */
  stop(): Promise<void>
}

export function createEventTail(region: Region): EventTail {
  const listeners = new Set<TailListener>()
  let run: Run | undefined
  let ended = false

  function begin(): Run {
    let at: LogPosition | undefined
    let timer: NodeJS.Timeout | undefined
    let ticking: Promise<void> | undefined
    let stopped = false

    async function start(): Promise<void> {
      at = (await logBounds(region.reads)).head
      if (stopped) return
      timer = setInterval(() => {
        ticking ??= tick()
          .catch((error: unknown) => region.logFailure(error, 'following the event log failed; it goes on'))
          .finally(() => {
            ticking = undefined
          })
      }, TICK_MS)
      timer.unref()
    }

    async function tick(): Promise<void> {
      for (let full = true; full && at !== undefined; ) {
        const events = await readEvents(region.reads, { after: at, limit: PAGE })
        const last = events.at(-1)
        if (last === undefined || stopped) return
        at = { epoch: last.epoch, pos: last.pos }
        for (const listener of listeners) listener.onEvents(events)
        full = events.length === PAGE
      }
    }

    return {
      ready: start(),
      async stop() {
        stopped = true
        clearInterval(timer)
        await ticking
      },
    }
  }

  return {
    frames: createEventFrames(region.name),
    get listeners() {
      return listeners.size
    },
    listen(listener) {
      if (ended) throw new RegistryError('UNAVAILABLE', { headers: { 'Retry-After': '1' } })
      // Registered before the tail reads its position, so that no event is missed.
      listeners.add(listener)
      const mine = run ?? begin()
      run = mine
      const ready = mine.ready.catch((thrown: unknown) => {
        // The run failed to begin. The next listener starts a new one.
        if (run === mine) run = undefined
        throw thrown
      })
      // A listener that stops before it is ready ignores this error.
      ready.catch(() => {})
      return {
        ready,
        [Symbol.dispose]() {
          listeners.delete(listener)
          if (listeners.size > 0) return
          const last = run
          run = undefined
          void last?.stop()
        },
      }
    },
    async [Symbol.asyncDispose]() {
      ended = true
      const last = run
      run = undefined
      for (const listener of listeners) listener.onEnd()
      listeners.clear()
      await last?.stop()
    },
  }
}
