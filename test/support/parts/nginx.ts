// Runs a real nginx for one test, with a given http block.

import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from '../eventually.ts'
import type { Cleanup } from '../postgres.ts'
import { testDirectory } from '../region.ts'

/** Resolves when nginx answers at `url`. `http` gets a directory that nginx may write to. */
export async function startNginx(
  t: Cleanup,
  options: { url: string; http: (directory: string) => string },
): Promise<void> {
  const directory = await testDirectory(t)
  await writeFile(
    join(directory, 'nginx.conf'),
    `daemon off; pid ${directory}/nginx.pid; error_log ${directory}/nginx.log; worker_processes 1; user root;
events {}
http {
  access_log off;
  client_body_temp_path ${directory}/body; proxy_temp_path ${directory}/proxy; fastcgi_temp_path ${directory}/f; uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  ${options.http(directory)}
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
    fetch(`${options.url}/livez`).then(
      () => true,
      () => false,
    ),
  )
}
