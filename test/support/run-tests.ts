// What `npm test` runs: every test that needs nothing but Node and the embedded Postgres, and ends soon. Suites with real
// clients, object stores, Kafka, faults that take long, conformance and benches run by themselves. Paths on the command
// line narrow it: `npm test -- test/shared/oci`.

import { spawn } from 'node:child_process'
import { glob } from 'node:fs/promises'
import { join } from 'node:path'

const ELSEWHERE = ['clients', 'conformance', 'bench', 'faults', 'kafka', 'long', 'stores', 'world']
const root = join(import.meta.dirname, '..', '..')

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
const options = process.argv.slice(2).filter((argument) => argument.startsWith('--'))
const files: string[] = []
for await (const file of glob('test/**/*.test.ts', { cwd: root })) {
  const elsewhere = ELSEWHERE.some((folder) => file.startsWith(`test/${folder}/`))
  const asked = wanted.some((path) => file.startsWith(path.replace(/^\.\//, '')))
  if (wanted.length === 0 ? !elsewhere : asked) files.push(file)
}
if (files.length === 0) {
  process.stderr.write('No test file matches.\n')
  process.exit(1)
}

const child = spawn(
  process.execPath,
  [
    '--disable-warning=ExperimentalWarning',
    '--disable-warning=TimeoutNegativeWarning',
    '--test',
    // Two cores are busy while a third file waits for a process, a timeout or a lock.
    '--test-concurrency=3',
    '--test-timeout=240000',
    '--test-global-setup=test/support/global-setup.ts',
    ...options,
    ...files.sort(),
  ],
  { cwd: root, stdio: 'inherit' },
)
child.on('exit', (code, signal) => {
  process.exitCode = code ?? (signal === null ? 1 : 128)
})
