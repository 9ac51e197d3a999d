// Byte ranges: `Range` of downloads (RFC 9110, 14.2) and `Content-Range` of uploads. The latter follows the
// distribution-spec ("Pushing a blob in chunks"), which defines its own grammar: no unit, inclusive.

export interface ByteRange {
  readonly start: number
  /** Inclusive. */
  readonly end: number
}

/** More than any lazy puller sends. For more ranges, or overlapping ones, the whole blob is sent. */
const RANGES_MAX = 16
const HEADER_LENGTH_MAX = 1024

/**
 * Returns the ranges in the requested order, clamped to the size. 'whole': no usable Range, answer 200.
 * 'unsatisfiable': answer 416. A malformed header is ignored, as RFC 9110 requires.
 */
export function parseRange(
  header: string | undefined,
  size: number,
): 'whole' | 'unsatisfiable' | readonly ByteRange[] {
  if (header === undefined || header.length > HEADER_LENGTH_MAX) return 'whole'
  const unit = /^bytes=(.*)$/i.exec(header)
  if (unit?.[1] === undefined) return 'whole'
  const specs = unit[1].split(',')
  if (specs.length > RANGES_MAX) return 'whole'
  const ranges: ByteRange[] = []
  for (const spec of specs) {
    const match = /^[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*$/.exec(spec)
    if (match === null) return 'whole'
    const range = satisfy(match[1] ?? '', match[2] ?? '', size)
    if (range === 'malformed') return 'whole'
    if (range !== 'unsatisfiable') ranges.push(range)
  }
  if (ranges.length === 0) return 'unsatisfiable'
  return overlap(ranges) ? 'whole' : ranges
}

function satisfy(first: string, last: string, size: number): ByteRange | 'malformed' | 'unsatisfiable' {
  if (first === '') {
    if (last === '') return 'malformed'
    const suffix = Number(last)
    if (suffix === 0 || size === 0) return 'unsatisfiable'
    return { start: Math.max(0, size - suffix), end: size - 1 }
  }
  const start = Number(first)
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1)
  // `500-0` is malformed by the grammar. Clients expect 416 here, not the whole blob.
  return start >= size || start > end ? 'unsatisfiable' : { start, end }
}

function overlap(ranges: readonly ByteRange[]): boolean {
  const sorted = [...ranges].sort((a, b) => a.start - b.start)
  return sorted.some((range, index) => index > 0 && range.start <= (sorted[index - 1]?.end ?? -1))
}

/** Parses `Content-Range: <start>-<end>` of an upload. A `bytes ` prefix and a `/total` suffix are accepted. */
export function parseUploadRange(header: string | undefined): ByteRange | 'absent' | 'malformed' {
  if (header === undefined) return 'absent'
  if (header.length > 128) return 'malformed'
  const match = /^(?:bytes[ =])?([0-9]{1,15})-([0-9]{1,15})(?:\/(?:[0-9]{1,15}|\*))?$/.exec(header)
  if (match === null) return 'malformed'
  return { start: Number(match[1]), end: Number(match[2]) }
}

/** Formats `Range` of an upload response: no unit, inclusive. An empty session is `0-0`, as clients expect. */
export function formatUploadRange(size: number): string {
  return `0-${Math.max(0, size - 1)}`
}
