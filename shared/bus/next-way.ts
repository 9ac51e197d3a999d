// Decides whether a log is followed through the bus or read directly. Pure. The loop in follow.ts checks a subscription
// periodically, passes what it saw, and carries out the decision.
//
// If a bus with undelivered events delivers nothing, the subscription is renewed, up to REBUILDS_MAX times in a row. If
// the bus still delivers nothing, the log is read instead, and the bus is tried again after `retryBusMs`.

const REBUILDS_MAX = 2

export type Way = 'bus' | 'log'

export interface WayState {
  readonly way: Way
  /** When this way was chosen, on the clock of `Seen.nowMs`. */
  readonly sinceMs: number
  /** Consecutive checks in which the bus was quiet although it had events. */
  readonly strikes: number
  /** Subscriptions that were renewed because of that. */
  readonly rebuilds: number
  /** Batches that the subscription had delivered at the last check. */
  readonly brought: number
}

/** What one check sees. */
export interface Seen {
  readonly nowMs: number
  /** False if there is only the log. */
  readonly hasBus: boolean
  /** Batches that the subscription has delivered so far, handled or not. */
  readonly brought: number
  /** Batches that are being handled. */
  readonly underWay: number
  /** Pending events. Used only if the bus is quiet. */
  readonly lag: number
}

/** `renew`: end the subscription and subscribe by `state.way`. */
export interface Decision {
  readonly state: WayState
  readonly renew: boolean
  readonly why: string
}

/** The first check runs at once, before anything could arrive, so it never finds the bus quiet. */
export function firstWay(seen: Pick<Seen, 'nowMs' | 'hasBus'>): WayState {
  return { way: seen.hasBus ? 'bus' : 'log', sinceMs: seen.nowMs, strikes: 0, rebuilds: 0, brought: -1 }
}

/** Returns true if the bus delivered nothing since the last check. Only then is the lag needed. */
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
    return renew('trying the bus again', { way: 'bus', sinceMs: seen.nowMs, strikes: 0 })
  }
  if (!isQuiet(state, seen) || seen.lag === 0) return stay({ strikes: 0 })
  const strikes = state.strikes + 1
  if (strikes <= REBUILDS_MAX)
    return renew('the bus delivers nothing', { strikes, rebuilds: state.rebuilds + 1 })
  const why = `the bus delivered nothing for ${strikes} intervals of ${limits.quietMs} ms`
  return renew(why, { way: 'log', sinceMs: seen.nowMs, strikes })
}
