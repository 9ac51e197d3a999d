// Clients built from the Go module proxy: crane, oras, regctl. Each pushes, pulls, compares and deletes.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import bcrypt from 'bcrypt'
import { command } from '../support/parts/command.ts'
import { makeLayout } from '../support/parts/oci-layout.ts'
import { findTool } from '../support/parts/tools.ts'
import { type PortolanProcess, startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const crane = findTool('crane') ?? ''
const oras = findTool('oras') ?? ''
const regctl = findTool('regctl') ?? ''
const skip =
  crane && oras && regctl
    ? false
    : 'crane, oras or regctl is not built (node test/support/parts/tools.ts crane oras regctl)'
const PASSWORD = 'client-password'

for (const auth of [false, true]) {
  describe(auth ? 'with accounts' : 'without authentication', { skip }, () => {
    let portolan: PortolanProcess
    let home: string
    const stack = new AsyncDisposableStack()
    const run = (program: string, args: string[]) =>
      command(program, args, { env: { HOME: home, DOCKER_CONFIG: home } })
    before(async () => {
      home = await testDirectory({
        after: (fn) => void stack.defer(async () => void (await (fn as () => unknown)())),
      })
      const htpasswd = join(home, 'htpasswd')
      await writeFile(htpasswd, `alice:${await bcrypt.hash(PASSWORD, 5)}\n`)
      portolan = stack.use(
        await startPortolan({
          env: auth
            ? { PORTOLAN_AUTH: 'accounts', PORTOLAN_HTPASSWD_FILE: htpasswd, PORTOLAN_ANONYMOUS_PULL: 'true' }
            : {},
        }),
      )
      await run(regctl, ['registry', 'set', '--tls', 'disabled', portolan.host])
      if (auth) {
        await command(crane, ['auth', 'login', portolan.host, '-u', 'alice', '--password-stdin'], {
          env: { DOCKER_CONFIG: home },
          input: PASSWORD,
        })
        await command(regctl, ['registry', 'login', portolan.host, '-u', 'alice', '--pass-stdin'], {
          env: { HOME: home },
          input: PASSWORD,
        })
      }
    })
    after(() => stack.disposeAsync())

    test('crane pushes, reads the digest back, copies, pulls and deletes', async () => {
      const layout = await makeLayout(join(home, 'crane'))
      const image = `${portolan.host}/crane/app`
      await run(crane, ['push', layout.directory, `${image}:v1`, '--insecure'])
      assert.equal((await run(crane, ['digest', `${image}:v1`])).trim(), layout.digest)
      await run(crane, ['copy', `${image}:v1`, `${portolan.host}/crane/copy:v1`])
      await run(crane, ['pull', '--format=oci', `${image}:v1`, join(home, 'crane-pulled')])
      const index = JSON.parse(await readFile(join(home, 'crane-pulled', 'index.json'), 'utf8')) as {
        manifests: { digest: string }[]
      }
      assert.equal(index.manifests[0]?.digest, layout.digest)
      assert.match(await run(crane, ['ls', image]), /^v1$/m)
      assert.match(await run(crane, ['catalog', portolan.host]), /^crane\/copy$/m)
      await run(crane, ['delete', `${image}@${layout.digest}`])
      await assert.rejects(run(crane, ['digest', `${image}:v1`]), /404|MANIFEST_UNKNOWN|NAME_UNKNOWN/)
    })

    test('oras pushes an artifact, attaches another to it and discovers it', async () => {
      const artifact = `${portolan.host}/oras/artifact:v1`
      await writeFile(join(home, 'hello.txt'), 'hello')
      await writeFile(join(home, 'sbom.json'), '{}')
      const at = { cwd: home, env: { HOME: home, DOCKER_CONFIG: home } }
      const plain = '--plain-http'
      const login = auth ? ['--username', 'alice', '--password', PASSWORD] : []
      await command(oras, ['push', plain, ...login, artifact, 'hello.txt:text/plain'], at)
      await command(
        oras,
        ['attach', plain, ...login, '--artifact-type', 'application/vnd.example.sbom', artifact, 'sbom.json'],
        at,
      )
      const discovered = await command(oras, ['discover', plain, ...login, '--format', 'json', artifact], at)
      assert.match(discovered, /application\/vnd\.example\.sbom/)
      assert.doesNotMatch(
        await run(crane, ['ls', `${portolan.host}/oras/artifact`]),
        /sha256-/,
        'no fallback tag was needed',
      )
      await command(oras, ['pull', plain, ...login, '-o', join(home, 'oras-pulled'), artifact], at)
      assert.equal(await readFile(join(home, 'oras-pulled', 'hello.txt'), 'utf8'), 'hello')
      await command(oras, ['manifest', 'delete', plain, ...login, '--force', artifact], at)
      await assert.rejects(command(oras, ['manifest', 'fetch', plain, ...login, artifact], at))
    })

    test('regctl copies in chunks, mounts, lists referrers and removes one tag without its siblings', async () => {
      const layout = await makeLayout(join(home, 'regctl'), 3_000_000)
      const image = `${portolan.host}/regctl/app`
      await run(regctl, ['registry', 'set', '--blob-chunk', '500000', '--blob-max', '600000', portolan.host])
      await run(regctl, ['image', 'copy', `ocidir://${layout.directory}:latest`, `${image}:v1`])
      assert.equal((await run(regctl, ['image', 'digest', `${image}:v1`])).trim(), layout.digest)
      await run(regctl, ['image', 'copy', `${image}:v1`, `${portolan.host}/regctl/mounted:v1`])
      await run(regctl, ['image', 'copy', `${image}:v1`, `${image}:v2`])
      await run(regctl, ['tag', 'rm', `${image}:v1`])
      assert.equal((await run(regctl, ['tag', 'ls', image])).trim(), 'v2')
      await command(
        regctl,
        ['artifact', 'put', '--artifact-type', 'application/vnd.example', '--subject', `${image}:v2`],
        { env: { HOME: home }, input: 'attached' },
      )
      assert.match(await run(regctl, ['artifact', 'list', `${image}:v2`]), /application\/vnd\.example/)
      await run(regctl, ['image', 'copy', `${image}:v2`, `ocidir://${join(home, 'regctl-pulled')}:latest`])
      await run(regctl, ['manifest', 'rm', `${image}@${layout.digest}`])
      await assert.rejects(run(regctl, ['image', 'digest', `${image}:v2`]))
    })

    if (!auth) return
    test('an anonymous client can pull but not push', async () => {
      const layout = await makeLayout(join(home, 'anonymous'))
      await run(crane, ['push', layout.directory, `${portolan.host}/public/app:v1`, '--insecure'])
      const nobody = { env: { HOME: '/nonexistent', DOCKER_CONFIG: '/nonexistent' } }
      assert.equal(
        (await command(crane, ['digest', `${portolan.host}/public/app:v1`], nobody)).trim(),
        layout.digest,
      )
      await assert.rejects(
        command(crane, ['push', layout.directory, `${portolan.host}/public/app:v2`, '--insecure'], nobody),
        /401|UNAUTHORIZED/,
      )
    })
  })
}
