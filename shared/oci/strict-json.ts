// JSON that reads the same for everybody. Parsers differ on duplicate keys, byte order marks, broken UTF-8 and
// fractional integers, and a registry whose reading of a manifest differs from the client's can be made to link one
// thing and serve another. So whatever is ambiguous is refused; what passes is plain data, parsed natively, plus one
// linear pass for what JSON.parse does not say.

/** Deeper than any manifest; parsers with small stacks stop near a thousand. */
const DEPTH_MAX = 64

export class JsonError extends Error {
  override readonly name = 'JsonError'
}

/** Fields that are integers: written with a fraction or an exponent, other parsers refuse them. */
const INTEGER_FIELDS: readonly string[] = Object.freeze(['size', 'schemaVersion'])

/** @throws JsonError with a sentence for the client. */
export function parseStrictJson(bytes: Uint8Array): unknown {
  const text = decodeUtf8(bytes)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new JsonError('not JSON', { cause })
  }
  checkKeys(text)
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
const BACKSLASH = 0x5c
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const COLON = 0x3a

/** The text is known to be valid JSON: only strings, brackets and colons need looking at. */
function checkKeys(text: string): void {
  // One entry per open bracket: an object's keys so far, undefined for an array.
  const open: (Set<string> | undefined)[] = []
  let index = 0
  while (index < text.length) {
    const code = text.charCodeAt(index)
    if (code === QUOTE) {
      index = checkString(text, index, open.at(-1))
      continue
    }
    if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (open.length === DEPTH_MAX) throw new JsonError(`nested deeper than ${DEPTH_MAX}`)
      open.push(code === OPEN_OBJECT ? new Set() : undefined)
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      open.pop()
    }
    index++
  }
}

/** Returns the index behind the string and, when it is a key, behind its colon. */
function checkString(text: string, start: number, keys: Set<string> | undefined): number {
  const end = endOfString(text, start)
  const colon = skipSpace(text, end)
  if (keys === undefined || text.charCodeAt(colon) !== COLON) return end
  const raw = text.slice(start, end)
  const key = raw.includes('\\') ? (JSON.parse(raw) as string) : raw.slice(1, -1)
  if (keys.has(key)) throw new JsonError('a key stands twice in one object')
  keys.add(key)
  if (INTEGER_FIELDS.includes(key)) checkInteger(text, skipSpace(text, colon + 1))
  return colon + 1
}

function endOfString(text: string, start: number): number {
  let quote = text.indexOf('"', start + 1)
  while (isEscaped(text, quote)) quote = text.indexOf('"', quote + 1)
  return quote + 1
}

function isEscaped(text: string, index: number): boolean {
  let slashes = 0
  while (text.charCodeAt(index - 1 - slashes) === BACKSLASH) slashes++
  return slashes % 2 === 1
}

function skipSpace(text: string, from: number): number {
  let index = from
  while (index < text.length && text.charCodeAt(index) <= 0x20) index++
  return index
}

function checkInteger(text: string, from: number): void {
  const token = /^-?[0-9.eE+-]{0,400}/.exec(text.slice(from, from + 401))?.[0] ?? ''
  if (/[.eE]/.test(token)) throw new JsonError('a size is not written as an integer')
}
