// A first-come, first-served queue for shares of a bounded resource. A waiter whose signal aborts leaves the queue and
// does not delay others.

export interface WaitingLine<Wanted, Granted> {
  readonly length: number
  /** Resolves when served. @throws the reason of the signal if it aborts first */
  wait(wanted: Wanted, signal: AbortSignal): Promise<Granted>
  /** Serves from the front while the resource lasts: `grant` returns undefined when it is exhausted. */
  serve(grant: (wanted: Wanted) => Granted | undefined): void
}

export function createWaitingLine<Wanted, Granted>(): WaitingLine<Wanted, Granted> {
  const waiting: { wanted: Wanted; serve: (granted: Granted) => void }[] = []
  return {
    get length() {
      return waiting.length
    },
    wait(wanted, signal) {
      return new Promise((resolve, reject) => {
        const entry = {
          wanted,
          serve: (granted: Granted) => {
            signal.removeEventListener('abort', leave)
            resolve(granted)
          },
        }
        const leave = () => {
          waiting.splice(waiting.indexOf(entry), 1)
          reject(signal.reason)
        }
        waiting.push(entry)
        signal.addEventListener('abort', leave, { once: true })
      })
    },
    serve(grant) {
      for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
        const granted = grant(next.wanted)
        if (granted === undefined) return
        waiting.shift()
        next.serve(granted)
      }
    },
  }
}
