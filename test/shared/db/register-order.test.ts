// The SQL of registers.ts and the TypeScript of shared/convergence agree: random registers are written to tables, and
// Postgres orders and shows them as the pure core does.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  emptyRepository,
  linkOf,
  manifestOf,
  NO_DEATH,
  type Repository,
} from '#shared/convergence/registers.ts'
import { compareVersions, type Version } from '#shared/convergence/version.ts'
import {
  isLinkVisible,
  isManifestVisible,
  isRepositoryVisible,
  isTagVisible,
} from '#shared/convergence/visibility.ts'
import { linkShows, manifestShows, repositoryShows, tagShows, versionOf } from '#shared/db/registers.ts'
import { CONTENT, LAYERS, MANIFESTS, parentsOf, TAGS } from '../../simulation/content.ts'
import { openTestDatabase } from '../../support/database.ts'

/** Few values, so that registers often meet and tie. Never is below them. */
const version: fc.Arbitrary<Version> = fc.oneof(
  fc.constant({ h: 0n, origin: '' }),
  fc.record({ h: fc.bigInt(1n, 4n), origin: fc.constantFrom('', 'ap', 'eu', 'eu-2', 'us') }),
)
const register = fc.record({ alive: version, dead: version })
const registers = fc.record({
  repository: register,
  manifests: fc.array(register, { minLength: MANIFESTS.length, maxLength: MANIFESTS.length }),
  links: fc.array(register, { minLength: LAYERS.length, maxLength: LAYERS.length }),
  tags: fc.array(fc.record({ at: version, digest: fc.constantFrom(...MANIFESTS), alive: fc.boolean() }), {
    minLength: TAGS.length,
    maxLength: TAGS.length,
  }),
})
type Registers = typeof registers extends fc.Arbitrary<infer T> ? T : never

function pureOf({ repository: { alive, dead }, manifests, links, tags }: Registers): Repository {
  const repository = emptyRepository()
  repository.alive = alive
  repository.dead = { ...NO_DEATH, version: dead }
  manifests.forEach((one, index) => {
    const made = manifestOf(repository, MANIFESTS[index] ?? '')
    made.alive = { ...made.alive, version: one.alive }
    made.dead = { ...NO_DEATH, version: one.dead }
  })
  links.forEach((one, index) => {
    const made = linkOf(repository, LAYERS[index] ?? '')
    made.alive = one.alive
    made.dead = { ...NO_DEATH, version: one.dead }
  })
  tags.forEach(({ at, digest, alive: isAlive }, index) => {
    const current = {
      version: at,
      digest,
      alive: isAlive,
      prev: at,
      events: [],
      written: { epoch: 0, id: 0 },
    }
    repository.tags.set(TAGS[index] ?? '', { current, history: new Map() })
  })
  return repository
}

const shown = {
  repository: `select 'all' from repository as r where r.id = $1 and ${repositoryShows('r')}`,
  manifests: `select m.digest from repository as r join membership as m on m.repository_id = r.id
    where r.id = $1 and m.kind = 'manifest' and ${manifestShows('m', 'r')}`,
  links: `select m.digest from repository as r join membership as m on m.repository_id = r.id
    where r.id = $1 and m.kind = 'blob' and ${linkShows('m', 'r')}`,
  tags: `select t.name from repository as r join tag as t on t.repository_id = r.id
    join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = t.digest
    where r.id = $1 and ${tagShows('t', 'm', 'r')}`,
}

test('Postgres shows of random registers what the pure core shows', async (t) => {
  const { query } = await openTestDatabase(t)
  for (const [manifest, { children }] of Object.entries(CONTENT)) {
    await query(`insert into manifest (digest, bytes, size) values ($1, '', 0)`, [manifest])
    await query(
      `insert into manifest_reference (manifest, kind, position, digest, target, required)
       select $1, 'child', place, child, 'manifest', true from unnest($2::text[]) with ordinality as c (child, place)`,
      [manifest, children],
    )
  }
  let name = 0
  let showing = 0
  await fc.assert(
    fc.asyncProperty(registers, async (sample) => {
      const { alive, dead } = sample.repository
      const [row] = await query<{ id: string }>(
        `insert into repository (name, shard, alive_h, alive_origin, dead_h, dead_origin)
         values ($1, 0, $2, $3, $4, $5) returning id`,
        [`r${name++}`, alive.h, alive.origin, dead.h, dead.origin],
      )
      assert.ok(row)
      const members = [
        ...sample.manifests.map((one, index) => ({ ...one, kind: 'manifest', digest: MANIFESTS[index] })),
        ...sample.links.map((one, index) => ({ ...one, kind: 'blob', digest: LAYERS[index] })),
      ]
      await query(
        `insert into membership (repository_id, kind, digest, media_type, alive_h, alive_origin, dead_h, dead_origin)
         select $1, m.* from unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[]) as m`,
        [
          row.id,
          members.map(({ kind }) => kind),
          members.map(({ digest }) => digest),
          members.map(() => 'm'),
          members.map((one) => one.alive.h),
          members.map((one) => one.alive.origin),
          members.map((one) => one.dead.h),
          members.map((one) => one.dead.origin),
        ],
      )
      await query(
        `insert into tag (repository_id, name, digest, h, origin, alive, actor, at)
         select $1, t.*, '', now() from unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::bool[]) as t`,
        [
          row.id,
          TAGS,
          sample.tags.map(({ digest }) => digest),
          sample.tags.map(({ at }) => at.h),
          sample.tags.map(({ at }) => at.origin),
          sample.tags.map((one) => one.alive),
        ],
      )
      const pure = pureOf(sample)
      const expected = {
        repository: isRepositoryVisible(pure) ? ['all'] : [],
        manifests: MANIFESTS.filter((digest) => isManifestVisible(pure, digest, parentsOf)),
        links: LAYERS.filter((digest) => isLinkVisible(pure, digest)),
        tags: TAGS.filter((tag) => isTagVisible(pure, tag, parentsOf)),
      }
      for (const [what, sql] of Object.entries(shown)) {
        const rows: Record<string, string>[] = await query(sql, [row.id])
        const found = rows.flatMap((one) => Object.values(one))
        assert.deepEqual(found.toSorted(), expected[what as keyof typeof expected].toSorted(), what)
      }
      showing += expected.tags.length
    }),
    { numRuns: 300 },
  )
  assert.ok(showing > 20, 'samples that show nothing prove nothing')
})

test('Postgres orders versions as the pure core does', async (t) => {
  const { query } = await openTestDatabase(t)
  const anyVersion = fc.record({
    h: fc.oneof(fc.bigInt(0n, 3n), fc.bigInt(0n, 2n ** 63n - 1n)),
    origin: fc.oneof(fc.constantFrom('', 'a', 'a-b', 'ab', 'a0'), fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/)),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(anyVersion, { minLength: 2, maxLength: 40 }), async (versions) => {
      const rows = await query<Record<'a' | 'b', string> & { above: boolean }>(
        `with v as (select h, origin collate "C" as origin, place - 1 as place
           from unnest($1::bigint[], $2::text[]) with ordinality as v (h, origin, place))
         select a.place as a, b.place as b, ${versionOf('a')} > ${versionOf('b')} as above from v as a cross join v as b`,
        [versions.map(({ h }) => h), versions.map(({ origin }) => origin)],
      )
      for (const { a, b, above } of rows) {
        const [left, right] = [versions[Number(a)], versions[Number(b)]]
        assert.ok(left && right)
        assert.equal(above, compareVersions(left, right) > 0, JSON.stringify([left.origin, right.origin]))
      }
    }),
    { numRuns: 50 },
  )
})
