// All event types, each with the JSON Schema of its `data` (draft 2020-12). The schemas are served under
// /api/v1/schemas, and each event's `dataschema` names its own. Fields are only ever added; a changed meaning is a new
// version of the type. Receivers ignore fields they do not know.

export const TYPE_PREFIX = 'dev.portolan.registry.'

type Schema = Readonly<Record<string, unknown>>

const text: Schema = { type: 'string' }
const digest: Schema = { type: 'string', pattern: '^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$' }
const time: Schema = { type: 'string', pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z$' }
const size: Schema = { type: 'integer', minimum: 0 }
/** A register's version: (milliseconds since 1970) * 65,536 plus a counter, as text, and the region that wrote it. */
const version: Schema = {
  type: 'object',
  required: ['h', 'origin'],
  properties: { h: { type: 'string', pattern: '^[0-9]{1,19}$' }, origin: text },
}
/** The region's own identifier of a write, which `Portolan-Position` also contains. */
const written: Schema = {
  type: 'object',
  required: ['epoch', 'id'],
  properties: { epoch: size, id: size },
}
/** What a region knew when it deleted. From it, other regions determine what was deleted without having been seen. */
const knowledge: Readonly<Record<string, Schema>> = {
  // Per region: how far its log was applied, in each epoch.
  seen: {
    type: 'object',
    additionalProperties: {
      type: 'array',
      items: { type: 'object', required: ['epoch', 'seq'], properties: { epoch: size, seq: size } },
    },
  },
  // Deleted versions that the region had merged before their events arrived.
  early: {
    type: 'array',
    items: {
      type: 'object',
      required: ['subject', 'value', 'version'],
      properties: { subject: text, value: text, version },
    },
  },
  // Each epoch of the region, with the last write of that epoch.
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
  // whole list for each tag. Events that earlier releases logged still do.
  references: { type: 'array', items: reference },
} as const satisfies Record<string, Schema>
const MANIFEST_REQUIRED = ['repository', 'digest', 'size', 'mediaType']

/** In every event. Readers of the feed who are neither an admin nor that account get no `actor` and no `request`. */
const origin = {
  actor: { type: 'object', required: ['name'], properties: { name: text } },
  request: {
    type: 'object',
    properties: { id: text, addr: text, host: text, method: text, userAgent: text },
  },
  instance: text,
  written,
  /**
   * True if something was left out. An event that would be too large has no `references`: fetch the manifest instead.
   * In Kafka a setting has no `value`: other regions read it from the log.
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

/** Keys are without the prefix and with the version. */
export const eventTypes: Readonly<Record<string, EventType>> = Object.freeze({
  'manifest.put.v1': {
    meaning: 'A manifest was pushed, even if the repository already had it.',
    required: [...MANIFEST_REQUIRED, 'references', 'version', 'prev'],
    properties: {
      ...manifest,
      version,
      prev: version,
      // Missing references, allowed where the region accepts sparse manifests.
      absent: { type: 'array', items: digest },
      // In Kafka and for other regions, up to 256 KiB. Larger manifests are fetched by digest.
      content: { type: 'string', contentEncoding: 'base64' },
    },
  },
  'manifest.deleted.v1': died,
  'blob.deleted.v1': died,
  'tag.set.v1': {
    meaning: 'A tag was set to a manifest, even if it already pointed to it.',
    required: [...MANIFEST_REQUIRED, 'tag', 'version', 'prev'],
    properties: { ...manifest, tag: text, version, prev: version },
  },
  'tag.deleted.v1': {
    meaning: 'A tag was deleted. `digest` is the manifest it pointed to.',
    required: ['repository', 'tag', 'digest', 'version', 'prev'],
    properties: { repository: text, tag: text, digest, version, prev: version },
  },
  'repository.deleted.v1': {
    meaning: 'A repository was deleted with everything in it.',
    required: ['repository', 'version'],
    properties: { repository: text, version, ...knowledge },
  },
  'tag.conflict.v1': {
    meaning:
      'Notification: two regions wrote a tag without knowing of each other. `digest` lost; `winner` is the current ' +
      'value of the tag. Sent once, by the region that lost.',
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
      'Notification: a delete in another region removed `count` writes of this region that it had not seen. The ' +
      'first ten are listed. Sent by the region that made these writes.',
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
          // A tag, or the digest of a manifest.
          properties: { subject: text, digest, version },
        },
      },
    },
  },
  'setting.set.v1': {
    meaning:
      'A field of a setting was written or removed. The field with the empty name stands for the existence of the ' +
      'object. Secret values are encrypted. The event is for other regions: it is not in the feed, and in Kafka it ' +
      'has no value.',
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
    meaning: 'Notification: a manifest was pushed with these tags.',
    required: [...MANIFEST_REQUIRED, 'tags'],
    properties: { ...manifest, tags: { type: 'array', items: text } },
  },
  'pull.v1': {
    meaning:
      'Notification: a manifest was pulled `count` times by GET between `from` and `until`, by this tag or by ' +
      'digest. Off by default.',
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
    meaning: 'Notification: a blob was mounted from another repository.',
    required: ['repository', 'digest', 'size', 'from'],
    properties: { repository: text, digest, size, from: text },
  },
})

/** Returns the schema of a type's `data`, or undefined for an unknown type. `type` may omit the prefix. */
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

/** Returns the path of the schema, relative to the registry. */
export function schemaPath(type: string): string {
  return `/api/v1/schemas/${type}.json`
}
