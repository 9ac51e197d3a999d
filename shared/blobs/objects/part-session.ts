// The state of an upload to an object store in the session's row: the upload in parts, if one was begun, the names of
// its parts, and the rest that cannot stand before further parts. JSON; any node can read it back.

import type { StoredSession } from '../blob-store.ts'
import type { PartUpload } from './object-service.ts'

export interface PartNotes {
  readonly upload?: PartUpload
  /** In order; numbers start at 1. With `rest.key` the last part is provisional: that object holds the same bytes. */
  readonly parts: readonly { readonly tag: string; readonly size: number }[]
  /** Bytes that need more bytes after them to become a part. Without `upload` the session holds only these. */
  readonly rest?: { readonly key: string; readonly size: number } | { readonly base64: string }
}

export const NO_NOTES: PartNotes = Object.freeze({ parts: [] })

export function notesOf(session: Pick<StoredSession, 'parts'>): PartNotes {
  return (session.parts[0] as PartNotes | undefined) ?? NO_NOTES
}

export function restKey(notes: PartNotes): string | undefined {
  return notes.rest !== undefined && 'key' in notes.rest ? notes.rest.key : undefined
}

/** Keys under which the session has bytes. */
export function sessionKeys(parts: readonly unknown[]): string[] {
  return (parts as readonly PartNotes[]).flatMap((notes) =>
    [notes.upload?.key, restKey(notes)].filter((key) => key !== undefined),
  )
}

/** Parts that stay whatever follows: all except a provisional last one. */
export function settledParts(notes: PartNotes): PartNotes['parts'] {
  return notes.upload !== undefined && restKey(notes) !== undefined ? notes.parts.slice(0, -1) : notes.parts
}
