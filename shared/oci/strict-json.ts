// JSON that reads the same for everybody. Parsers differ on duplicate keys, byte order marks, broken UTF-8 and
// fractional integers, and a registry whose reading of a manifest differs from the client's can be made to link one
// thing and serve another. So whatever is ambiguous is refused; what passes is plain data, parsed natively.
//
// A small text can be costly to parse: 4 MiB hold a million arrays. So one linear pass over the bytes comes first. It
// allocates next to nothing, stops at the first bound that is passed, and finds what JSON.parse does not tell: sizes
// written as fractions, and the number of keys. If the parsed value has fewer, one stood twice. The pass need not
// understand broken JSON: JSON.parse refuses that next.

/** Deeper than any manifest; parsers with small stacks stop near a thousand. */
const DEPTH_MAX = 64
/** Commas and opening brackets. Twenty for each of ten thousand descriptors; a real index of a hundred has a thousand. */
const VALUES_MAX = 200_000
/** Of one object. Distinct keys are what costs a parser most, and no manifest has a thousand annotations. */
const KEYS_MAX = 10_000

export class JsonError extends Error {
  override readonly name = 'JsonError'
}

/** Fields that are integers: written with a fraction or an exponent, other parsers refuse them. */
const INTEGER_FIELDS: readonly string[] = Object.freeze(['size', 'schemaVersion'])

/** @throws JsonError with a sentence for the client. */
export function parseStrictJson(bytes: Uint8Array): unknown {
  const { keys } = measureJson(bytes)
  const text = decodeUtf8(bytes)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new JsonError('not JSON', { cause })
  }
  if (countKeys(value) !== keys) throw new JsonError('a key stands twice in one object')
  return value
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    // ignoreBOM keeps a byte order mark in the text, where JSON.parse refuses it.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new JsonError('not UTF-8', { cause })
  }
}

const QUOTE = 0x22
const COMMA = 0x2c
const POINT = 0x2e
const ZERO = 0x30
const NINE = 0x39
const COLON = 0x3a
const CAPITAL_E = 0x45
const OPEN_ARRAY = 0x5b
const BACKSLASH = 0x5c
const CLOSE_ARRAY = 0x5d
const SMALL_E = 0x65
const SMALL_U = 0x75
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

/**
 * Looks at each byte a fixed number of times. The count of keys means something only for a text that is JSON.
 * @throws JsonError for one that is nested too deep, holds too many values or keys, or has a size that is no integer
 */
export function measureJson(bytes: ArrayLike<number>): { keys: number } {
  const { length } = bytes
  let depth = 0
  let values = 0
  let keys = 0
  const keysAt = new Int32Array(DEPTH_MAX + 1)
  // The string seen last, and whether it is the key of the value at hand.
  let start = 0
  let end = 0
  let keyed = false
  for (let index = 0; index < length; index++) {
    switch (bytes[index]) {
      case QUOTE:
        start = index
        end = endOfString(bytes, index)
        index = end - 1
        break
      case COLON:
        keys++
        keysAt[depth] = (keysAt[depth] ?? 0) + 1
        if ((keysAt[depth] ?? 0) > KEYS_MAX) throw new JsonError(`more than ${KEYS_MAX} keys in one object`)
        keyed = true
        break
      case OPEN_OBJECT:
      case OPEN_ARRAY:
        if (++depth > DEPTH_MAX) throw new JsonError(`nested deeper than ${DEPTH_MAX}`)
        keysAt[depth] = 0
        keyed = false
        values++
        break
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        depth--
        keyed = false
        break
      case COMMA:
        keyed = false
        values++
        break
      case POINT:
        if (keyed) refuseFraction(bytes, { start, end })
        // One look for each value: what has two points is no number anyway.
        keyed = false
        break
      case SMALL_E:
      case CAPITAL_E:
        // After a digit an exponent, else a letter of true or false.
        if (keyed && isDigit(bytes[index - 1])) {
          refuseFraction(bytes, { start, end })
          keyed = false
        }
        break
    }
    if (values > VALUES_MAX) throw new JsonError(`more than ${VALUES_MAX} values`)
  }
  return { keys }
}

/** The index behind the closing quote, or the end of a text that has none. */
function endOfString(bytes: ArrayLike<number>, start: number): number {
  const { length } = bytes
  for (let index = start + 1; index < length; index++) {
    const byte = bytes[index]
    if (byte === QUOTE) return index + 1
    if (byte === BACKSLASH) index++
  }
  return length
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= NINE
}

/** The string at start..end is the key of a number that has a fraction or an exponent. */
function refuseFraction(bytes: ArrayLike<number>, key: { start: number; end: number }): void {
  if (INTEGER_FIELDS.some((field) => spells(bytes, key, field)))
    throw new JsonError('a size is not written as an integer')
}

/** Letter by letter, each as it is or as \uXXXX: JSON knows no other way to write one. */
function spells(
  bytes: ArrayLike<number>,
  { start, end }: { start: number; end: number },
  field: string,
): boolean {
  let at = start + 1
  for (let letter = 0; letter < field.length; letter++) {
    const code = field.charCodeAt(letter)
    if (bytes[at] === code) at++
    else if (bytes[at] === BACKSLASH && bytes[at + 1] === SMALL_U && hexadecimal(bytes, at + 2) === code)
      at += 6
    else return false
  }
  return at === end - 1
}

function hexadecimal(bytes: ArrayLike<number>, start: number): number {
  const digits = [0, 1, 2, 3].map((place) => String.fromCharCode(bytes[start + place] ?? 0))
  return Number.parseInt(digits.join(''), 16)
}

/** Own keys of all objects in the value; as deep as the text was, which has a bound. */
function countKeys(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  const inside: unknown[] = Array.isArray(value) ? value : Object.values(value)
  let keys = Array.isArray(value) ? 0 : inside.length
  for (const one of inside) if (typeof one === 'object') keys += countKeys(one)
  return keys
}
