// Writes that need their repository's row. A write that finds the row missing creates the row and tries again. A
// concurrent delete of the repository may come between the two, so the number of tries is bounded.

import { ensureRepository } from '#shared/db/repositories.ts'
import { RegistryError } from '#shared/errors.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Registry } from './registry.ts'

const TRIES_MAX = 4

interface RepositoryMissing {
  readonly kind: 'repository-missing'
}

/**
 * Returns the outcome of `write` in a repository that exists. `mayCreate` throws if the write must not create one.
 *
 * @throws RegistryError UNAVAILABLE with Retry-After if the repository was deleted before each try
 */
export async function inRepository<Outcome extends { readonly kind: string }>(
  registry: Registry,
  options: {
    repository: RepositoryName
    write: () => Promise<Outcome | RepositoryMissing>
    mayCreate?: () => void
  },
): Promise<Exclude<Outcome, RepositoryMissing>> {
  const { repository, write, mayCreate } = options
  for (let tries = 1; tries <= TRIES_MAX; tries++) {
    const outcome = await write()
    if (outcome.kind !== 'repository-missing') return outcome as Exclude<Outcome, RepositoryMissing>
    mayCreate?.()
    await ensureRepository(registry.db, { name: repository, origin: registry.name })
  }
  throw new RegistryError('UNAVAILABLE', {
    message: 'the repository is being deleted again and again: try later',
    headers: { 'Retry-After': '1' },
  })
}
