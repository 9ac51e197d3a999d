// Every writer of a region's registers as one call each, for tests that race them. A call resolves with 'ok' or the
// code of the rejection. An error that would be a 500 throws. The duration of the slowest call is recorded.

import { RegistryError } from '#shared/errors.ts'
import type { WriteConditions } from '#shared/oci/conditional.ts'
import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import type { Region } from '#shared/region.ts'
import { mountFrom } from '#shared/registry/mount-blob.ts'
import { pushWholeBlob } from '#shared/registry/push-blob.ts'
import { pushManifest } from '#shared/registry/push-manifest.ts'
import type { Registry } from '#shared/registry/registry.ts'
import { deleteContent, deleteRepository, deleteTag } from '#shared/registry/remove.ts'
import { addWebhook, changeWebhook, removeWebhook, subscriptions } from '#shared/webhooks/subscriptions.ts'
import { CONFIG, descriptor, IMAGE, LAYER, manifestOf, sha256, type TestManifest } from './image.ts'
import { provenance } from './push.ts'

export type Answer = 'ok' | RegistryError['code']

export interface PushOf {
  readonly repository: RepositoryName
  readonly manifest: TestManifest
  /** The tag to push by. If undefined, the push is by digest. */
  readonly tag?: Tag | undefined
  /** Additional tags, as in `?tag=`. */
  readonly tags?: readonly Tag[]
  readonly conditions?: WriteConditions
}

export interface Writers {
  upload(repository: RepositoryName, bytes: Buffer): Promise<Answer>
  mount(repository: RepositoryName, from: RepositoryName, digest: Digest): Promise<Answer>
  push(options: PushOf): Promise<Answer>
  deleteTag(repository: RepositoryName, tag: Tag): Promise<Answer>
  deleteManifest(repository: RepositoryName, digest: Digest): Promise<Answer>
  deleteBlob(repository: RepositoryName, digest: Digest): Promise<Answer>
  deleteRepository(repository: RepositoryName): Promise<Answer>
  addWebhook(): Promise<Answer>
  /** Changes the first existing webhook. */
  changeWebhook(): Promise<Answer>
  removeWebhook(): Promise<Answer>
  slowest(): { what: string; ms: number }
  medianMs(): number
  /** The number of calls for each answer. */
  answers(): Readonly<Record<string, number>>
}

export function writersOf(region: Region & Registry): Writers {
  let slowest = { what: '', ms: 0 }
  const answers: Record<string, number> = {}
  const times: number[] = []

  async function timed(what: string, work: () => Promise<unknown>): Promise<Answer> {
    const startedMs = performance.now()
    let answer: Answer = 'ok'
    try {
      await work()
    } catch (thrown) {
      if (!(thrown instanceof RegistryError)) throw new Error(`${what} would be a 500`, { cause: thrown })
      answer = thrown.code
    }
    const ms = performance.now() - startedMs
    times.push(ms)
    if (ms > slowest.ms) slowest = { what, ms }
    answers[`${what}: ${answer}`] = (answers[`${what}: ${answer}`] ?? 0) + 1
    return answer
  }

  async function withFirstWebhook(work: (id: string) => Promise<unknown>): Promise<void> {
    const [first] = (await subscriptions(region)).readable
    if (first !== undefined) await work(first.id)
  }

  return {
    upload: (repository, bytes) =>
      timed('upload', () =>
        pushWholeBlob(region, {
          repository,
          digest: sha256(bytes),
          provenance,
          body: { chunks: chunksOf(bytes), length: bytes.length, signal: new AbortController().signal },
        }),
      ),
    mount: (repository, from, digest) =>
      timed('mount', async () => {
        const mounted = await mountFrom(region, { repository, from, digest, mayPull: () => true, provenance })
        if (mounted === undefined) throw new RegistryError('BLOB_UNKNOWN')
      }),
    push: ({ repository, manifest, tag, tags = [], conditions = {} }) =>
      timed('push', () =>
        pushManifest(region, {
          repository,
          reference: tag === undefined ? { kind: 'digest', digest: manifest.digest } : { kind: 'tag', tag },
          tags,
          contentType: manifest.mediaType,
          bytes: manifest.bytes,
          conditions,
          provenance,
        }),
      ),
    deleteTag: (repository, tag) =>
      timed('delete tag', () => deleteTag(region, { repository, tag, provenance })),
    deleteManifest: (repository, digest) =>
      timed('delete manifest', () =>
        deleteContent(region, { repository, kind: 'manifest', digest, provenance }),
      ),
    deleteBlob: (repository, digest) =>
      timed('delete blob', () => deleteContent(region, { repository, kind: 'blob', digest, provenance })),
    deleteRepository: (repository) =>
      timed('delete repository', () => deleteRepository(region, { repository, provenance })),
    addWebhook: () =>
      timed('add webhook', () =>
        addWebhook(region, { given: { url: 'https://receiver.example/' }, provenance }),
      ),
    changeWebhook: () =>
      timed('change webhook', () =>
        withFirstWebhook((id) =>
          changeWebhook(region, {
            id,
            change: { enabled: false, ordered: true, types: ['push'] },
            provenance,
          }),
        ),
      ),
    removeWebhook: () =>
      timed('remove webhook', () => withFirstWebhook((id) => removeWebhook(region, { id, provenance }))),
    slowest: () => slowest,
    medianMs: () => times.toSorted((one, other) => one - other)[Math.trunc(times.length / 2)] ?? 0,
    answers: () => answers,
  }
}

async function* chunksOf(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}

/** Returns an image with these layers in this order. `extra` distinguishes images with the same layers. */
export function imageOf(layers: readonly Buffer[], extra = ''): TestManifest {
  return manifestOf(IMAGE, {
    config: descriptor(CONFIG, EMPTY_CONFIG),
    layers: layers.map((layer) => descriptor(LAYER, layer)),
    annotations: { extra },
  })
}

/** The config that every `imageOf` references. */
export const EMPTY_CONFIG = Buffer.from('{}')

/** Returns a generator of numbers from 0 to 1 that depend only on the seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Returns the items in an order that depends on `random`. */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => ({ item, place: random() }))
    .sort((one, other) => one.place - other.place)
    .map(({ item }) => item)
}
