// Positions as clients see them: `<origin>:<epoch>:<pos>`. A write whose place in the log is not known yet has the form
// `<origin>:<epoch>:o<outbox id>`, which a push returns in Portolan-Position.

export interface Position {
  readonly origin: string
  readonly epoch: number
  readonly pos: number
}

export type ParsedPosition =
  | Position
  | { readonly origin: string; readonly epoch: number; readonly outboxId: number }

const POSITION = /^([a-z][a-z0-9-]{0,31}):([1-9][0-9]{0,8}):(o?)(0|[1-9][0-9]{0,15})$/

/** Returns undefined for anything else. Text over 60 characters is not parsed. */
export function parsePosition(text: string): ParsedPosition | undefined {
  if (text.length > 60) return undefined
  const match = POSITION.exec(text)
  const number = Number(match?.[4])
  if (match === null || !Number.isSafeInteger(number)) return undefined
  const [, origin = '', epoch, outbox] = match
  if (outbox === 'o' && number === 0) return undefined
  if (outbox === 'o') return { origin, epoch: Number(epoch), outboxId: number }
  return { origin, epoch: Number(epoch), pos: number }
}

export function formatPosition({ origin, epoch, pos }: Position): string {
  return `${origin}:${epoch}:${pos}`
}
