// Chooses the manifest that answers a request by tag. RFC 9110 lets a server send what it has if nothing acceptable
// exists, and this works for every modern client. So the answer is always the stored manifest, with one exception: the
// tag names an index, and the client lists single-image types but no index type. Such a client predates indexes and
// gets the linux/amd64 child.

import { manifestKind } from './media-type.ts'

const HEADER_LENGTH_MAX = 8192
/** The longest lists that real clients send have ten entries. */
const TYPES_MAX = 128

/** Returns true if the client can use only an image manifest. Quality values and parameters are ignored. */
export function wantsSingleImage(accept: string | undefined): boolean {
  if (accept === undefined || accept.length > HEADER_LENGTH_MAX) return false
  const items = accept.split(',', TYPES_MAX + 1)
  if (items.length > TYPES_MAX) return false
  let image = false
  for (const item of items) {
    const type = (item.split(';', 1)[0] ?? '').trim().toLowerCase()
    if (type === '*/*' || type === 'application/*') return false
    const kind = manifestKind(type)
    if (kind === 'index') return false
    if (kind === 'image') image = true
  }
  return image
}
