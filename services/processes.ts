// One API process per core on the one port: this process keeps the region's embedded parts and starts the others as
// `main.ts api` with the same configuration. The kernel spreads connections over them (SO_REUSEPORT).
// A child that dies is started again; when this process drains, they drain.

import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Region } from '#shared/region.ts'
import type { Service } from '#shared/service.ts'
export async function startApiProcesses(_region: Region): Promise<Service> {
  throw new Error(`not yet ${fork.name} ${fileURLToPath.name} ${{} as ChildProcess}`)
}
