// The volumes whose free space uploads must leave: that of the blobs where they are files, that of Postgres where it is
// embedded. One volume that serves both is watched once, so that what one upload reserves counts for both.

import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../../config/load.ts'
import { createVolume, type Volume } from './volume.ts'

export interface Volumes {
  /** Where blobs are files. */
  readonly blobs?: Volume
  /** Where Postgres is embedded. The same object as `blobs` when it is the same volume. */
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
