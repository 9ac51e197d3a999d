// docker over TLS through a real nginx, with a private CA and a name that is not loopback. The engine treats every name
// on 127/8 as insecure, so such a name would prove nothing. The name resolves to ::1 in a mount namespace with its own
// /etc/hosts and /etc/docker/certs.d.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import bcrypt from 'bcrypt'
import { eventually } from '../support/eventually.ts'
import { command, missing } from '../support/parts/command.ts'
import { startDockerEngine } from '../support/parts/docker-engine.ts'
import { freePort, startPortolan } from '../support/portolan-process.ts'
import { testDirectory } from '../support/region.ts'

const NAME = 'registry.portolan.example'
const PASSWORD = 'client-password'
const skip =
  missing('dockerd', 'docker', 'nginx', 'openssl', 'unshare') || (process.getuid?.() !== 0 && 'needs root')

/** Creates a CA and a certificate for the name, as PEM files in the directory. */
async function makeCertificates(directory: string): Promise<void> {
  const openssl = (...args: string[]) => command('openssl', args, { cwd: directory })
  await openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=test CA',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
  )
  await openssl(
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    `/CN=${NAME}`,
    '-keyout',
    'tls.key',
    '-out',
    'tls.csr',
  )
  await writeFile(join(directory, 'san'), `subjectAltName=DNS:${NAME}`)
  await openssl(
    'x509',
    '-req',
    '-in',
    'tls.csr',
    '-CA',
    'ca.crt',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    'san',
    '-out',
    'tls.crt',
  )
}

/** Starts nginx as described in the README, on ::1. */
async function startNginx(
  t: TestContext,
  directory: string,
  options: { port: number; upstream: string },
): Promise<void> {
  await writeFile(
    join(directory, 'nginx.conf'),
    `daemon off; pid ${directory}/nginx.pid; error_log ${directory}/nginx.log; worker_processes 1;
events {}
http {
  access_log off;
  client_body_temp_path ${directory}/body; proxy_temp_path ${directory}/proxy; fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  server {
    listen [::1]:${options.port} ssl;
    server_name ${NAME};
    ssl_certificate ${directory}/tls.crt;
    ssl_certificate_key ${directory}/tls.key;
    client_max_body_size 0;
    location / {
      proxy_pass http://${options.upstream};
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`,
  )
  const nginx = spawn('nginx', ['-c', join(directory, 'nginx.conf'), '-p', directory], { stdio: 'ignore' })
  t.after(async () => {
    const exited = new Promise((done) => nginx.once('exit', done))
    nginx.kill('SIGTERM')
    await exited
  })
  await eventually('nginx to listen', () =>
    command('openssl', ['s_client', '-connect', `[::1]:${options.port}`], { input: '' }).then(
      () => true,
      () => false,
    ),
  )
}

test('docker logs in, pushes and pulls over TLS with a private CA, and rejects an unknown certificate', {
  skip,
}, async (t) => {
  const directory = await testDirectory(t)
  const htpasswd = join(directory, 'htpasswd')
  await writeFile(htpasswd, `alice:${await bcrypt.hash(PASSWORD, 5)}\n`)
  const port = await freePort()
  const registry = `${NAME}:${port}`
  await makeCertificates(directory)
  const portolan = await startPortolan({
    env: {
      PORTOLAN_AUTH: 'accounts',
      PORTOLAN_HTPASSWD_FILE: htpasswd,
      PORTOLAN_TRUSTED_PROXIES: '127.0.0.0/8,::1',
    },
  })
  t.after(() => portolan[Symbol.asyncDispose]())
  await startNginx(t, directory, { port, upstream: portolan.host })

  const certificates = join(directory, 'certs.d', registry)
  await mkdir(certificates, { recursive: true })
  await writeFile(join(directory, 'hosts'), `::1 ${NAME}\n127.0.0.1 localhost\n`)
  await mkdir('/etc/docker/certs.d', { recursive: true })
  const mounts = `mount --bind ${directory}/hosts /etc/hosts && mount --bind ${directory}/certs.d /etc/docker/certs.d && exec "$@"`
  const engine = await startDockerEngine(['unshare', '--mount', 'sh', '-c', mounts, 'sh'])
  t.after(() => engine[Symbol.asyncDispose]())

  const image = `${registry}/tls/app:v1`
  await engine.importImage(image, { payload: randomBytes(3_000_000) })
  await assert.rejects(engine.docker('login', '-u', 'alice', '-p', PASSWORD, registry), /certificate|x509/)
  await command('cp', [join(directory, 'ca.crt'), join(certificates, 'ca.crt')])
  await engine.docker('login', '-u', 'alice', '-p', PASSWORD, registry)
  const pushed = await engine.docker('push', image)
  const digest = /digest: (sha256:[a-f0-9]{64})/.exec(pushed)?.[1]
  assert.ok(digest)
  await engine.docker('rmi', image)
  assert.ok((await engine.docker('pull', image)).includes(digest))
})
