// A store reads back bytes of an open upload to put a remainder in front of the next body, to join several bodies, or
// to hash with another algorithm. Nothing guarantees that those bytes still exist, so their loss is not an outage: the
// upload is 'lost' and the client begins again.

import { StoreError } from './blob-store.ts'

/**
 * Returns the result of the read.
 * @throws StoreError 'lost' if the store found the bytes missing or different from what the row says
 */
export async function orLost<T>(reading: Promise<T>): Promise<T> {
  try {
    return await reading
  } catch (thrown) {
    if (!(thrown instanceof StoreError) || (thrown.kind !== 'missing' && thrown.kind !== 'corrupt'))
      throw thrown
    throw new StoreError('lost', 'bytes of an open upload are gone', { cause: thrown })
  }
}
