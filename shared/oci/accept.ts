// Which manifest answers a request by tag. RFC 9110 lets a server send what it has when nothing acceptable exists,
// and that serves every modern client; so the stored manifest is the answer always, but for one case: the tag names an
// index, and the client lists single-image types and no index type. It predates indexes and gets the linux/amd64 child.

import { manifestKind } from './media-type.ts'

const HEADER_LENGTH_MAX = 8192
/** The longest lists of real clients have ten. */
const TYPES_MAX = 128

/** True when the client can use an image manifest only. Quality values and parameters are ignored. */
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
