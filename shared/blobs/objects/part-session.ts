// What a session's row remembers of an upload to an object store: the upload in parts, if one was begun, what its parts
// are called, and the rest that cannot stand before further parts. JSON; read back by any node.

import type { StoredSession } from '../blob-store.ts'
import type { PartUpload } from './object-service.ts'

export interface PartNotes {
  readonly upload?: PartUpload
  /** In order; numbers count from 1. With `rest.key` the last one is provisional: the same bytes are in that object. */
  readonly parts: readonly { readonly tag: string; readonly size: number }[]
  /** Bytes that more bytes have to be put behind before they can be a part. Without `upload` this is all there is. */
  readonly rest?: { readonly key: string; readonly size: number } | { readonly base64: string }
}

export const NO_NOTES: PartNotes = Object.freeze({ parts: [] })

export function notesOf(session: Pick<StoredSession, 'parts'>): PartNotes {
  return (session.parts[0] as PartNotes | undefined) ?? NO_NOTES
}

export function restKey(notes: PartNotes): string | undefined {
  return notes.rest !== undefined && 'key' in notes.rest ? notes.rest.key : undefined
}

/** Keys under which a session has bytes. */
export function sessionKeys(parts: readonly unknown[]): string[] {
  return (parts as readonly PartNotes[]).flatMap((notes) =>
    [notes.upload?.key, restKey(notes)].filter((key) => key !== undefined),
  )
}

/** Parts that stay whatever follows: without a provisional last one. */
export function settledParts(notes: PartNotes): PartNotes['parts'] {
  return notes.upload !== undefined && restKey(notes) !== undefined ? notes.parts.slice(0, -1) : notes.parts
}
