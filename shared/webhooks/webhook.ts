// A webhook subscription: what an admin may write, how it is stored, which events it matches, and how its deliveries
// are named. Stored fields are parsed like written ones. A missing or wrong field is reported by its name, never its
// value. Pure.

import { randomBytes } from 'node:crypto'
import { RegistryError } from '../errors.ts'
import type { CloudEvent } from '../events/cloud-event.ts'
import { TYPE_PREFIX } from '../events/event-types.ts'

export const WEBHOOK_FORMATS = ['distribution', 'cloudevents', 'cloudevents-binary'] as const
export type WebhookFormat = (typeof WEBHOOK_FORMATS)[number]

export interface Webhook {
  readonly url: string
  /** Full event types. [] means every type that `format` can express. */
  readonly types: readonly string[]
  /** Names, or prefixes that end in `*`. [] means every repository. */
  readonly repositories: readonly string[]
  readonly format: WebhookFormat
  /** Sent with each delivery. The values are secrets. */
  readonly headers: Readonly<Record<string, string>>
  /** `whsec_` and base64 of 24 to 64 bytes (Standard Webhooks). */
  readonly secret: string
  /** Also signs until `untilMs`, so that receivers can switch to the new secret. */
  readonly previousSecret: { readonly secret: string; readonly untilMs: number } | null
  /** True: per repository, the next event is sent only after the previous one was delivered or parked. */
  readonly ordered: boolean
  readonly enabled: boolean
  /** True: may be sent to private and loopback addresses, if the configuration permits it. */
  readonly allowPrivate: boolean
}

/** The fields that decide whether a webhook gets an event. Contains no secret. */
export type WebhookFilter = Pick<Webhook, 'enabled' | 'types' | 'repositories' | 'format'>

/** The valid fields of a stored webhook, and what is wrong with the others. */
export interface StoredWebhook<Field extends keyof Webhook> {
  readonly found: Partial<Pick<Webhook, Field>>
  /** A message for each wrong field. Empty if all fields are valid. */
  readonly problems: readonly string[]
}

const LIST_MAX = 100
const ROTATION_MS = 24 * 3_600_000
const SECRET_BYTES = 32

/** Parsers for what an admin writes: any subset of a webhook's fields. Unknown fields are an error. */
const PARSERS: { readonly [Field in keyof Webhook]?: (value: unknown) => Webhook[Field] } = Object.freeze({
  url: webhookUrl,
  types: (value) => strings('types', value).map(fullType),
  repositories: (value) => strings('repositories', value),
  format: (value) =>
    WEBHOOK_FORMATS.find((format) => format === value) ??
    refuse(`format must be one of ${WEBHOOK_FORMATS.join(', ')}`),
  headers: customHeaders,
  secret: webhookSecret,
  ordered: (value) => boolean('ordered', value),
  enabled: (value) => boolean('enabled', value),
  allowPrivate: (value) => boolean('allowPrivate', value),
})

/** @throws RegistryError REQUEST_INVALID with a message about the first error */
export function parseWebhook(body: unknown): Partial<Webhook> {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    refuse('the body is not a JSON object')
  const parsed: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(body)) {
    const parser = Object.hasOwn(PARSERS, field) ? PARSERS[field as keyof Webhook] : undefined
    if (parser === undefined) refuse(`${field.slice(0, 50)} is not a field of a webhook`)
    else parsed[field] = parser(value)
  }
  return parsed as Partial<Webhook>
}

const FILTER_FIELDS = [
  'enabled',
  'types',
  'repositories',
  'format',
] as const satisfies (keyof WebhookFilter)[]
const STORED_PARSERS: { readonly [Field in keyof Webhook]: (value: unknown) => Webhook[Field] } =
  Object.freeze({ ...(PARSERS as Required<typeof PARSERS>), previousSecret })
const STORED_FIELDS = Object.freeze(Object.keys(STORED_PARSERS)) as readonly (keyof Webhook)[]

/** @param closed fields whose values could not be opened, each with the reason */
export function readStoredWebhook(
  fields: Readonly<Record<string, unknown>>,
  closed: Readonly<Record<string, string>> = {},
): StoredWebhook<keyof Webhook> {
  return readStored(STORED_FIELDS, fields, closed)
}

/**
 * Reads only the fields that match events. If a webhook's secrets cannot be read, its deliveries are stored and wait.
 */
export function readStoredFilter(fields: Readonly<Record<string, unknown>>): WebhookFilter | undefined {
  const { found, problems } = readStored(FILTER_FIELDS, fields, {})
  return problems.length === 0 ? (found as WebhookFilter) : undefined
}

function readStored<Field extends keyof Webhook>(
  wanted: readonly Field[],
  fields: Readonly<Record<string, unknown>>,
  closed: Readonly<Record<string, string>>,
): StoredWebhook<Field> {
  const found: Partial<Pick<Webhook, Field>> = {}
  const problems: string[] = []
  for (const field of wanted) {
    if (closed[field] !== undefined) problems.push(`${field} cannot be opened: ${closed[field]}`)
    else if (!Object.hasOwn(fields, field)) problems.push(`${field} is missing`)
    else {
      try {
        found[field] = STORED_PARSERS[field](fields[field])
      } catch (thrown) {
        if (!(thrown instanceof RegistryError)) throw thrown
        problems.push(thrown.message)
      }
    }
  }
  return { found, problems }
}

