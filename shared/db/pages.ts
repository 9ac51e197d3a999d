// Pages of tags and of repositories: the one statement behind the snapshot reader of lists.
//
// A key is a page: the list, the name after which it starts, and the limit. Its row holds the names, in byte order, and
// their JSON, made once. While nothing is written, the same page is answered from memory, exactly as a fresh read would
// answer it (snapshot-reader.ts). Each page is one walk along an index, whatever its depth. It reads one name more than
// the page shows, to know whether there is a next page.

import type { RepositoryName } from '#shared/oci/reference.ts'
import { repositoryShows, tagShows } from './registers.ts'
import type { SnapshotQuery } from './snapshot-reader.ts'

export interface PageKey {
  /** The repository whose tags are listed. undefined: the list of repositories. */
  readonly repository: RepositoryName | undefined
  /** Exclusive lower bound. '' for the first page. */
  readonly last: string
  /** Maximum number of names on the page. 0 asks only whether the repository exists. */
  readonly limit: number
}

export interface NamePage {
  readonly names: readonly string[]
  /** The names as a JSON array. */
  readonly json: string
  /** Where the next page starts. undefined: this is the last page. */
  readonly next: string | undefined
  /** True if the repository exists, with or without tags. Always true for the catalog. */
  readonly exists: boolean
}

/** Maximum number of pages in one statement. Each has up to a thousand names. */
const BATCH_MAX = 16

// `offset 0` keeps the planner from turning the check of each tag into a join of all tags with a sort. At a hundred
// thousand tags the difference is 0.1 ms and 35 ms. Neither a tag nor a repository's name contains a line feed.
export const pages: SnapshotQuery<PageKey, NamePage> = {
  name: 'pages',
  batchMax: BATCH_MAX,
  text: `
    select asked.ordinal::int, asked.size, found.*
    from unnest($1::text[], $2::text[], $3::int[]) with ordinality as asked (repository, last, size, ordinal)
    cross join lateral (
      select
        (select string_agg(page.name, chr(10) order by page.name)
         from (
           select tag.name from tag
           where tag.repository_id = repository.id and tag.alive and tag.name > asked.last
             and exists (
               select from membership
               where membership.repository_id = tag.repository_id and membership.kind = 'manifest'
                 and membership.digest = tag.digest and ${tagShows('tag', 'membership', 'repository')}
               offset 0)
           order by tag.name
           limit asked.size
         ) as page) as names,
        ${repositoryShows('repository')} as alive
      from repository
      where repository.name = asked.repository
      union all
      select
        (select string_agg(page.name, chr(10) order by page.name)
         from (
           select name from repository
           where name > asked.last and ${repositoryShows('repository')}
           order by name
           limit asked.size
         ) as page),
        true
      where asked.repository is null
    ) as found`,
  id: ({ repository = '', last, limit }) => `${repository} ${limit} ${last}`,
  parameters: (keys) => [
    keys.map(({ repository }) => repository ?? null),
    keys.map(({ last }) => last),
    keys.map(({ limit }) => (limit === 0 ? 0 : limit + 1)),
  ],
  row([size, joined, alive]) {
    const names = joined === null ? [] : (joined as string).split('\n')
    const more = names.length > 0 && names.length === size
    if (more) names.pop()
    return {
      names,
      json: JSON.stringify(names),
      next: more ? names.at(-1) : undefined,
      exists: alive === true || names.length > 0,
    }
  },
  // The names twice, plus the cost of their array.
  bytes: ({ json, names }) => 2 * json.length + 64 * names.length,
}
