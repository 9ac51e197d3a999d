// Decides whether a log is followed by the bus or read directly. Pure: the loop that looks at a subscription every so
// often (follow.ts) passes what it saw and does what it is told.
//
// A bus that delivers nothing although it has something is subscribed to again, REBUILDS_MAX times in a row. If it still
// delivers nothing, the log is read instead, and the bus is tried again after `retryBusMs`.

const REBUILDS_MAX = 2

export type Way = 'bus' | 'log'

export interface WayState {
  readonly way: Way
  /** When this way was taken, on the clock of `Seen.nowMs`. */
  readonly sinceMs: number
  /** Looks in a row at which the bus was quiet although it had something. */
  readonly strikes: number
  /** Subscriptions that were renewed because of that. */
  readonly rebuilds: number
  /** Batches the subscription had brought at the last look. */
  readonly brought: number
}

/** What a look finds. */
export interface Seen {
  readonly nowMs: number
  /** False: there is only the log. */
  readonly hasBus: boolean
  /** Batches the subscription has brought so far, taken or not. */
  readonly brought: number
  /** Batches that are with the handler. */
  readonly underWay: number
  /** Events still to come. Counts only if the bus is quiet. */
  readonly lag: number
}

/** `renew`: end the subscription and subscribe by `state.way`. */
export interface Decision {
  readonly state: WayState
  readonly renew: boolean
  readonly why: string
}

/** The first look comes at once, when nothing could have arrived: it never finds the bus quiet. */
export function firstWay(seen: Pick<Seen, 'nowMs' | 'hasBus'>): WayState {
  return { way: seen.hasBus ? 'bus' : 'log', sinceMs: seen.nowMs, strikes: 0, rebuilds: 0, brought: -1 }
}

/** True when the bus brought nothing since the last look: only then does the lag have to be asked for. */
export function isQuiet(state: WayState, seen: Pick<Seen, 'brought' | 'underWay'>): boolean {
  return state.way === 'bus' && seen.brought === state.brought && seen.underWay === 0
}

export function nextWay(
  state: WayState,
  seen: Seen,
  limits: { quietMs: number; retryBusMs: number },
): Decision {
  const stay = (next: Partial<WayState> = {}): Decision => ({
    state: { ...state, brought: seen.brought, ...next },
    renew: false,
    why: '',
  })
  const renew = (why: string, next: Partial<WayState>): Decision => ({
    state: { ...state, brought: seen.brought, ...next },
    renew: true,
    why,
  })
  if (state.way === 'log') {
    if (!seen.hasBus || seen.nowMs - state.sinceMs <= limits.retryBusMs) return stay()
    return renew('the bus is tried again', { way: 'bus', sinceMs: seen.nowMs, strikes: 0 })
  }
  if (!isQuiet(state, seen) || seen.lag === 0) return stay({ strikes: 0 })
  const strikes = state.strikes + 1
  if (strikes <= REBUILDS_MAX)
    return renew('the bus delivers nothing', { strikes, rebuilds: state.rebuilds + 1 })
  const why = `the bus delivered nothing for ${strikes} times ${limits.quietMs} ms`
  return renew(why, { way: 'log', sinceMs: seen.nowMs, strikes })
}
