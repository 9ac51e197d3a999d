// The volumes on which uploads must leave free space: that of the blobs if they are files, and that of Postgres if it
// is embedded. A volume that serves both is watched once, so that the space reserved by one upload counts for both.

import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../../config/load.ts'
import { createVolume, type Volume } from './volume.ts'

export interface Volumes {
  /** Set if blobs are files. */
  readonly blobs?: Volume
  /** Set if Postgres is embedded. The same object as `blobs` if it is the same volume. */
  readonly database?: Volume
}

export async function volumesOf(
  config: Config,
  { blobDirectory, directory }: { blobDirectory: string; directory: string },
): Promise<Volumes> {
  const floorBytes = config.bytes.freeMin
  const files = config.blobs.kind === 'file'
  const blobs = files ? createVolume({ directory: blobDirectory, floorBytes }) : undefined
  if (!config.database.embedded) return { ...(blobs && { blobs }) }
  const postgres = join(directory, 'postgres')
  const same = files && (await stat(blobDirectory)).dev === (await stat(postgres)).dev
  const database = same && blobs ? blobs : createVolume({ directory: postgres, floorBytes })
  return { ...(blobs && { blobs }), database }
}
