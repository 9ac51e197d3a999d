// Runs part of a transaction so that it can fail without failing the transaction.

import { type Queryable, statement } from './statement.ts'

const open = statement<never>('savepoint', 'savepoint attempt')
const keep = statement<never>('release-savepoint', 'release savepoint attempt')
const undo = statement<never>('rollback-to-savepoint', 'rollback to savepoint attempt')

/**
 * Runs the work. Returns undefined if it succeeded. If `isExpected` accepts the error, undoes what the work wrote and
 * returns the error. Any other error is thrown and ends the transaction. Must not be nested.
 */
export async function withSavepoint(
  transaction: Queryable,
  work: (transaction: Queryable) => Promise<void>,
  isExpected: (thrown: unknown) => boolean,
): Promise<Error | undefined> {
  await transaction.rows(open)
  try {
    await work(transaction)
  } catch (thrown) {
    if (!(thrown instanceof Error) || !isExpected(thrown)) throw thrown
    await transaction.rows(undo)
    return thrown
  }
  await transaction.rows(keep)
  return undefined
}
