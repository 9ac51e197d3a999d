// Every type of event there is, with the JSON Schema of its `data` (draft 2020-12), served under /api/v1/schemas and named
// by each event's `dataschema`. Fields are only ever added; a new meaning is a new version of the type. Receivers ignore
// fields they do not know.

export const TYPE_PREFIX = 'dev.portolan.registry.'

type Schema = Readonly<Record<string, unknown>>

const text: Schema = { type: 'string' }
const digest: Schema = { type: 'string', pattern: '^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$' }
const time: Schema = { type: 'string', pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z$' }
const size: Schema = { type: 'integer', minimum: 0 }
/** A register's version: milliseconds since 1970 times 65,536 plus a counter, as text, and who wrote it. */
const version: Schema = {
  type: 'object',
  required: ['h', 'origin'],
  properties: { h: { type: 'string', pattern: '^[0-9]{1,19}$' }, origin: text },
}
/** What its region calls a write: `Portolan-Position` names it. */
const written: Schema = {
  type: 'object',
  required: ['epoch', 'id'],
  properties: { epoch: size, id: size },
}
/** What a region knew when it deleted. Other regions tell from it what was deleted unseen. */
const knowledge: Readonly<Record<string, Schema>> = {
  // Region -> how far its log was applied, in each epoch.
  seen: {
    type: 'object',
    additionalProperties: {
      type: 'array',
      items: { type: 'object', required: ['epoch', 'seq'], properties: { epoch: size, seq: size } },
    },
  },
  // What was deleted and had been seen before its event came.
  early: {
    type: 'array',
    items: {
      type: 'object',
      required: ['subject', 'value', 'version'],
      properties: { subject: text, value: text, version },
    },
  },
  // Each epoch of the region, with the last write that it had of it.
  lineage: { type: 'array', items: written },
}
const reference: Schema = {
  type: 'object',
  required: ['kind', 'digest'],
  properties: {
    kind: { enum: ['config', 'layer', 'child', 'subject'] },
    mediaType: text,
    digest,
    size,
    foreign: { type: 'boolean' },
  },
}
const manifest = {
  repository: text,
  digest,
  size,
  mediaType: text,
  artifactType: text,
  subject: digest,
  // Always in manifest.put. Events of tag.set and push no longer carry it, because a push of many tags would repeat the
  // whole list with each; those that were logged by earlier releases do.
  references: { type: 'array', items: reference },
} as const satisfies Record<string, Schema>
const MANIFEST_REQUIRED = ['repository', 'digest', 'size', 'mediaType']

/** Of every event. `actor` and `request` are absent in the feed for readers who are neither an admin nor that account. */
const origin = {
  actor: { type: 'object', required: ['name'], properties: { name: text } },
  request: {
    type: 'object',
    properties: { id: text, addr: text, host: text, method: text, userAgent: text },
  },
  instance: text,
  written,
  /**
   * True in an event that lacks something. One that would have been too large has no `references`: fetch the manifest. In
   * Kafka a setting has no `value`: other regions read it from the log.
   */
  abridged: { type: 'boolean' },
} as const satisfies Record<string, Schema>

interface EventType {
  readonly meaning: string
  readonly required: readonly string[]
  readonly properties: Readonly<Record<string, Schema>>
}

const died: EventType = {
  meaning: 'A repository no longer holds this content.',
  required: ['repository', 'digest', 'version', 'prev'],
  properties: { repository: text, kind: text, digest, version, prev: version, ...knowledge },
}

/** Without the prefix, with the version. */
export const eventTypes: Readonly<Record<string, EventType>> = Object.freeze({
  'manifest.put.v1': {
    meaning: 'A manifest was pushed; also when the repository had it already.',
    required: [...MANIFEST_REQUIRED, 'references', 'version', 'prev'],
    properties: {
      ...manifest,
      version,
      prev: version,
      // References that were not there: allowed where the region accepts sparse manifests.
      absent: { type: 'array', items: digest },
      // In Kafka and for other regions, up to 256 KiB; larger ones are fetched by digest.
      content: { type: 'string', contentEncoding: 'base64' },
    },
  },
  'manifest.deleted.v1': died,
  'blob.deleted.v1': died,
  'tag.set.v1': {
    meaning: 'A tag points to a manifest; also when it did before.',
    required: [...MANIFEST_REQUIRED, 'tag', 'version', 'prev'],
    properties: { ...manifest, tag: text, version, prev: version },
  },
  'tag.deleted.v1': {
    meaning: 'A tag is gone; `digest` is what it pointed to.',
    required: ['repository', 'tag', 'digest', 'version', 'prev'],
    properties: { repository: text, tag: text, digest, version, prev: version },
  },
  'repository.deleted.v1': {
    meaning: 'Everything in a repository is gone.',
    required: ['repository', 'version'],
    properties: { repository: text, version, ...knowledge },
  },
  'tag.conflict.v1': {
    meaning:
      'Notification: two regions wrote a tag without knowing of each other. `digest` lost, `winner` is what the tag says now. Sent once, by the region that lost.',
    required: ['repository', 'tag', 'digest', 'alive', 'version', 'winner'],
    properties: {
      repository: text,
      tag: text,
      digest,
      alive: { type: 'boolean' },
      version,
      winner: {
        type: 'object',
        required: ['digest', 'alive', 'version'],
        properties: { digest, alive: { type: 'boolean' }, version },
      },
    },
  },
  'delete.conflict.v1': {
    meaning:
      'Notification: a delete in another region killed `count` writes of this one that it had not seen. The first ten are named. Sent by the region whose writes they were.',
    required: ['repository', 'death', 'count', 'killed'],
    properties: {
      repository: text,
      death: version,
      count: { type: 'integer', minimum: 1 },
      killed: {
        type: 'array',
        items: {
          type: 'object',
          required: ['subject', 'digest', 'version'],
          // A tag or the digest of a manifest.
          properties: { subject: text, digest, version },
        },
      },
    },
  },
  'setting.set.v1': {
    meaning:
      'A field of a setting was written or removed; the field with no name is the existence of the object. Secret values are encrypted. For other regions: not in the feed, and in Kafka without the value.',
    required: ['kind', 'id', 'field', 'deleted', 'version', 'prev'],
    properties: {
      kind: text,
      id: text,
      field: text,
      value: {},
      deleted: { type: 'boolean' },
      version,
      prev: version,
    },
  },
  'push.v1': {
    meaning: 'Notification: a manifest was pushed, under these tags.',
    required: [...MANIFEST_REQUIRED, 'tags'],
    properties: { ...manifest, tags: { type: 'array', items: text } },
  },
  'pull.v1': {
    meaning:
      'Notification: a manifest was pulled `count` times by GET between `from` and `until`, by this tag or by digest. Off by default.',
    required: ['repository', 'digest', 'count', 'from', 'until'],
    properties: {
      repository: text,
      digest,
      size,
      mediaType: text,
      tag: text,
      count: { type: 'integer', minimum: 1 },
      from: time,
      until: time,
    },
  },
  'delete.v1': {
    meaning: 'Notification: a tag (with `tag`), a manifest or a blob was deleted.',
    required: ['repository', 'digest'],
    properties: { repository: text, kind: text, tag: text, digest },
  },
  'blob.uploaded.v1': {
    meaning: 'Notification: a blob was uploaded.',
    required: ['repository', 'digest', 'size'],
    properties: { repository: text, digest, size },
  },
  'blob.mounted.v1': {
    meaning: 'Notification: a repository got a blob of another.',
    required: ['repository', 'digest', 'size', 'from'],
    properties: { repository: text, digest, size, from: text },
  },
})

/** The schema of a type's `data`; undefined for a type there is not. `type` in full or without the prefix. */
export function eventSchema(type: string): Schema | undefined {
  const name = type.startsWith(TYPE_PREFIX) ? type.slice(TYPE_PREFIX.length) : type
  const known = Object.hasOwn(eventTypes, name) ? eventTypes[name] : undefined
  if (known === undefined) return undefined
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: schemaPath(TYPE_PREFIX + name),
    title: TYPE_PREFIX + name,
    description: known.meaning,
    type: 'object',
    required: [...known.required, 'instance'],
    properties: { ...known.properties, ...origin },
  }
}

/** Where the schema is, relative to the registry. */
export function schemaPath(type: string): string {
  return `/api/v1/schemas/${type}.json`
}
