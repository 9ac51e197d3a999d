// The rules of the tree as tests: layers, one owner for each package, no state at module scope, a header comment in
// each file, documents that match the code they describe. A rule is a function from a file to complaints. Each rule is
// first tested on a bad example, because a rule that cannot fail is useless.

import assert from 'node:assert/strict'
import { glob, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { configurationLists, environmentExample, shortTable } from '#shared/config/describe.ts'
import { errorTable } from '#shared/errors.ts'
import {
  EXCEPTIONS,
  floorComplaints,
  importsOf,
  ownerComplaints,
  purityComplaints,
  type Source,
} from './support/floors.ts'

const root = join(import.meta.dirname, '..')

type Rule = (source: Source) => string[]

/** A longer file needs an entry with a reason in LONG_FILES. */
const LINES_MAX = 400
const LONG_FILES: Readonly<Record<string, string>> = {}

const rules: Readonly<Record<string, { rule: Rule; bad: Source }>> = {
  'the core imports no other layer': {
    rule: floors,
    bad: file('shared/oci/x.ts', "import a from '#shared/db/connect.ts'"),
  },
  'an adapter imports another adapter only with a listed reason': {
    rule: floors,
    bad: file('shared/outbound/x.ts', "import { a } from '../db/connect.ts'"),
  },
  'the region opens adapters and imports no use case': {
    rule: floors,
    bad: file('shared/region.ts', "import { a } from './registry/pull.ts'"),
  },
  'use cases import each other only downwards': {
    rule: floors,
    bad: file('shared/registry/x.ts', "import { a } from '../replication/receive-events.ts'"),
  },
  'use cases get their dependencies as arguments, and import only the type of the region': {
    rule: floors,
    bad: file('shared/webhooks/x.ts', "import { openRegion } from '../region.ts'"),
  },
  'services never import each other': {
    rule: floors,
    bad: file('services/api/x.ts', "import a from '../janitor/service.ts'"),
  },
  'routes call use cases, not tables': {
    rule: floors,
    bad: file('services/api/v2/x.ts', "import { type A, b } from '#shared/db/tags.ts'"),
  },
  'each package has one owner': {
    rule: ownerComplaints,
    bad: file('services/api/x.ts', "import pg from 'pg'"),
  },
  'a package without an owner may not be imported': {
    rule: ownerComplaints,
    bad: file('services/api/x.ts', "import leftPad from 'left-pad'"),
  },
  'modules for I/O are limited to certain layers': {
    rule: ownerComplaints,
    bad: file('shared/registry/x.ts', "import { readFile } from 'node:fs/promises'"),
  },
  'the core does no I/O': {
    rule: ownerComplaints,
    bad: file('shared/events/x.ts', "import { connect } from 'node:net'"),
  },
  'the core uses neither the clock nor randomness': {
    rule: purityComplaints,
    bad: file('shared/convergence/x.ts', 'const at = Date.now()'),
  },
  'no state at module scope': {
    rule: moduleState,
    bad: file('shared/db/x.ts', 'const cache = new Map()'),
  },
  'only one place reads the environment': {
    rule: environment,
    bad: file('shared/db/x.ts', 'process.env.HOME'),
  },
  'every file opens with a header comment': {
    rule: header,
    bad: file('shared/db/x.ts', "import x from './y.ts'\n"),
  },
  'files have a bounded length': {
    rule: length,
    bad: file('shared/db/x.ts', '// a\n'.repeat(LINES_MAX + 1)),
  },
  'no leftovers such as open tasks or debug output': {
    rule: leftovers,
    bad: file('shared/db/x.ts', `// ${'TO'}DO later`),
  },
  'file names are meaningful': { rule: names, bad: file('shared/db/utils.ts', '') },
}

function file(path: string, text: string): Source {
  return { path, text }
}

function floors(source: Source): string[] {
  return floorComplaints(source)
    .filter(({ excused }) => excused === undefined)
    .map(({ text }) => text)
}

function moduleState({ path, text }: Source): string[] {
  if (path.startsWith('test/')) return []
  const lines = text.split('\n')
  return lines.filter((line) =>
    /^(?:export )?let |^(?:export )?(?:const|var) .*= new (?:Weak)?(?:Map|Set)\(\)/.test(line),
  )
}

function environment({ path, text }: Source): string[] {
  if (path.startsWith('test/') || path === 'services/main.ts') return []
  return text.includes('process.env') ? ['reads process.env'] : []
}

function header({ path, text }: Source): string[] {
  if (path.endsWith('.test.ts')) return []
  return /^\/\/ .{20,}/.test(text) ? [] : ['has no opening comment']
}

function length({ path, text }: Source): string[] {
  const lines = text.split('\n').length
  return lines > LINES_MAX && LONG_FILES[path] === undefined ? [`has ${lines} lines`] : []
}

function leftovers({ path, text }: Source): string[] {
  if (path === 'test/tidy.test.ts') return []
  return text.match(/\b(?:TODO|FIXME|XXX)\b|\bdebugger\b|\bconsole\.|@ts-(?:ignore|expect-error)/g) ?? []
}

function names({ path }: Source): string[] {
  return /(?:^|\/)(?:utils?|helpers?|types|common|index|misc)\.ts$/.test(path)
    ? ['has a meaningless name']
    : []
}

const sources: Source[] = []
for await (const path of glob('{services,shared,test}/**/*.{ts,js}', {
  cwd: root,
})) {
  sources.push({ path, text: await readFile(join(root, path), 'utf8') })
}

describe('tidy', () => {
  for (const [name, { rule, bad }] of Object.entries(rules)) {
    test(name, () => {
      assert.notDeepEqual(rule(bad), [], 'the rule must reject its bad example')
      const complaints = sources.flatMap((source) =>
        rule(source).map((complaint) => `${source.path}: ${complaint}`),
      )
      assert.deepEqual(complaints, [])
    })
  }

  test('every exception to the layers is still needed', () => {
    const used = new Set(sources.flatMap(floorComplaints).map(({ excused }) => excused))
    assert.deepEqual(
      EXCEPTIONS.filter((exception) => !used.has(exception)),
      [],
    )
  })

  test('every file of shared/ with code has a test of its own path, or a test that names and imports it', () => {
    assert.deepEqual(untested(sources), [])
    const lone = file('shared/db/x.ts', 'export const a = 1')
    const claims = file('test/other.test.ts', '// tests: shared/db/x.ts\n')
    const reaches = file(
      'test/other.test.ts',
      "// tests: shared/db/x.ts\nimport { a } from '#shared/db/x.ts'\n",
    )
    const gone = file('test/other.test.ts', '// tests: shared/db/y.ts\n')
    assert.equal(untested([lone]).length, 1, 'no test')
    assert.equal(untested([lone, claims]).length, 1, 'a test that names the file but does not import it')
    assert.equal(untested([lone, gone]).length, 2, 'a test that names a missing file')
    assert.deepEqual(untested([lone, reaches]), [])
    assert.deepEqual(
      untested([file('shared/db/x.ts', 'export interface A {}')]),
      [],
      'a file with only types needs no test',
    )
  })

  test('no line of a README is over 120 columns', async () => {
    const wide: string[] = []
    for await (const path of glob('{*,.ci/**/*,infra/**/*,services/**/*,shared/**/*,test/**/*}.md', {
      cwd: root,
    })) {
      const lines = (await readFile(join(root, path), 'utf8')).split('\n')
      // A row of a table cannot be wrapped.
      for (const [index, line] of lines.entries())
        if (line.length > 120 && !line.startsWith('|')) wide.push(`${path}:${index + 1}`)
    }
    assert.deepEqual(wide, [])
  })

  test('the top level has the expected entries', async () => {
    const visible = [
      'LICENSE',
      'README.md',
      'package-lock.json',
      'package.json',
      'services',
      'shared',
      'test',
      'tsconfig.json',
    ]
    for (const name of visible) await stat(join(root, name))
    for (const folder of ['services', 'shared', 'test']) await stat(join(root, folder, 'README.md'))
  })

  test('the lockfile does not name a registry', async () => {
    const lock = await readFile(join(root, 'package-lock.json'), 'utf8')
    assert.doesNotMatch(lock, /"resolved": "https?:/)
  })

  test('the READMEs list the current configuration and errors', async () => {
    const readme = await readFile(join(root, 'README.md'), 'utf8')
    const errors = Object.entries(errorTable).map(
      ([code, { status, message }]) => `| \`${code}\` | ${status} | ${message} |`,
    )
    assert.equal(between(readme, 'configuration'), shortTable())
    const configuration = await readFile(join(root, 'shared/config/README.md'), 'utf8')
    assert.equal(between(configuration, 'configuration'), configurationLists())
    const api = await readFile(join(root, 'services/api/README.md'), 'utf8')
    assert.equal(
      between(api, 'errors'),
      ['| code | status | meaning |', '|---|---|---|', ...errors].join('\n'),
    )
    assert.equal(await readFile(join(root, '.env.example'), 'utf8'), environmentExample())
  })
})

function between(text: string, name: string): string | undefined {
  return new RegExp(`<!-- ${name} -->\\n([\\s\\S]*?)\\n<!-- /${name} -->`).exec(text)?.[1]
}

/** Files of shared/ that have neither a test at the same path nor one that says `// tests: <file>` and imports it. */
function untested(all: readonly Source[]): string[] {
  const byPath = new Map(all.map((source) => [source.path, source]))
  const named = all.flatMap(({ path, text }) =>
    [...text.matchAll(/^\/\/ tests: (.+)$/gm)].flatMap(([, list = '']) =>
      list.split(', ').map((target) => ({ path, target })),
    ),
  )
  const proven = new Set(
    named.filter(({ path, target }) => reached(path, byPath).has(target)).map(({ target }) => target),
  )
  const absent = named
    .filter(({ target }) => !byPath.has(target))
    .map(({ path, target }) => `${path} names ${target}`)
  const missing = all
    .filter(
      ({ path, text }) =>
        path.startsWith('shared/') && /^export (?:async function|function|const|class)/m.test(text),
    )
    .map(({ path }) => path)
    .filter((path) => !byPath.has(`test/${path.replace(/\.ts$/, '.test.ts')}`) && !proven.has(path))
  return [...missing, ...absent]
}

/**
 * All files that a file imports, directly or indirectly, and the programs that it names, such as `services/main.ts`.
 */
function reached(path: string, byPath: ReadonlyMap<string, Source>, seen = new Set<string>()): Set<string> {
  const source = byPath.get(path)
  if (source === undefined || seen.has(path)) return seen
  seen.add(path)
  const programs = [...source.text.matchAll(/'((?:[\w./-]+\/)?[\w-]+\.ts)'/g)].map(([, name = '']) => name)
  const targets = [
    ...importsOf(source).map(({ target }) => target),
    ...programs.flatMap((name) => [name, join(path, '..', name)]),
  ]
  for (const target of targets) if (target !== undefined) reached(target, byPath, seen)
  return seen
}
