// Merges settings that another region wrote, field by field.

import { type Queryable, statement } from './statement.ts'

export interface MergedSetting {
  readonly kind: string
  readonly id: string
  /** '': the existence of the object. */
  readonly field: string
  /** JSON. null if deleted. */
  readonly value: string | null
  readonly h: string
  readonly origin: string
  readonly prevH: string
  readonly prevOrigin: string
  readonly deleted: boolean
}

// Takes the greatest of each field, because a statement may change a row only once. Locks rows in the order of their
// key.
const merge = statement<never>(
  'merge-settings',
  `insert into setting as s (kind, id, field, value, h, origin, prev_h, prev_origin, deleted)
   select distinct on (kind collate "C", id collate "C", field collate "C")
     kind, id, field, value, h, origin, prev_h, prev_origin, deleted
   from unnest(:kinds::text[], :ids::text[], :fields::text[], :values::jsonb[], :hs::bigint[], :origins::text[],
     :prev_hs::bigint[], :prev_origins::text[], :deleted::bool[])
     as merged (kind, id, field, value, h, origin, prev_h, prev_origin, deleted)
   order by kind collate "C", id collate "C", field collate "C", h desc, origin collate "C" desc, deleted desc,
     value::text collate "C" desc nulls last
   on conflict (kind, id, field) do update
     set value = excluded.value, h = excluded.h, origin = excluded.origin, prev_h = excluded.prev_h,
       prev_origin = excluded.prev_origin, deleted = excluded.deleted
   where (excluded.h, excluded.origin, excluded.deleted, coalesce(excluded.value::text, '') collate "C")
     > (s.h, s.origin, s.deleted, coalesce(s.value::text, '') collate "C")`,
)

/** Must take the last locks of the transaction: settings end the lock order. */
export async function mergeSettings(transaction: Queryable, merged: readonly MergedSetting[]): Promise<void> {
  if (merged.length === 0) return
  await transaction.rows(merge, {
    kinds: merged.map(({ kind }) => kind),
    ids: merged.map(({ id }) => id),
    fields: merged.map(({ field }) => field),
    values: merged.map(({ value }) => value),
    hs: merged.map(({ h }) => h),
    origins: merged.map(({ origin }) => origin),
    prev_hs: merged.map(({ prevH }) => prevH),
    prev_origins: merged.map(({ prevOrigin }) => prevOrigin),
    deleted: merged.map(({ deleted }) => deleted),
  })
}
