// A store reads back what an open upload has sent: to take a rest in front of the next body, to join several bodies, to
// hash with another algorithm. Nothing promises that those bytes are still there, so their loss is no outage: the upload
// is 'lost' and the client begins again.

import { StoreError } from './blob-store.ts'

/** The reading's result. @throws StoreError 'lost' where the store found the bytes missing or not what the row says */
export async function orLost<T>(reading: Promise<T>): Promise<T> {
  try {
    return await reading
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || (thrown.kind !== 'missing' && thrown.kind !== 'corrupt'))
      throw thrown
    throw new StoreError('lost', 'bytes of an open upload are gone', { cause: thrown })
  }
}
