// The ids of upload sessions, which are the last part of their Locations. Each begins with the region whose store has
// the bytes, so that a node of any region can find the session, followed by the session's uuid.
//
// eu.<uuid>.2<until>.<signature>   given by POST: there is no row, and the first body may make it
// eu.<uuid>.s                      there is a row, and it holds all bytes so far: the closing PUT is one statement
// eu.<uuid>                        there is a row
//
// The signature covers region, repository, uuid, algorithm and time. An id therefore creates at most one session, only
// in the repository it was given for, and only within a quarter of an hour. Everything else in an id is a hint: the row
// decides. All nodes of a region share the key (shared/db/upload-key.ts). The time is the database's, whatever a node's
// clock says.
//
// A node reads the key again every few seconds, and on each use while the database has problems. A key that a crash has
// removed is therefore not used for long, and what it signed meanwhile is refused as unknown.

import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto'
import type { Queryable } from '#shared/db/statement.ts'
import { type UploadKey, uploadKey } from '#shared/db/upload-key.ts'
import type { UnbornUpload } from '#shared/db/uploads.ts'
import type { DigestAlgorithm } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'

/** Clients send the first byte at once. An ended session is remembered for the same time. */
const SIGNED_SECONDS_MAX = 15 * 60
const KEY_MS = 5_000
/** A signature that does not match may be made with a newer key. The key is read at most this often for that reason. */
const KEY_AGAIN_MS = 500

export interface UploadTarget {
  readonly repository: RepositoryName
  readonly id: string
}

export interface UploadReference {
  readonly uuid: string
  /** The id says that the row holds all bytes. */
  readonly small: boolean
  /** Set if the id may create its session. */
  readonly unborn: UnbornUpload | undefined
}

export interface UploadIds {
  /** Returns an id for a session that has no row. */
  begin(options: {
    repository: RepositoryName
    algorithm: DigestAlgorithm
  }): Promise<{ id: string; unborn: UnbornUpload }>
  /** Returns the id of a session that has a row. */
  ofRow(uuid: string, options: { small: boolean }): string
  /** Returns what an id says, or undefined for an id that this region never gave out for this repository. */
  read(target: UploadTarget): Promise<UploadReference | undefined>
}

/** Measured with this process's monotonic clock. */
type KnownKey = UploadKey & { readonly askedAtMs: number }

export interface UploadIdsOptions {
  region: string
  db: Queryable
  ttlSeconds: number
  /** Returns true while the database fails. A cached key is not trusted then. */
  trouble(): boolean
}

const PARTS =
  /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:\.(s)|\.([25])([0-9a-z]{8,9})\.([A-Za-z0-9_-]{22}))?$/
const ALGORITHMS: Readonly<Record<string, DigestAlgorithm>> = Object.freeze({ 2: 'sha256', 5: 'sha512' })
const SIGNATURE_BYTES = 16

export function createUploadIds({ region, db, ttlSeconds, trouble }: UploadIdsOptions): UploadIds {
  const prefix = `${region}.`
  const lifeMs = Math.min(ttlSeconds, SIGNED_SECONDS_MAX) * 1_000
  let known: KnownKey | undefined
  let asking: Promise<KnownKey> | undefined

  async function ask(): Promise<KnownKey> {
    try {
      const askedAtMs = performance.now()
      known = { ...(await uploadKey(db)), askedAtMs }
      return known
    } finally {
      asking = undefined
    }
  }

  function keyOf(ageMsMax: number): KnownKey | Promise<KnownKey> {
    if (known !== undefined && !trouble() && performance.now() - known.askedAtMs < ageMsMax) return known
    asking ??= ask()
    return asking
  }

  function signatureOf(key: UploadKey, repository: RepositoryName, signed: string): Buffer {
    return createHmac('sha256', key.secret)
      .update(`${prefix}${signed}\n${repository}`)
      .digest()
      .subarray(0, SIGNATURE_BYTES)
  }

  return {
    async begin({ repository, algorithm }) {
      const key = await keyOf(KEY_MS)
      const signedUntilMs = Math.floor(key.nowMs + performance.now() - key.askedAtMs + lifeMs)
      const uuid = randomUUID()
      const signed = `${uuid}.${algorithm === 'sha256' ? 2 : 5}${signedUntilMs.toString(36)}`
      const signature = signatureOf(key, repository, signed).toString('base64url')
      const unborn = { id: uuid, repository, algorithm, keyId: key.id, signedUntilMs }
      return { id: `${prefix}${signed}.${signature}`, unborn }
    },

    ofRow: (uuid, { small }) => `${prefix}${uuid}${small ? '.s' : ''}`,

    async read({ repository, id }) {
      if (!id.startsWith(prefix)) return undefined
      const [, uuid, small, algorithmText, until, signature] = PARTS.exec(id.slice(prefix.length)) ?? []
      if (uuid === undefined) return undefined
      if (algorithmText === undefined || until === undefined || signature === undefined) {
        return { uuid, small: small !== undefined, unborn: undefined }
      }
      const given = Buffer.from(signature, 'base64url')
      const fits = (key: UploadKey) =>
        timingSafeEqual(given, signatureOf(key, repository, `${uuid}.${algorithmText}${until}`))
      let key = await keyOf(KEY_MS)
      if (!fits(key)) key = await keyOf(KEY_AGAIN_MS)
      const algorithm = ALGORITHMS[algorithmText]
      if (algorithm === undefined || !fits(key)) return undefined
      const unborn = {
        id: uuid,
        repository,
        algorithm,
        keyId: key.id,
        signedUntilMs: Number.parseInt(until, 36),
      }
      return { uuid, small: false, unborn }
    },
  }
}
