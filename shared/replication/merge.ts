// Merges registers of other regions, whatever their source: a peer's log, its response to a miss, a comparison, a
// bootstrap. This is the only path by which anything of another region becomes visible here.
//
// The input is first merged with itself (shared/convergence), so that each register occurs once. It is then merged into
// the rows by a fixed number of statements in the lock order. Finally the resulting links are derived, and conflicts
// are found.

import {
  type Alive,
  type Death,
  type Events,
  emptyRepository,
  type Repository,
  type TagVersion,
} from '#shared/convergence/registers.ts'
import type { Version } from '#shared/convergence/version.ts'
import { findDeleteConflicts, findTagConflicts, type Touched } from '#shared/db/conflicts.ts'
import {
  type MergedMember,
  type MergedRepository,
  mergeMemberships,
  mergeRepositories,
} from '#shared/db/merge-registers.ts'
import { type MergedTag, mergeTagVersions } from '#shared/db/merge-tags.ts'
import type { Queryable } from '#shared/db/statement.ts'
import { tellDeleteConflicts, tellTagConflicts } from '#shared/db/tell-conflicts.ts'

/** Registers by repository name. All repositories belong to one shard. */
export type Registers = ReadonlyMap<string, Repository>

/** Returns the entry of a repository in `changes`, and creates it if there is none. */
export function registersOf(changes: Map<string, Repository>, name: string): Repository {
  const known = changes.get(name)
  if (known !== undefined) return known
  const made = emptyRepository()
  changes.set(name, made)
  return made
}

/**
 * Merges the registers within the caller's transaction. `byLog`: they come from their origin's log, in its order, and
 * the cursor moves in this transaction. Otherwise they arrive early, before their events.
 */
export async function mergeRegisters(
  transaction: Queryable,
  options: { registers: Registers; shard: number; byLog: boolean },
): Promise<void> {
  const { registers, shard, byLog } = options
  if (registers.size === 0) return
  const repositories = [...registers].map(([name, repository]) => repositoryRow(name, shard, repository))
  const died = repositories.filter(({ deadBy }) => deadBy !== null).map(({ name }) => name)
  const ids = await mergeRepositories(transaction, repositories)
  const members = [...registers].flatMap(([name, repository]) => memberRows(name, repository))
  await mergeMemberships(transaction, { ids, members, died, shard, byLog })
  const versions = [...registers].flatMap(([name, repository]) => tagRows(name, repository))
  await mergeTagVersions(transaction, { ids, versions, shard, byLog })
  const tags = [...registers].flatMap(([repository, { tags }]) =>
    [...tags.keys()].map((name) => ({ repository, name })),
  )
  const touched = touchedBy({ died, members, versions })
  await findTagConflicts(transaction, { ids, tags })
  await tellTagConflicts(transaction, { ids, tags, shard })
  await findDeleteConflicts(transaction, { ids, touched })
  await tellDeleteConflicts(transaction, { ids, touched, shard })
}

function repositoryRow(name: string, shard: number, { alive, dead }: Repository): MergedRepository {
  return { name, shard, alive: textOf(alive), dead: textOf(dead.version), deadBy: knowledgeOf(dead) }
}

function memberRows(repository: string, { manifests, links }: Repository): MergedMember[] {
  return [
    ...[...manifests].map(([digest, { alive, dead }]) => ({
      repository,
      kind: 'manifest' as const,
      digest,
      ...aliveColumns(alive),
      dead: textOf(dead.version),
      deadBy: knowledgeOf(dead),
    })),
    // A link's `alive` is local: it is derived here.
    ...[...links].map(([digest, { dead }]) => ({
      repository,
      kind: 'blob' as const,
      digest,
      mediaType: 'application/octet-stream',
      alive: NEVER,
      prev: NEVER,
      written: { epoch: 0, id: 0 },
      events: null,
      dead: textOf(dead.version),
      deadBy: knowledgeOf(dead),
    })),
  ]
}

const NEVER = Object.freeze({ h: '0', origin: '' })

function aliveColumns({ version, mediaType, prev, events, written }: Alive) {
  return { mediaType, alive: textOf(version), prev: textOf(prev), events: knownEvents(events), written }
}

function tagRows(repository: string, { tags }: Repository): MergedTag[] {
  return [...tags].flatMap(([name, { history }]) =>
    [...history.values()].map((version) => tagRow(repository, name, version)),
  )
}

function tagRow(repository: string, name: string, tag: TagVersion): MergedTag {
  const { version, prev, digest, alive, written, events, by } = tag
  return {
    repository,
    name,
    digest,
    h: String(version.h),
    origin: version.origin,
    prevH: String(prev.h),
    prevOrigin: prev.origin,
    alive,
    actor: by?.actor ?? '',
    at: by?.at ?? '1970-01-01T00:00:00.000Z',
    written,
    events: knownEvents(events),
  }
}

function knownEvents(events: Events): Events | null {
  return events.length === 0 ? null : events
}

function textOf({ h, origin }: Version): { h: string; origin: string } {
  return { h: String(h), origin }
}

/** Returns what the death's row stores besides its version. */
function knowledgeOf({ version, seen, early, written, lineage }: Death) {
  if (version.h === 0n) return null
  const told = early.map(({ subject, value, version }) => ({ subject, value, version: textOf(version) }))
  return { seen, early: told, written, lineage }
}

/** Returns what must be evaluated again: everything that a death may have killed, and each write itself. */
function touchedBy(merged: {
  died: readonly string[]
  members: readonly MergedMember[]
  versions: readonly MergedTag[]
}): Touched[] {
  const { died, members, versions } = merged
  const everything = new Set(died)
  return [
    ...died.map((repository) => ({ repository, name: null, digest: null })),
    ...members
      .filter(({ kind, repository }) => kind === 'manifest' && !everything.has(repository))
      .map(({ repository, digest, deadBy }) => ({
        repository,
        name: deadBy === null ? digest : null,
        digest,
      })),
    ...versions
      .filter(({ repository }) => !everything.has(repository))
      .map(({ repository, name, digest }) => ({ repository, name, digest })),
  ]
}
