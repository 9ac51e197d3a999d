// What happened in a history, in order, in enough detail to repeat it on regions of another kind (sql-regions.ts).

/** What a client requested. */
export type ClientWrite =
  | { readonly kind: 'push'; readonly digest: string; readonly tags: readonly string[] }
  | { readonly kind: 'delete-tag'; readonly name: string }
  | { readonly kind: 'delete-manifest'; readonly digest: string }
  | { readonly kind: 'delete-link'; readonly digest: string }
  | { readonly kind: 'delete-repository' }

export type Operation =
  | (ClientWrite & {
      readonly region: string
      /** What the region's clock said, as the h of a version. */
      readonly clock: bigint
      /** False: it was refused. */
      readonly done: boolean
    })
  | { readonly kind: 'number'; readonly region: string; readonly count: number }
  /** Facts of the origin's log, from the first to the one before the end. */
  | {
      readonly kind: 'apply'
      readonly from: string
      readonly to: string
      readonly first: number
      readonly end: number
    }
  | { readonly kind: 'sweep'; readonly region: string }
  | { readonly kind: 'read-through'; readonly from: string; readonly to: string; readonly name: string }
  | { readonly kind: 'compare'; readonly a: string; readonly b: string }