export function newWebhook(given: Partial<Webhook>): Webhook {
  return {
    url: given.url ?? refuse('url is missing'),
    types: given.types ?? [],
    repositories: given.repositories ?? [],
    format: given.format ?? 'distribution',
    headers: given.headers ?? {},
    secret: given.secret ?? `whsec_${randomBytes(SECRET_BYTES).toString('base64')}`,
    previousSecret: null,
    ordered: given.ordered ?? false,
    enabled: given.enabled ?? true,
    allowPrivate: given.allowPrivate ?? false,
  }
}

/** Returns the fields that a change writes. If the old secret can be read, it also signs for one more day. */
export function changedFields(
  before: Partial<Webhook>,
  change: Partial<Webhook>,
  nowMs: number,
): Partial<Webhook> {
  if (before.secret === undefined) return { ...change, previousSecret: null }
  if (change.secret === undefined || change.secret === before.secret) {
    return before.previousSecret === undefined ? { ...change, previousSecret: null } : change
  }
  return { ...change, previousSecret: { secret: before.secret, untilMs: nowMs + ROTATION_MS } }
}

export function signingSecrets(webhook: Webhook, nowMs: number): string[] {
  const { secret, previousSecret } = webhook
  return previousSecret !== null && previousSecret.untilMs > nowMs
    ? [secret, previousSecret.secret]
    : [secret]
}

/** Describes a webhook without its secrets. */
export function describeWebhook(id: string, webhook: Webhook) {
  const { secret: _secret, previousSecret: _previous, headers, ...rest } = webhook
  return { id, ...rest, headers: Object.fromEntries(Object.keys(headers).map((name) => [name, '***'])) }
}

export function deliveryId(event: Pick<CloudEvent, 'id'>, subscription: string): string {
  return `${event.id}.${subscription}`
}

/** The event types that a subscription gets by default: what users call push and delete. */
const NOTIFICATIONS = ['push', 'delete', 'blob.uploaded', 'blob.mounted'].map(
  (type) => `${TYPE_PREFIX}${type}.v1`,
)
const DEFAULT_TYPES = NOTIFICATIONS.slice(0, 2)

export function matchesWebhook(webhook: WebhookFilter, event: { type: string; repository: string }): boolean {
  if (!webhook.enabled || event.type.startsWith(`${TYPE_PREFIX}setting.`)) return false
  const types = webhook.types.length === 0 ? DEFAULT_TYPES : webhook.types
  // distribution's envelope can express only notifications.
  if (webhook.format === 'distribution' && !NOTIFICATIONS.includes(event.type)) return false
  return (
    types.includes(event.type) &&
    (webhook.repositories.length === 0 ||
      webhook.repositories.some((pattern) =>
        pattern.endsWith('*')
          ? event.repository.startsWith(pattern.slice(0, -1))
          : event.repository === pattern,
      ))
  )
}

function refuse(message: string): never {
  throw new RegistryError('REQUEST_INVALID', { message })
}

function webhookUrl(value: unknown): string {
  const url =
    typeof value === 'string' && value.length <= 2_000 && URL.canParse(value) ? new URL(value) : undefined
  if (url === undefined || !['http:', 'https:'].includes(url.protocol))
    refuse('url is not an http or https URL')
  if (url.username !== '' || url.password !== '') refuse('url contains credentials: use headers instead')
  return url.href
}

function strings(field: string, value: unknown): string[] {
  if (!Array.isArray(value) || value.length > LIST_MAX)
    refuse(`${field} is not a list of at most ${LIST_MAX} entries`)
  for (const one of value) {
    if (typeof one !== 'string' || !/^[A-Za-z0-9._/*-]{1,255}$/.test(one))
      refuse(`${field} contains an invalid name`)
  }
  return value as string[]
}

function fullType(type: string): string {
  const full = type.startsWith(TYPE_PREFIX) ? type : `${TYPE_PREFIX}${type}`
  return /\.v[0-9]+$/.test(full) ? full : `${full}.v1`
}

/** Headers that define the framing or the destination of the message are reserved. */
const OWN_HEADERS =
  /^(host|content-.*|transfer-encoding|connection|upgrade|te|trailer|expect|webhook-.*|ce-.*)$/i

function customHeaders(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse('headers is not an object')
  const entries = Object.entries(value)
  if (entries.length > 20) refuse('headers has more than 20 entries')
  for (const [name, text] of entries) {
    if (!/^[A-Za-z0-9-]{1,100}$/.test(name) || OWN_HEADERS.test(name))
      refuse(`${name.slice(0, 50)} is a reserved or invalid header name`)
    if (typeof text !== 'string' || !/^[\x20-\x7e]{0,2000}$/.test(text))
      refuse(`the value of the header ${name} is invalid`)
  }
  return value as Record<string, string>
}

function webhookSecret(value: unknown): string {
  const match = typeof value === 'string' ? /^whsec_([A-Za-z0-9+/]{32,88}={0,2})$/.exec(value) : null
  const bytes = Buffer.from(match?.[1] ?? '', 'base64').length
  if (bytes < 24 || bytes > 64) refuse('secret is not whsec_ followed by base64 of 24 to 64 bytes')
  return value as string
}

/** Written when the secret changes, never by an admin. */
function previousSecret(value: unknown): Webhook['previousSecret'] {
  if (value === null) return null
  const { secret, untilMs } = Object(value) as { secret?: unknown; untilMs?: unknown }
  if (typeof untilMs !== 'number') refuse('previousSecret has no untilMs')
  return { secret: webhookSecret(secret), untilMs }
}

function boolean(field: string, value: unknown): boolean {
  if (typeof value !== 'boolean') refuse(`${field} must be true or false`)
  return value
}
