// Pushes at the level of SQL statements, for tests of registers and races that do not need HTTP.

import { commitBlob } from '#shared/db/commit-blob.ts'
import type { Provenance } from '#shared/db/provenance.ts'
import { type ManifestPush, type PushOutcome, pushManifestRow } from '#shared/db/push-manifest.ts'
import { ensureRepository } from '#shared/db/repositories.ts'
import type { Queryable } from '#shared/db/statement.ts'
import type { Digest } from '#shared/oci/digest.ts'
import { parseRepositoryName, type RepositoryName, shardOf, type Tag } from '#shared/oci/reference.ts'
import { IMAGE, sha256 } from './image.ts'

export const provenance: Provenance = {
  actor: 'tester',
  request: { id: 'r1', addr: '127.0.0.1', host: 'localhost', method: 'PUT', userAgent: 'test' },
  traceparent: null,
  instance: 'test',
}

export function repositoryName(text: string): RepositoryName {
  const name = parseRepositoryName(text)
  if (name === undefined) throw new Error(`${text} is not a repository name`)
  return name
}

export const tags = (...names: string[]): Tag[] => names as Tag[]

/** A push of bytes without references. Options override any part of it. */
export function manifestPush(
  repository: RepositoryName,
  text: string,
  options: Partial<ManifestPush> = {},
): ManifestPush {
  const bytes = Buffer.from(text)
  return {
    repository,
    shard: shardOf(repository),
    origin: 'eu',
    digest: sha256(bytes),
    bytes,
    mediaType: IMAGE,
    references: [],
    artifactType: null,
    annotations: null,
    tags: [],
    singleImage: undefined,
    facts: { repository, digest: sha256(bytes) },
    manifestFacts: { references: [] },
    provenance,
    ...options,
  }
}

/** Pushes, and creates the repository first if it is missing. */
export async function push(
  db: Queryable,
  repository: RepositoryName,
  text: string,
  options: Partial<ManifestPush> = {},
): Promise<PushOutcome> {
  await ensureRepository(db, { name: repository, origin: 'eu' })
  return pushManifestRow(db, manifestPush(repository, text, options))
}

/** Links a blob without bytes to a repository. Returns its digest. */
export async function linkBlob(db: Queryable, repository: RepositoryName, text: string): Promise<Digest> {
  await ensureRepository(db, { name: repository, origin: 'eu' })
  const digest = sha256(text)
  await commitBlob(db, {
    repository,
    shard: shardOf(repository),
    origin: 'eu',
    store: 'file',
    object: { key: digest.slice('sha256:'.length, 'sha256:'.length + 32), size: text.length, digest },
    upload: null,
    provenance,
  })
  return digest
}
