// Lists: tags, repositories, referrers. Each page is one keyset query, whatever its depth; one row more than the page
// is read, to know whether there is a next one. Names are short, so their pages are cut by number; a referrer carries
// its annotations, so its pages are cut by bytes, in the database: what is not shown is never read.

import { type ReferrerRow, referrerPage } from '#shared/db/manifests.ts'
import { repositoryExists, repositoryPage } from '#shared/db/repositories.ts'
import { tagPage } from '#shared/db/tags.ts'
import { RegistryError } from '#shared/errors.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { REFERRER_ANNOTATIONS_BYTES_MAX } from '#shared/oci/manifest.ts'
import type { Page } from '#shared/oci/pagination.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Registry } from './registry.ts'

export interface Listed<T> {
  readonly items: readonly T[]
  /** Where the next page starts; undefined: this was the last. */
  readonly next: string | undefined
}

/** @throws RegistryError NAME_UNKNOWN for a repository that is not there; one without tags has an empty list */
export async function listTags(
  registry: Registry,
  options: { repository: RepositoryName; page: Page },
): Promise<Listed<string>> {
  const { repository, page } = options
  const tags =
    page.limit === 0
      ? []
      : await tagPage(registry.reads, { repository, last: page.last, limit: page.limit + 1 })
  if (tags.length === 0 && !(await repositoryExists(registry.reads, repository)))
    throw new RegistryError('NAME_UNKNOWN')
  return cut(tags, page.limit)
}

/** Repositories that `visible` lets the caller see; a page that is filtered short still says where the next starts. */
export async function listRepositories(
  registry: Registry,
  options: { page: Page; visible: (name: RepositoryName) => boolean },
): Promise<Listed<string>> {
  const { page, visible } = options
  if (page.limit === 0) return { items: [], next: undefined }
  const names = await repositoryPage(registry.reads, { last: page.last, limit: page.limit + 1 })
  const { items, next } = cut(names, page.limit)
  return { items: items.filter((name) => visible(name as RepositoryName)), next }
}

function cut(items: readonly string[], limit: number): Listed<string> {
  if (items.length <= limit) return { items, next: undefined }
  const kept = items.slice(0, limit)
  return { items: kept, next: kept.at(-1) }
}

/** Clients read at most 4 MiB and some follow no Link: pages are cut by bytes, well below that. */
const REFERRERS_BYTES_MAX = 3 * 1024 * 1024
const REFERRERS_ROWS_MAX = 2_000

/**
 * Live manifests of the repository that name the subject, oldest first; an unknown subject has none. Each item is a
 * descriptor in JSON: annotations go from the row to the answer as the text they are, never parsed.
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

/** `last` of a referrers page: the version and digest of the last one shown. */
function positionOf(after: string): { lastH: string; lastDigest: string } {
  const match = POSITION.exec(after)
  if (after !== '' && match === null) {
    throw new RegistryError('REQUEST_INVALID', { message: '`last` is not from a Link of ours' })
  }
  return { lastH: match?.[1] ?? '0', lastDigest: match?.[2] ?? '' }
}
