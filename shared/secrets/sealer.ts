// Sealing: secret values are encrypted before they are written to a row. So a dump, an event and a replica hold only
// ciphertext.
//
// AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce. There may be several keys: the first seals, all open, so
// keys can be rotated. A sealed text names its key by an id that is derived from the key. It is bound to its place
// (kind, id and field) and does not open in any other place. If a value cannot be opened, SealError gives a reason that
// an operator can act on and that contains nothing of the value.

import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

const ALGORITHM = 'aes-256-gcm'
const KEY_BYTES = 32
const KEY_ID_BYTES = 8
const NONCE_BYTES = 12
const TAG_BYTES = 16
const PREFIX = 'sealed:1:'
const SEALED = /^sealed:1:([0-9a-f]{16}):([A-Za-z0-9_-]{38,})$/

export class SealError extends Error {
  override readonly name = 'SealError'
}

export interface Sealer {
  /** Id of the key that seals: 16 hexadecimal digits. */
  readonly keyId: string
  /** The prefix of every text that this sealer produces. */
  readonly prefix: string
  /** @param place where the value is stored; needed to open it */
  seal(text: string, place: string): string
  /** @throws SealError */
  open(sealed: string, place: string): string
}

interface Key {
  readonly id: string
  readonly bytes: Buffer
}

/** @param secrets the first seals, all open; at least one, each of 32 or more random characters */
export function createSealer(secrets: readonly string[]): Sealer {
  const keys = secrets.map(deriveKey)
  const [first] = keys
  if (first === undefined) throw new TypeError('a sealer needs at least one key')

  return {
    keyId: first.id,
    prefix: `${PREFIX}${first.id}:`,
    seal(text, place) {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv(ALGORITHM, first.bytes, nonce)
      cipher.setAAD(Buffer.from(place))
      const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return `${PREFIX}${first.id}:${sealed.toString('base64url')}`
    },
    open(sealed, place) {
      const [, id, text = ''] = SEALED.exec(sealed) ?? []
      if (id === undefined) throw new SealError('it is not a sealed value')
      const key = keys.find((one) => one.id === id)
      if (key === undefined)
        throw new SealError(`it is sealed under key ${id}, which PORTOLAN_SECRETS_KEY lacks`)
      const bytes = Buffer.from(text, 'base64url')
      const decipher = createDecipheriv(ALGORITHM, key.bytes, bytes.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      })
      decipher.setAAD(Buffer.from(place))
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
      try {
        const opened = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES))
        return Buffer.concat([opened, decipher.final()]).toString('utf8')
      } catch (cause) {
        throw new SealError('it was changed, or moved here from another place', { cause })
      }
    },
  }
}

/** Returns true if some sealer produced the text. */
export function isSealed(value: unknown): value is string {
  return typeof value === 'string' && value.startsWith('sealed:')
}

/** The id has its own derivation from the secret, so it reveals nothing about the key. */
function deriveKey(secret: string): Key {
  const derive = (purpose: string, bytes: number) =>
    Buffer.from(hkdfSync('sha256', secret, '', `portolan secrets ${purpose}`, bytes))
  return { id: derive('key id', KEY_ID_BYTES).toString('hex'), bytes: derive('key', KEY_BYTES) }
}
