// Every route of every surface with what it needs: the one table of rights. A method without a need cannot be declared, a
// path that is not in this table cannot be registered (app.ts), and test/services/api/authorize.test.ts walks all of it
// with no, expired, foreign, pull-only and admin credentials.
//
// Under /v2 names contain slashes and targets are never decoded, so its paths are told apart by shared/oci; all other
// surfaces have fixed paths with at most one parameter, which the framework's router finds.

import { RegistryError } from '#shared/errors.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { matchRegistryPath, type RegistryPath } from '#shared/oci/registry-path.ts'
import { getRegion, removeRepository } from './admin/admin.ts'
import { events } from './admin/events.ts'
import { schemas } from './admin/schemas.ts'
import {
  changeOneWebhook,
  getDeliveries,
  getWebhook,
  getWebhooks,
  postRedeliver,
  postReplay,
  postTest,
  postWebhook,
  removeOneWebhook,
} from './admin/webhooks.ts'
import { type Method, type RegistryRoute, type RouteNeed, routeNeeds } from './authorize.ts'
import type { Edge } from './edge.ts'
import type { Exchange } from './exchange.ts'
import { live, ready } from './health.ts'
import { peerBlob, peerManifest } from './peer/content.ts'
import { peerLog } from './peer/log.ts'
import { token } from './token.ts'
import { ping } from './v2/base.ts'
import { deleteBlob, getBlob } from './v2/blobs.ts'
import { getCatalog, getReferrers, getTags } from './v2/lists.ts'
import { deleteManifest, getManifest, putManifest } from './v2/manifests.ts'
import { appendUpload, deleteUpload, endUpload, getUpload, startUpload } from './v2/uploads.ts'

type Answered = void | Promise<void>

/** What a method of a route needs and does. `Path` is what the match found out about the target. */
export interface Declared<Path> {
  readonly need: RouteNeed
  readonly handle: (exchange: Exchange, path: Path, edge: Edge) => Answered
}

export type Methods<Path> = Readonly<Partial<Record<Method, Declared<Path>>>>

/** The parameter of a fixed route (undecoded) and its query. */
export interface FixedPath {
  readonly id: string
  readonly query: string
}

export interface FixedRoute {
  /** Labels metrics and log lines. */
  readonly name: string
  /** In the router's notation: `:id` is one segment, `*` is the rest. */
  readonly urls: readonly string[]
  readonly methods: Methods<FixedPath>
}

/** A request's route. `refusal` says that there is none. */
export interface Matched {
  readonly name: string
  readonly repository?: RepositoryName | undefined
  readonly reference?: string | undefined
  readonly refusal?: RegistryError
  readonly path: unknown
  // The path is the one that these methods take: `fixed` and `matchRegistry` are the only makers.
  readonly methods: Methods<never> & Readonly<Record<string, Declared<unknown> | undefined>>
}

const GET_HEAD = <Path>(declared: Declared<Path>): Methods<Path> => ({ GET: declared, HEAD: declared })

const WEBHOOKS = '/api/v1/webhooks'

export const fixedRoutes: readonly FixedRoute[] = Object.freeze([
  { name: 'live', urls: ['/livez'], methods: GET_HEAD({ need: 'nothing', handle: live }) },
  { name: 'ready', urls: ['/readyz'], methods: GET_HEAD({ need: 'nothing', handle: ready }) },
  {
    name: 'token',
    urls: ['/token'],
    methods: { GET: { need: 'login', handle: token }, POST: { need: 'login', handle: token } },
  },
  {
    name: 'schemas',
    urls: ['/api/v1/schemas', '/api/v1/schemas/*'],
    methods: GET_HEAD({ need: 'nothing', handle: schemas }),
  },
  { name: 'events', urls: ['/api/v1/events'], methods: GET_HEAD({ need: 'reader', handle: events }) },
  { name: 'region', urls: ['/api/v1/region'], methods: GET_HEAD({ need: 'admin', handle: getRegion }) },
  {
    name: 'repository',
    urls: ['/api/v1/repositories/*'],
    methods: { DELETE: { need: 'admin', handle: removeRepository } },
  },
  {
    name: 'webhooks',
    urls: [WEBHOOKS],
    methods: {
      ...GET_HEAD({ need: 'admin', handle: getWebhooks }),
      POST: { need: 'admin', handle: postWebhook },
    },
  },
  {
    name: 'webhook',
    urls: [`${WEBHOOKS}/:id`],
    methods: {
      ...GET_HEAD({ need: 'admin', handle: getWebhook }),
      PATCH: { need: 'admin', handle: changeOneWebhook },
      DELETE: { need: 'admin', handle: removeOneWebhook },
    },
  },
  {
    name: 'webhook-deliveries',
    urls: [`${WEBHOOKS}/:id/deliveries`],
    methods: GET_HEAD({ need: 'admin', handle: getDeliveries }),
  },
  {
    name: 'webhook-test',
    urls: [`${WEBHOOKS}/:id/test`],
    methods: { POST: { need: 'admin', handle: postTest } },
  },
  {
    name: 'webhook-replay',
    urls: [`${WEBHOOKS}/:id/replay`],
    methods: { POST: { need: 'admin', handle: postReplay } },
  },
  {
    name: 'webhook-redeliver',
    urls: [`${WEBHOOKS}/:id/redeliver`],
    methods: { POST: { need: 'admin', handle: postRedeliver } },
  },
  {
    name: 'peer-blob',
    urls: ['/peer/v1/blobs/:id'],
    methods: { GET: { need: 'peer', handle: peerBlob } },
  },
  {
    name: 'peer-manifest',
    urls: ['/peer/v1/manifests/:id'],
    methods: { GET: { need: 'peer', handle: peerManifest } },
  },
  { name: 'peer-log', urls: ['/peer/v1/log'], methods: { GET: { need: 'peer', handle: peerLog } } },
] satisfies FixedRoute[])

