// The container tools of Debian, unmodified: docker engine, ctr, skopeo, podman, buildah.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import bcrypt from 'bcrypt'
import { command, missing } from '../support/parts/command.ts'
import { type DockerEngine, startDockerEngine } from '../support/parts/docker-engine.ts'
import { makeLayout } from '../support/parts/oci-layout.ts'
import { type PortolanProcess, startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const PASSWORD = 'client-password'
const isRoot = process.getuid?.() === 0
const skipEngine = missing('dockerd', 'docker') || (!isRoot && 'the engine requires root')

function scratch(stack: AsyncDisposableStack): Promise<string> {
  return testDirectory({ after: (fn) => void stack.defer(async () => void (await (fn as () => unknown)())) })
}

for (const auth of [false, true]) {
  describe(auth ? 'with accounts and public pulls' : 'without authentication', () => {
    const stack = new AsyncDisposableStack()
    let portolan: PortolanProcess
    let home: string
    before(async () => {
      home = await scratch(stack)
      const htpasswd = join(home, 'htpasswd')
      await writeFile(htpasswd, `alice:${await bcrypt.hash(PASSWORD, 5)}\n`)
      portolan = stack.use(
        await startPortolan({
          env: auth
            ? { PORTOLAN_AUTH: 'accounts', PORTOLAN_HTPASSWD_FILE: htpasswd, PORTOLAN_ANONYMOUS_PULL: 'true' }
            : {},
        }),
      )
    })
    after(() => stack.disposeAsync())
    const digestOf = async (path: string) => {
      const response = await fetch(`${portolan.url}/v2/${path}`, {
        method: 'HEAD',
        headers: auth ? { Authorization: `Basic ${btoa(`alice:${PASSWORD}`)}` } : {},
      })
      return response.headers.get('docker-content-digest')
    }

    test('skopeo copies in, inspects, copies out and deletes', { skip: missing('skopeo') }, async () => {
      const layout = await makeLayout(join(home, 'skopeo'))
      const image = `docker://${portolan.host}/skopeo/app:v1`
      const creds = (flag: string) => (auth ? [`--${flag}creds`, `alice:${PASSWORD}`] : [])
      await command('skopeo', [
        'copy',
        '--dest-tls-verify=false',
        ...creds('dest-'),
        `oci:${layout.directory}:latest`,
        image,
      ])
      assert.equal(await digestOf('skopeo/app/manifests/v1'), layout.digest)
      assert.equal(
        (await command('skopeo', ['inspect', '--tls-verify=false', '--format', '{{.Digest}}', image])).trim(),
        layout.digest,
      )
      assert.match(
        await command('skopeo', ['list-tags', '--tls-verify=false', `docker://${portolan.host}/skopeo/app`]),
        /"v1"/,
      )
      await command('skopeo', [
        'copy',
        '--src-tls-verify=false',
        image,
        `oci:${join(home, 'skopeo-out')}:latest`,
      ])
      await command('skopeo', ['delete', '--tls-verify=false', ...creds(''), image])
      assert.equal(await digestOf('skopeo/app/manifests/v1'), null)
    })

    test('podman and buildah build, push and pull', {
      skip: missing('podman', 'buildah') || (!isRoot && 'needs root'),
    }, async () => {
      const storage = ['--root', join(home, 'containers'), '--storage-driver', 'vfs']
      const image = `${portolan.host}/podman/app:v1`
      const creds = auth ? ['--creds', `alice:${PASSWORD}`] : []
      await writeFile(join(home, 'payload'), randomBytes(50_000))
      await writeFile(join(home, 'Containerfile'), 'FROM scratch\nCOPY payload /payload\n')
      await command('buildah', [
        ...storage,
        '--runroot',
        join(home, 'run'),
        'bud',
        '--isolation=chroot',
        '-t',
        image,
        '-f',
        join(home, 'Containerfile'),
        home,
      ])
      await command('buildah', [
        ...storage,
        '--runroot',
        join(home, 'run'),
        'push',
        '--tls-verify=false',
        ...creds,
        image,
      ])
      const first = await digestOf('podman/app/manifests/v1')
      assert.match(first ?? '', /^sha256:/)
      const podman = (...args: string[]) =>
        command('podman', [
          ...storage,
          '--runroot',
          join(home, 'run'),
          '--cgroup-manager=cgroupfs',
          '--events-backend=file',
          ...args,
        ])
      await podman('rmi', image)
      await podman('pull', '--tls-verify=false', image)
      await podman('tag', image, `${portolan.host}/podman/again:v1`)
      await podman('push', '--tls-verify=false', ...creds, `${portolan.host}/podman/again:v1`)
      assert.ok(await digestOf('podman/again/manifests/v1'))
    })

    describe('the docker engine', { skip: skipEngine }, () => {
      let engine: DockerEngine
      before(async () => {
        engine = stack.use(await startDockerEngine())
      })

      test('pushes, pulls, mounts across repositories', async () => {
        const image = `${portolan.host}/docker/app:v1`
        await engine.importImage(image, { payload: randomBytes(22 * 1024 * 1024), 'etc/small': 'small' })
        if (auth) {
          await assert.rejects(engine.docker('push', image), /denied|unauthorized|authentication/i)
          await engine.docker('login', '-u', 'alice', '-p', PASSWORD, portolan.host)
          await assert.rejects(engine.docker('login', '-u', 'alice', '-p', 'wrong', portolan.host))
          await engine.docker('login', '-u', 'alice', '-p', PASSWORD, portolan.host)
        }
        const pushed = await engine.docker('push', image)
        const digest = /digest: (sha256:[a-f0-9]{64})/.exec(pushed)?.[1]
        assert.equal(await digestOf('docker/app/manifests/v1'), digest)
        const second = `${portolan.host}/docker/second:v1`
        await engine.docker('tag', image, second)
        assert.match(await engine.docker('push', second), /Mounted from docker\/app/)
        if (auth) await engine.docker('logout', portolan.host)
        await engine.docker('rmi', image, second)
        assert.ok((await engine.docker('pull', image)).includes(String(digest)))
        assert.ok(
          (await engine.docker('pull', `${portolan.host}/docker/app@${digest}`)).includes(String(digest)),
        )
      })

      test('ctr pulls with containerd, pushes the image again, and finds the same digest', {
        skip: missing('ctr'),
      }, async () => {
        const layout = await makeLayout(join(home, 'ctr'))
        const from = `${portolan.host}/ctr/app:v1`
        const to = `${portolan.host}/ctr/pushed:v1`
        const creds = auth ? ['--user', `alice:${PASSWORD}`] : []
        await command('skopeo', [
          'copy',
          '--dest-tls-verify=false',
          ...(auth ? ['--dest-creds', `alice:${PASSWORD}`] : []),
          `oci:${layout.directory}:latest`,
          `docker://${from}`,
        ])
        const ctr = (...args: string[]) => command('ctr', ['-a', engine.containerdSocket, 'images', ...args])
        await ctr('pull', '--plain-http', from)
        await ctr('tag', from, to)
        await ctr('push', '--plain-http', ...creds, to)
        assert.equal(await digestOf('ctr/pushed/manifests/v1'), layout.digest)
      })
    })
  })
}
