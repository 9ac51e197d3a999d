// GET /api/v1/events: the event log of the region, as pages of JSON or as Server-Sent Events (event-stream.ts).
//
// A caller sees the events of the repositories that it may pull. Only admins and the account itself see the `actor` and
// `request` of an event; for others these fields are left out. A page reads a bounded number of rows and bytes, so it
// may hold fewer than `limit` events. Its `next` advances even if the page is empty. An event of more than 128 KiB is
// sent without its `references` and marked with `abridged`.

import { type Static, Type } from 'typebox'
import type { LoggedEvent, LogPosition } from '#shared/db/event-log.ts'
import { RegistryError } from '#shared/errors.ts'
import { toCloudEvent, withoutProvenance } from '#shared/events/cloud-event.ts'
import { TYPE_PREFIX } from '#shared/events/event-types.ts'
import { formatPosition } from '#shared/events/position.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { callerMayPull } from '../authorize.ts'
import { type Exchange, isHead } from '../exchange.ts'
import { declare } from './declare.ts'
import { audienceOf, pageAfter, startOf } from './event-pages.ts'
import { streamEvents } from './event-stream.ts'
import { Event, Position } from './shapes.ts'

const LIMIT = 100
const LIMIT_MAX = 1_000
/** Maximum number of rows that a page reads, regardless of how many match the filter. */
const SCAN_MAX = 1_000
const TYPES_MAX = 50

const EventQuery = Type.Object({
  after: Type.Optional(
    Type.String({
      maxLength: 60,
      description:
        'Read behind this position; a `Portolan-Position` will do. Without it, a page starts at the oldest event ' +
        'that is kept, and a stream at what comes from now on (`Last-Event-ID` counts as `after`).',
    }),
  ),
  types: Type.Optional(
    Type.String({
      description: 'Types of events, separated by commas, in full or by their last part: `push,tag.set`.',
    }),
  ),
  repository: Type.Optional(
    Type.String({ description: 'One repository, or with `*` at the end all whose names begin so.' }),
  ),
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: LIMIT_MAX, default: LIMIT, description: 'Events of a page.' }),
  ),
})

export const eventRoutes = Object.freeze([
  declare({
    name: 'events',
    method: 'GET',
    url: '/api/v1/events',
    need: 'reader',
    operationId: 'listEvents',
    tag: 'events',
    summary: 'The events of the region, as a page or as a stream',
    description:
      'Shows events of repositories that the caller may pull. Send `Accept: text/event-stream` for a stream. ' +
      'Where anonymous pulls are allowed, this needs no credentials.',
    query: EventQuery,
    status: 200,
    reply: {
      description:
        'Events in order. `next` is where to read on: it moves even when a page is empty, because filters leave out events.',
      body: Type.Object({ events: Type.Array(Event), next: Position }),
      streams: {
        'text/event-stream':
          'Server-Sent Events: `id` is the position, `event` the type, `data` the event as in a page.',
      },
    },
    errors: ['POSITION_GONE'],
    async handle({ exchange, query }) {
      const wanted = filterOf(exchange, query)
      const accept = exchange.request.headers.accept ?? ''
      if (accept.includes('text/event-stream') && !isHead(exchange)) {
        await streamEvents(exchange, { after: query.after, wanted })
        return undefined
      }
      return { body: await pageOf(exchange, { ...query, wanted }) }
    },
  }),
])

async function pageOf(
  exchange: Exchange,
  options: { after?: string; limit?: number; wanted: (event: LoggedEvent) => boolean },
) {
  const { wanted, limit = LIMIT } = options
  const after = await startOf(exchange, options.after, 'oldest')
  const rows = await pageAfter(exchange, { after, limit: SCAN_MAX })
  const found: LoggedEvent[] = []
  let next: LogPosition = after
  for (const row of rows) {
    next = row
    if (wanted(row)) found.push(row)
    if (found.length === limit) break
  }
  const origin = exchange.region.name
  const audience = audienceOf(exchange)
  return {
    events: found.map((event) => {
      const full = toCloudEvent(origin, event)
      return audience(event) === 'full' ? full : withoutProvenance(full)
    }),
    next: formatPosition({ origin, epoch: next.epoch, pos: next.pos }),
  }
}

/** Selects the events that the reader asked for and may see. */
function filterOf(exchange: Exchange, query: Static<typeof EventQuery>): (event: LoggedEvent) => boolean {
  const mayPull = callerMayPull(exchange)
  const types = (query.types ?? '')
    .split(',')
    .filter((type) => type !== '')
    .map((type) => (type.startsWith(TYPE_PREFIX) ? type : `${TYPE_PREFIX}${type}`))
  if (types.length > TYPES_MAX) {
    throw new RegistryError('REQUEST_INVALID', { message: `types names more than ${TYPES_MAX} types` })
  }
  const fits = (type: string) =>
    types.length === 0 ||
    types.some(
      (wanted) =>
        type === wanted || (/^\.v[0-9]+$/.test(type.slice(wanted.length)) && type.startsWith(wanted)),
    )
  const { repository } = query
  const inRepository = (name: string) =>
    repository === undefined ||
    (repository.endsWith('*') ? name.startsWith(repository.slice(0, -1)) : name === repository)
  return (event) =>
    // Settings are for other regions only, because they hold secrets.
    !event.type.startsWith(`${TYPE_PREFIX}setting.`) &&
    fits(event.type) &&
    inRepository(event.repository) &&
    mayPull(event.repository as RepositoryName)
}
