// Lists: tags, repositories, referrers. Each page is one keyset query, whatever its depth. Reads of tags and
// repositories are exact, and come from memory if nothing has changed (db/pages.ts). Names are short, so pages of names
// are limited by count. A referrer carries its annotations, so pages of referrers are limited by bytes, in the
// database: annotations that do not fit are never read.

import { type ReferrerRow, referrerPage } from '#shared/db/manifests.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { REFERRER_ANNOTATIONS_BYTES_MAX } from '#shared/oci/manifest.ts'
import type { Page } from '#shared/oci/pagination.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Registry } from './registry.ts'

export interface Listed<T> {
  readonly items: readonly T[]
  /** Where the next page starts. undefined: this is the last page. */
  readonly next: string | undefined
}

/** @throws RegistryError NAME_UNKNOWN if the repository does not exist; a repository without tags has an empty list */
export async function listTags(
  registry: Registry,
  options: { repository: RepositoryName; page: Page },
): Promise<ListedNames> {
  const { repository, page } = options
  const found = await registry.pages.read({ repository, ...page })
  if (found === undefined || !found.exists) throw new RegistryError('NAME_UNKNOWN')
  return found
}

/**
 * Lists the repositories that `visible` lets the caller see. A page that the filter shortens still says where the next
 * page starts.
 */
export async function listRepositories(
  registry: Registry,
  options: { page: Page; visible: (name: RepositoryName) => boolean },
): Promise<ListedNames> {
  const { page, visible } = options
  if (page.limit === 0) return NO_NAMES
  const found = await registry.pages.read({ repository: undefined, ...page })
  if (found === undefined) return NO_NAMES
  const shown = found.names.filter((name) => visible(name as RepositoryName))
  return shown.length === found.names.length ? found : { json: JSON.stringify(shown), next: found.next }
}

/** A page of names, as the JSON array of the response. */
export interface ListedNames {
  readonly json: string
  /** Where the next page starts. undefined: this is the last page. */
  readonly next: string | undefined
}

const NO_NAMES: ListedNames = Object.freeze({ json: '[]', next: undefined })

/** Clients read at most 4 MiB and some do not follow Link. Pages are limited by bytes, well below that. */
const REFERRERS_BYTES_MAX = 3 * 1024 * 1024
const REFERRERS_ROWS_MAX = 2_000

/**
 * Lists live manifests of the repository that name the subject, oldest first. An unknown subject has none. Each item is
 * a descriptor in JSON. Annotations are copied from the row to the response as text and never parsed.
 */
export async function listReferrers(
  registry: Registry,
  options: { repository: RepositoryName; subject: Digest; artifactTypes: readonly string[]; after: string },
): Promise<Listed<string>> {
  const { repository, subject, artifactTypes, after } = options
  const { rows, more } = await referrerPage(registry.reads, {
    repository,
    subject,
    artifactTypes,
    ...positionOf(after),
    limit: REFERRERS_ROWS_MAX,
    bytesMax: REFERRERS_BYTES_MAX,
    annotationsBytesMax: REFERRER_ANNOTATIONS_BYTES_MAX,
  })
  const last = rows.at(-1)
  return { items: rows.map(descriptor), next: more && last ? `${last.h}.${last.digest}` : undefined }
}

function descriptor({ mediaType, digest, size, artifactType, annotations }: ReferrerRow): string {
  const fields = JSON.stringify({ mediaType, digest, size, ...(artifactType !== null && { artifactType }) })
  return annotations === null ? fields : `${fields.slice(0, -1)},"annotations":${annotations}}`
}

const POSITION = /^([0-9]{1,18})\.(sha[a-z0-9:]{1,200})$/

/** `last` of a referrers page: the version and digest of the last referrer shown. */
function positionOf(after: string): { lastH: string; lastDigest: string } {
  const match = POSITION.exec(after)
  if (after !== '' && match === null) {
    throw new RegistryError('REQUEST_INVALID', { message: '`last` is not from a Link of ours' })
  }
  return { lastH: match?.[1] ?? '0', lastDigest: match?.[2] ?? '' }
}