/** @throws Error for a route whose method declares no need: a mistake that must not start */
export function requireNeeds(name: string, methods: Methods<never>): void {
  for (const [method, declared] of Object.entries(methods)) {
    if (declared?.need === undefined) throw new Error(`${method} of the route ${name} declares no need`)
  }
}

type PathOf<R extends RegistryRoute> = Extract<RegistryPath, { route: R }>
type Handler<R extends RegistryRoute> = (exchange: Exchange, path: PathOf<R>) => Answered
type Handlers = { readonly [R in RegistryRoute]: Readonly<Partial<Record<Method, Handler<R>>>> }

const handlers: Handlers = Object.freeze({
  base: { GET: ping, HEAD: ping },
  catalog: { GET: getCatalog, HEAD: getCatalog },
  tags: { GET: getTags, HEAD: getTags },
  referrers: { GET: getReferrers, HEAD: getReferrers },
  blob: { GET: getBlob, HEAD: getBlob, DELETE: deleteBlob },
  uploads: { POST: startUpload },
  upload: { GET: getUpload, PATCH: appendUpload, PUT: endUpload, DELETE: deleteUpload },
  manifest: { GET: getManifest, HEAD: getManifest, PUT: putManifest, DELETE: deleteManifest },
})

/** The routes of /v2, each handler beside its need. */
export const registryRoutes: Readonly<Record<RegistryRoute, Matched['methods']>> = Object.freeze(
  Object.fromEntries(
    Object.entries(handlers).map(([route, methods]) => [
      route,
      Object.fromEntries(
        Object.entries(methods).map(([method, handle]) => [
          method,
          { need: routeNeeds[route as RegistryRoute][method as Method], handle },
        ]),
      ),
    ]),
  ) as Record<RegistryRoute, Matched['methods']>,
)

const NO_METHODS: Matched['methods'] = Object.freeze({})

/** A target under /v2. */
export function matchRegistry(target: string): Matched {
  const path = matchRegistryPath(target)
  if (path.route === 'unknown') return unknownRoute()
  if (path.route === 'invalid') {
    const refusal =
      path.reason === 'name'
        ? new RegistryError('NAME_INVALID')
        : new RegistryError('REQUEST_INVALID', { status: 414, message: 'the request target is too long' })
    return { name: 'invalid', path, methods: NO_METHODS, refusal }
  }
  return {
    name: path.route,
    repository: 'name' in path ? path.name : undefined,
    reference: 'reference' in path ? path.reference : 'digest' in path ? path.digest : undefined,
    path,
    methods: registryRoutes[path.route],
  }
}

/**
 * Matches a target that the router gave to one URL of a fixed route. The router decodes; this looks at the target as it
 * was sent, so what is spelt in another way is no route, and a parameter is never decoded.
 */
export function fixedMatcher({ name, methods }: FixedRoute, url: string): (target: string) => Matched {
  const pattern = new RegExp(`^${url.replaceAll('.', '\\.').replace(/:id/, '([^/]*)').replace('*', '(.*)')}$`)
  return (target) => {
    const mark = target.indexOf('?')
    const found = pattern.exec(mark === -1 ? target : target.slice(0, mark))
    if (found === null) return unknownRoute()
    const path: FixedPath = { id: found[1] ?? '', query: mark === -1 ? '' : target.slice(mark + 1) }
    return { name, path, methods: methods as Matched['methods'] }
  }
}

export function unknownRoute(): Matched {
  return { name: 'unknown', path: undefined, methods: NO_METHODS, refusal: new RegistryError('NOT_FOUND') }
}
