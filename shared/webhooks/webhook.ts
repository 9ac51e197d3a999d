// A webhook subscription: what an admin may write, what is read back, what it matches, and what its deliveries are
// called. What is read is parsed like what is written: a field that is missing or wrong is reported, with its name and
// never its value. Pure.

import { randomBytes } from 'node:crypto'
import { RegistryError } from '../errors.ts'
import type { CloudEvent } from '../events/cloud-event.ts'
import { TYPE_PREFIX } from '../events/event-types.ts'

export const WEBHOOK_FORMATS = ['distribution', 'cloudevents', 'cloudevents-binary'] as const
export type WebhookFormat = (typeof WEBHOOK_FORMATS)[number]

export interface Webhook {
  readonly url: string
  /** Event types in full; [] is what `format` can tell of. */
  readonly types: readonly string[]
  /** Names, or prefixes that end in `*`; [] is every repository. */
  readonly repositories: readonly string[]
  readonly format: WebhookFormat
  /** Sent with each delivery; values are secrets. */
  readonly headers: Readonly<Record<string, string>>
  /** `whsec_` and base64 of 24 to 64 bytes (Standard Webhooks). */
  readonly secret: string
  /** Signs beside `secret` until then, so that receivers can change over. */
  readonly previousSecret: { readonly secret: string; readonly untilMs: number } | null
  /** Per repository: the next only when the one before was delivered or parked. */
  readonly ordered: boolean
  readonly enabled: boolean
  /** May be sent to private and loopback addresses, where the configuration permits it. */
  readonly allowPrivate: boolean
}

/** What decides whether a webhook gets an event. Holds no secret. */
export type WebhookFilter = Pick<Webhook, 'enabled' | 'types' | 'repositories' | 'format'>

/** The fields of a stored webhook that are as they should be, and what is wrong with the others. */
export interface StoredWebhook<Field extends keyof Webhook> {
  readonly found: Partial<Pick<Webhook, Field>>
  /** A sentence for each wrong field; empty: `found` is whole. */
  readonly problems: readonly string[]
}

const LIST_MAX = 100
const ROTATION_MS = 24 * 3_600_000
const SECRET_BYTES = 32

/** What somebody writes: any part of a webhook. Unknown fields are an error. */
const PARSERS: { readonly [Field in keyof Webhook]?: (value: unknown) => Webhook[Field] } = Object.freeze({
  url: webhookUrl,
  types: (value) => strings('types', value).map(fullType),
  repositories: (value) => strings('repositories', value),
  format: (value) =>
    WEBHOOK_FORMATS.find((format) => format === value) ??
    refuse(`format is one of ${WEBHOOK_FORMATS.join(', ')}`),
  headers: customHeaders,
  secret: webhookSecret,
  ordered: (value) => boolean('ordered', value),
  enabled: (value) => boolean('enabled', value),
  allowPrivate: (value) => boolean('allowPrivate', value),
})

/** @throws RegistryError REQUEST_INVALID with a sentence about the first thing that is wrong */
export function parseWebhook(body: unknown): Partial<Webhook> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) refuse('the body is no JSON object')
  const parsed: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(body)) {
    const parser = Object.hasOwn(PARSERS, field) ? PARSERS[field as keyof Webhook] : undefined
    if (parser === undefined) refuse(`${field.slice(0, 50)} is no field of a webhook`)
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

/** @param closed fields whose values could not be read at all -> why */
export function readStoredWebhook(
  fields: Readonly<Record<string, unknown>>,
  closed: Readonly<Record<string, string>> = {},
): StoredWebhook<keyof Webhook> {
  return readStored(STORED_FIELDS, fields, closed)
}

/** Only what decides about events: a webhook whose secrets cannot be read still gets its deliveries, which then wait. */
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

/** The fields that a change writes; a new secret keeps the old one signing for a day, if the old one can be read. */
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

/** Without anything that signs or logs in. */
export function describeWebhook(id: string, webhook: Webhook) {
  const { secret: _secret, previousSecret: _previous, headers, ...rest } = webhook
  return { id, ...rest, headers: Object.fromEntries(Object.keys(headers).map((name) => [name, '***'])) }
}

export function deliveryId(event: Pick<CloudEvent, 'id'>, subscription: string): string {
  return `${event.id}.${subscription}`
}

/** Of the log's events, those that subscriptions get unless they say more: what users call push and delete. */
const NOTIFICATIONS = ['push', 'delete', 'blob.uploaded', 'blob.mounted'].map(
  (type) => `${TYPE_PREFIX}${type}.v1`,
)
const DEFAULT_TYPES = NOTIFICATIONS.slice(0, 2)

export function matchesWebhook(webhook: WebhookFilter, event: { type: string; repository: string }): boolean {
  if (!webhook.enabled || event.type.startsWith(`${TYPE_PREFIX}setting.`)) return false
  const types = webhook.types.length === 0 ? DEFAULT_TYPES : webhook.types
  // The older envelope has words for notifications only.
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
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) refuse('url is no http or https URL')
  if (url.username !== '' || url.password !== '') refuse('url carries credentials: use headers')
  return url.href
}

function strings(field: string, value: unknown): string[] {
  if (!Array.isArray(value) || value.length > LIST_MAX) refuse(`${field} is no list of at most ${LIST_MAX}`)
  for (const one of value) {
    if (typeof one !== 'string' || !/^[A-Za-z0-9._/*-]{1,255}$/.test(one))
      refuse(`${field} holds something that is no name`)
  }
  return value as string[]
}

function fullType(type: string): string {
  const full = type.startsWith(TYPE_PREFIX) ? type : `${TYPE_PREFIX}${type}`
  return /\.v[0-9]+$/.test(full) ? full : `${full}.v1`
}

/** Names that say how the message is framed or where it goes are ours. */
const OWN_HEADERS =
  /^(host|content-.*|transfer-encoding|connection|upgrade|te|trailer|expect|webhook-.*|ce-.*)$/i

function customHeaders(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) refuse('headers is no object')
  const entries = Object.entries(value)
  if (entries.length > 20) refuse('at most 20 headers')
  for (const [name, text] of entries) {
    if (!/^[A-Za-z0-9-]{1,100}$/.test(name) || OWN_HEADERS.test(name))
      refuse(`${name.slice(0, 50)} is no header of yours`)
    if (typeof text !== 'string' || !/^[\x20-\x7e]{0,2000}$/.test(text))
      refuse(`the value of ${name} is no header value`)
  }
  return value as Record<string, string>
}

function webhookSecret(value: unknown): string {
  const match = typeof value === 'string' ? /^whsec_([A-Za-z0-9+/]{32,88}={0,2})$/.exec(value) : null
  const bytes = Buffer.from(match?.[1] ?? '', 'base64').length
  if (bytes < 24 || bytes > 64) refuse('secret is no whsec_ and base64 of 24 to 64 bytes')
  return value as string
}

/** Written by a change of the secret, never by an admin. */
function previousSecret(value: unknown): Webhook['previousSecret'] {
  if (value === null) return null
  const { secret, untilMs } = Object(value) as { secret?: unknown; untilMs?: unknown }
  if (typeof untilMs !== 'number') refuse('previousSecret has no end')
  return { secret: webhookSecret(secret), untilMs }
}

function boolean(field: string, value: unknown): boolean {
  if (typeof value !== 'boolean') refuse(`${field} is neither true nor false`)
  return value
}
