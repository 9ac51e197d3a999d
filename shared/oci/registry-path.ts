// The only router of the registry API. It works on the raw request target.
//
// Names contain slashes and may contain components called `blobs`, `manifests` or `tags`, so paths are read from the
// right: `/v2/a/manifests/b/manifests/latest` is the tag `latest` of the repository `a/manifests/b`. Nothing is
// decoded. A percent sign is allowed only as %3A in the last segment, because some clients escape the colon of a
// digest. So `..%2f`, NULs and double decoding cannot occur behind this function. It never throws.

import { parseRepositoryName, type RepositoryName } from './reference.ts'

/** Longer targets are refused. A name, a sha512 digest and ten tags need less than half of this. */
export const TARGET_LENGTH_MAX = 8192

export type RegistryPath =
  | { readonly route: 'base'; readonly query: string }
  | { readonly route: 'catalog'; readonly query: string }
  | { readonly route: 'blob'; readonly name: RepositoryName; readonly digest: string; readonly query: string }
  | { readonly route: 'uploads'; readonly name: RepositoryName; readonly query: string }
  | { readonly route: 'upload'; readonly name: RepositoryName; readonly id: string; readonly query: string }
  | {
      readonly route: 'manifest'
      readonly name: RepositoryName
      readonly reference: string
      readonly query: string
    }
  | { readonly route: 'tags'; readonly name: RepositoryName; readonly query: string }
  | {
      readonly route: 'referrers'
      readonly name: RepositoryName
      readonly digest: string
      readonly query: string
    }
  | { readonly route: 'unknown' }
  | { readonly route: 'invalid'; readonly reason: 'name' | 'target-too-long' }

const UNKNOWN: RegistryPath = Object.freeze({ route: 'unknown' })
const INVALID_NAME: RegistryPath = Object.freeze({ route: 'invalid', reason: 'name' })
const TOO_LONG: RegistryPath = Object.freeze({ route: 'invalid', reason: 'target-too-long' })

const PREFIX = '/v2/'
const UPLOAD_ID = /^[A-Za-z0-9_.=-]{1,128}$/
/** Characters allowed in the last segment after %3A is read as a colon. No other text can be a reference. */
const SEGMENT = /^[A-Za-z0-9_.:=+@~-]+$/

export function matchRegistryPath(target: string): RegistryPath {
  if (target.length > TARGET_LENGTH_MAX) return TOO_LONG
  const mark = target.indexOf('?')
  const path = mark === -1 ? target : target.slice(0, mark)
  const query = mark === -1 ? '' : target.slice(mark + 1)
  if (path === '/v2/' || path === '/v2') return { route: 'base', query }
  if (!path.startsWith(PREFIX)) return UNKNOWN
  if (path === '/v2/_catalog') return { route: 'catalog', query }

  if (path.endsWith('/blobs/uploads/')) return named(path, '/blobs/uploads/'.length, uploads, '', query)
  if (path.endsWith('/blobs/uploads')) return named(path, '/blobs/uploads'.length, uploads, '', query)
  if (path.endsWith('/tags/list')) return named(path, '/tags/list'.length, tags, '', query)

  const slash = path.lastIndexOf('/')
  const raw = path.slice(slash + 1)
  const last = raw.includes('%') ? raw.replace(/%3a/gi, ':') : raw
  if (!SEGMENT.test(last)) return raw === '' ? UNKNOWN : lastIsWrong(path.slice(0, slash), last, query)
  return matchLast(path.slice(0, slash), last, query)
}

type Make = (name: RepositoryName, last: string, query: string) => RegistryPath

const uploads: Make = (name, _last, query) => ({ route: 'uploads', name, query })
const tags: Make = (name, _last, query) => ({ route: 'tags', name, query })
const upload: Make = (name, id, query) =>
  UPLOAD_ID.test(id) ? { route: 'upload', name, id, query } : UNKNOWN
const blob: Make = (name, digest, query) => ({ route: 'blob', name, digest, query })
const manifest: Make = (name, reference, query) => ({ route: 'manifest', name, reference, query })
const referrers: Make = (name, digest, query) => ({ route: 'referrers', name, digest, query })

function matchLast(head: string, last: string, query: string): RegistryPath {
  if (head.endsWith('/manifests')) return named(head, '/manifests'.length, manifest, last, query)
  if (head.endsWith('/blobs/uploads')) return named(head, '/blobs/uploads'.length, upload, last, query)
  if (head.endsWith('/blobs')) return named(head, '/blobs'.length, blob, last, query)
  if (head.endsWith('/referrers')) return named(head, '/referrers'.length, referrers, last, query)
  return UNKNOWN
}

/** A last segment that no grammar allows still belongs to its route, which then reports what is wrong with it. */
function lastIsWrong(head: string, last: string, query: string): RegistryPath {
  const match = matchLast(head, last, query)
  return match.route === 'upload' ? UNKNOWN : match
}

function named(path: string, suffixLength: number, make: Make, last: string, query: string): RegistryPath {
  const text = path.slice(PREFIX.length, path.length - suffixLength)
  const name = parseRepositoryName(text)
  return name === undefined ? INVALID_NAME : make(name, last, query)
}
