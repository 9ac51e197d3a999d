// A JSON parser that refuses whatever parsers read differently: duplicate keys, byte order marks, broken UTF-8 and
// fractional integers. If a registry reads a manifest differently from a client, an attacker can make it link one thing
// and serve another. So ambiguous text is refused. What passes is plain data, parsed by JSON.parse.
//
// A small text can be costly to parse: 4 MiB can hold a million arrays. So one linear pass over the bytes comes first.
// It allocates almost nothing and stops at the first exceeded bound. It also finds what JSON.parse does not report:
// sizes written as fractions, and the number of keys. If the parsed value has fewer keys, one was a duplicate. The pass
// need not understand broken JSON, because JSON.parse then refuses it.

/** Deeper than any manifest. Parsers with small stacks fail near a depth of a thousand. */
const DEPTH_MAX = 64
/**
 * Counts commas and opening brackets. Ten thousand descriptors need twenty each; a real index of a hundred has 1,000.
 */
const VALUES_MAX = 200_000
/** Per object. Distinct keys cost a parser most, and no manifest has a thousand annotations. */
const KEYS_MAX = 10_000

export class JsonError extends Error {
  override readonly name = 'JsonError'
}

/** Fields that hold integers. Other parsers refuse them when they are written with a fraction or an exponent. */
const INTEGER_FIELDS: readonly string[] = Object.freeze(['size', 'schemaVersion'])

/** @throws JsonError with a message for the client */
export function parseStrictJson(bytes: Uint8Array): unknown {
  const { keys } = measureJson(bytes)
  const text = decodeUtf8(bytes)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new JsonError('not JSON', { cause })
  }
  if (countKeys(value) !== keys) throw new JsonError('an object has a duplicate key')
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
 * Reads each byte a bounded number of times. The count of keys is meaningful only if the text is valid JSON.
 * @throws JsonError if the text is nested too deep, has too many values or keys, or has a size that is not an integer
 */
export function measureJson(bytes: ArrayLike<number>): { keys: number } {
  const { length } = bytes
  let depth = 0
  let values = 0
  let keys = 0
  const keysAt = new Int32Array(DEPTH_MAX + 1)
  // The last string seen, and whether it is the key of the current value.
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
        // Check once per value: text with two points is not a number anyway.
        keyed = false
        break
      case SMALL_E:
      case CAPITAL_E:
        // After a digit it is an exponent; otherwise it is a letter of true or false.
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

/** Returns the index after the closing quote, or the end of the text if there is none. */
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

/** Throws if the string at start..end, the key of a number with a fraction or an exponent, names an integer field. */
function refuseFraction(bytes: ArrayLike<number>, key: { start: number; end: number }): void {
  if (INTEGER_FIELDS.some((field) => spells(bytes, key, field)))
    throw new JsonError('a size is not written as an integer')
}

/** Compares letter by letter, each written as is or as \uXXXX. JSON has no other way to write a letter. */
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

/** Counts the own keys of all objects in the value. Its depth is bounded, because the text's depth was. */
function countKeys(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  const inside: unknown[] = Array.isArray(value) ? value : Object.values(value)
  let keys = Array.isArray(value) ? 0 : inside.length
  for (const one of inside) if (typeof one === 'object') keys += countKeys(one)
  return keys
}
