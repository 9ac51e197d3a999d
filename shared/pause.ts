// A pause between two pieces of work that a signal can end early. An abort is not an error here, because loops check
// the signal themselves afterwards; any other failure is thrown. By default a pause does not keep the process alive.

import { setTimeout as timeout } from 'node:timers/promises'

/** Resolves after `ms`, or as soon as the signal aborts. `ref`: the pause keeps the process alive. */
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
