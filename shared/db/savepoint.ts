// Work within a transaction that may fail by itself, without taking the transaction along.

import { type Queryable, statement } from './statement.ts'

const open = statement<never>('savepoint', 'savepoint attempt')
const keep = statement<never>('release-savepoint', 'release savepoint attempt')
const undo = statement<never>('rollback-to-savepoint', 'rollback to savepoint attempt')

/**
 * Runs the work; undefined when it succeeded. An error that `isExpected` accepts is returned and what the work wrote is
 * undone; any other is thrown and ends the transaction. Not to be nested.
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
