// The end of the log, followed once per process for everybody who listens: one cheap query per tick while anyone does,
// none when nobody does, however many there are.

import { type LoggedEvent, type LogPosition, logBounds, readEvents } from '#shared/db/event-log.ts'
import type { Region } from '#shared/region.ts'
import { createEventFrames, type EventFrames } from './event-frames.ts'

const TICK_MS = 50
const PAGE = 200

export interface EventTail extends AsyncDisposable {
  /** What streams send of the events they are told of. */
  readonly frames: EventFrames
  /** Resolves when the listener is told of everything that is logged from then on. */
  listen(listener: TailListener): Promise<{ stop(): void }>
}

/** Called in turn; must not throw or wait. */
export interface TailListener {
  onEvents(events: readonly LoggedEvent[]): void
  /** The process drains. */
  onEnd(): void
}

export function createEventTail(region: Region): EventTail {
  const listeners = new Set<TailListener>()
  let at: LogPosition | undefined
  let timer: NodeJS.Timeout | undefined
  let ticking: Promise<void> | undefined
  let starting: Promise<void> | undefined

  async function begin(): Promise<void> {
    at = (await logBounds(region.reads)).head
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
      if (last === undefined || timer === undefined) return
      at = { epoch: last.epoch, pos: last.pos }
      for (const listener of listeners) listener.onEvents(events)
      full = events.length === PAGE
    }
  }

  function end(): void {
    clearInterval(timer)
    timer = undefined
    starting = undefined
    at = undefined
  }

  return {
    frames: createEventFrames(region.name),
    async listen(listener) {
      // Registered before the tail is where it says it is: nothing falls between.
      listeners.add(listener)
      starting ??= begin()
      try {
        await starting
      } catch (thrown) {
        listeners.delete(listener)
        starting = undefined
        throw thrown
      }
      return {
        stop() {
          listeners.delete(listener)
          if (listeners.size === 0) end()
        },
      }
    },
    async [Symbol.asyncDispose]() {
      for (const listener of listeners) listener.onEnd()
      listeners.clear()
      end()
      await ticking
    },
  }
}
