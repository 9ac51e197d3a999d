// The content of the simulated repository: three layers, four images, two indexes and an index of indexes. Content is
// addressed by digest and never changes, so one table for all regions says what each digest references.

export interface Content {
  readonly children: readonly string[]
  readonly blobs: readonly string[]
}

export const CONTENT: Readonly<Record<string, Content>> = Object.freeze({
  'image-1': { children: [], blobs: ['layer-1'] },
  'image-2': { children: [], blobs: ['layer-1', 'layer-2'] },
  'image-3': { children: [], blobs: ['layer-3'] },
  'image-4': { children: [], blobs: ['layer-2'] },
  'index-1': { children: ['image-1', 'image-2'], blobs: [] },
  'index-2': { children: ['image-2', 'image-3'], blobs: [] },
  nested: { children: ['index-1'], blobs: [] },
})

export const MANIFESTS: readonly string[] = Object.freeze(Object.keys(CONTENT))
export const LAYERS: readonly string[] = Object.freeze(['layer-1', 'layer-2', 'layer-3'])
export const TAGS: readonly string[] = Object.freeze(['latest', 'v1', 'v2'])

const PARENTS: Readonly<Record<string, readonly string[]>> = Object.freeze(
  Object.fromEntries(
    MANIFESTS.map((digest) => [
      digest,
      MANIFESTS.filter((parent) => CONTENT[parent]?.children.includes(digest)),
    ]),
  ),
)

export function parentsOf(digest: string): readonly string[] {
  return PARENTS[digest] ?? []
}
