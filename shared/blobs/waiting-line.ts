// A line of those who wait for a share of something bounded, first come first served. Whoever's signal aborts leaves it
// and holds nobody up.

export interface WaitingLine<Wanted, Granted> {
  readonly length: number
  /** Resolves when served. @throws the signal's reason when it aborts first */
  wait(wanted: Wanted, signal: AbortSignal): Promise<Granted>
  /** Serves from the front for as long as there is enough: `grant` returns undefined when there is not. */
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
