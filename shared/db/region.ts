// The region's own row: its name and epoch.

import { one, type Queryable, statement } from './statement.ts'

const row = statement<{ name: string; epoch: number }>('region-row', `select name, epoch from region`)

export async function regionRow(db: Queryable): Promise<{ name: string; epoch: number }> {
  return one(db, row)
}
