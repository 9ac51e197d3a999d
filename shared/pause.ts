// A pause between two pieces of work, which a signal ends early. Loops look at the signal themselves when it returns, so
// an abort is no error here; anything else is. A pause holds no process that has nothing else to do, unless it is told to.

import { setTimeout as timeout } from 'node:timers/promises'

/** Resolves after `ms`, or as soon as the signal aborts. `ref`: the process does not end meanwhile. */
export async function pause(
  ms: number,
  options: { signal?: AbortSignal | undefined; ref?: boolean } = {},
): Promise<void> {
  const { signal, ref = false } = options
  try {
    await timeout(ms, undefined, { ref, ...(signal !== undefined && { signal }) })
  } catch (thrown) {
    if (signal?.aborted !== true) throw thrown
  }
}
