// What a push overwrote. The conditions of the push need this (RFC 9110, 13.1.1 and 13.1.2).
//
// It is read after the push, in the same transaction. The rows that the push wrote are locked, so each version named as
// their predecessor is the one that the push replaced. This statement's snapshot is newer than those locks, so it shows
// every death that was committed before them. The caller rolls back a push whose condition did not hold.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName, Tag } from '#shared/oci/reference.ts'
import { isAbove, manifestShows } from './registers.ts'
import { type Queryable, statement } from './statement.ts'

// A restored database may have given one (h, origin) to two versions. The winner of the two was the tag's.
const overwritten = statement<{ digest: Digest | null }>(
  'overwritten-by-push',
  `select case when before.alive and ${isAbove('before', 'm', 'r')}
       -- The push has revived its own digest, so its state before the push counts.
       and case when before.digest = :digest then ${isAbove('m.alive_prev', 'm', 'r')}
         else ${manifestShows('m', 'r')} end then before.digest end as digest
   from repository as r
   join tag as t on t.repository_id = r.id and t.name = any (:tags::text[])
   left join lateral (
     select was.digest, was.h, was.origin, was.alive from tag_history as was
     where was.repository_id = t.repository_id and was.name = t.name
       and was.h = t.prev_h and was.origin = t.prev_origin
     order by was.alive, was.digest desc limit 1) as before on true
   left join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = before.digest
   where r.name = :repository
   union all
   select case when ${isAbove('m.alive_prev', 'm', 'r')} then m.digest end
   from repository as r
   join membership as m on m.repository_id = r.id and m.kind = 'manifest' and m.digest = :digest
   where r.name = :repository and cardinality(:tags::text[]) = 0`,
)

/**
 * Returns what each of the tags pointed to before this transaction's push wrote it. Without tags, returns the digest
 * itself if the repository held it. undefined: nothing was visible there.
 */
export async function overwrittenByPush(
  transaction: Queryable,
  options: { repository: RepositoryName; digest: Digest; tags: readonly Tag[] },
): Promise<(Digest | undefined)[]> {
  const { repository, digest, tags } = options
  const rows = await transaction.rows(overwritten, { repository, digest, tags })
  return rows.map((row) => row.digest ?? undefined)
}
