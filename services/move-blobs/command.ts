// `npm start -- move-blobs --to s3`: moves a region's blobs to another store while it serves, and shows a progress
// line.
//
// Before you run it, restart the nodes with PORTOLAN_BLOBS set to the new store and the old store still configured. New
// pushes then go to the new store, and reads use the store that each row names. This command moves the remaining blobs.
// Afterwards you can remove the old store's settings. Only one move-blobs command runs in a region at a time.

import { type Config, ConfigError } from '#shared/config/load.ts'
import { withLease } from '#shared/db/lease.ts'
import { openRegion, withStores } from '#shared/region.ts'
import { type MoveProgress, moveAllBlobs } from './move-blobs.ts'

/** How long a reader that read the row just before the switch can still open the old bytes. */
const KEEP_OLD_MS = 5_000
const LINE_MS = 200
const LINE_MS_WITHOUT_TERMINAL = 10_000
const BAR_WIDTH = 24

/** Returns the exit code: 0 if all blobs are in the new store. */
export async function moveBlobs(config: Config, to: string | undefined): Promise<number> {
  if (to !== config.blobs.kind) {
    throw new ConfigError([
      `move-blobs --to ${to ?? '<store>'} requires PORTOLAN_BLOBS=${to ?? '<store>'} here and at every node of ` +
        'the region, so that new blobs are written there too',
    ])
  }
  await using opened = await openRegion(config)
  const region = await withStores(opened)
  const abort = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => abort.abort())
  const { stdout } = process
  const show = progressLine(stdout)
  let code = 1
  const ran = await withLease(region.databaseUrl, 'move-blobs', async (lost, held) => {
    const result = await moveAllBlobs(region, {
      held,
      keepOldMs: KEEP_OLD_MS,
      signal: AbortSignal.any([abort.signal, lost]),
      onProgress: show,
    })
    for (const { digest, reason } of result.failed) stdout.write(`\n${digest} was not moved: ${reason}`)
    stdout.write(
      `\nmoved ${result.blobs} of ${result.blobsTotal} blobs (${mib(result.bytes)} MiB) to ${to}\n`,
    )
    code = result.failed.length === 0 ? 0 : 1
  })
  if (ran === false) stdout.write('another move-blobs command is running in this region\n')
  return code
}

function progressLine(out: NodeJS.WriteStream): (progress: MoveProgress) => void {
  const startMs = performance.now()
  let shownMs = Number.NEGATIVE_INFINITY
  return ({ blobs, bytes, blobsTotal, bytesTotal }) => {
    const nowMs = performance.now()
    if (nowMs - shownMs < (out.isTTY ? LINE_MS : LINE_MS_WITHOUT_TERMINAL)) return
    shownMs = nowMs
    const rate = bytes / ((nowMs - startMs) / 1_000)
    const share = bytesTotal === 0 ? 1 : Math.min(1, bytes / bytesTotal)
    const filled = Math.round(share * BAR_WIDTH)
    const bar = `[${'='.repeat(filled)}${' '.repeat(BAR_WIDTH - filled)}]`
    const left = Math.ceil(Math.max(0, bytesTotal - bytes) / Math.max(1, rate))
    const line =
      `${bar} ${mib(bytes)}/${mib(bytesTotal)} MiB, ${blobs}/${blobsTotal} blobs, ` +
      `${mib(rate)} MiB/s, ${left} s left`
    out.write(out.isTTY ? `\r${line.padEnd(100)}` : `${line}\n`)
  }
}

function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1)
}
