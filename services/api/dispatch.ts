// One request from its target to its answer: route, rights, handler, error, log line. The order is the security: the
// path is matched undecoded, the caller is known and allowed before a byte of the body is read, and whatever is thrown
// is rendered in one place.

import { RegistryError } from '#shared/errors.ts'
import { logRequest } from '#shared/observability/log.ts'
import { matchRegistryPath, type RegistryPath } from '#shared/oci/registry-path.ts'
import { authenticate } from './authenticate.ts'
import { authorize, type Method, type Route, routeNeeds } from './authorize.ts'
import { replyError } from './error-reply.ts'
import type { Exchange } from './exchange.ts'
import { ping } from './routes/base.ts'
import { deleteBlob, getBlob } from './routes/blobs.ts'
import { getCatalog, getReferrers, getTags } from './routes/lists.ts'
import { deleteManifest, getManifest, putManifest } from './routes/manifests.ts'
import { appendUpload, deleteUpload, endUpload, getUpload, startUpload } from './routes/uploads.ts'

type PathOf<R extends Route> = Extract<RegistryPath, { route: R }>
type Handler<R extends Route> = (exchange: Exchange, path: PathOf<R>) => void | Promise<void>
type Handlers = { readonly [R in Route]: Readonly<Partial<Record<Method, Handler<R>>>> }

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

/** Answers a request under /v2. Never rejects. */
export async function dispatch(exchange: Exchange): Promise<void> {
  const path = matchRegistryPath(exchange.request.url ?? '')
  observe(exchange, path)
  try {
    await answer(exchange, path)
  } catch (thrown) {
    replyError(exchange, thrown)
  }
}

function answer(exchange: Exchange, path: RegistryPath): void | Promise<void> {
  if (path.route === 'unknown') throw new RegistryError('NOT_FOUND')
  if (path.route === 'invalid') {
    throw path.reason === 'name'
      ? new RegistryError('NAME_INVALID')
      : new RegistryError('REQUEST_INVALID', { status: 414, message: 'the request target is too long' })
  }
  // The table's type says that each route's handlers take that route's path, which is the one at hand.
  const methods = handlers[path.route] as Readonly<Partial<Record<string, Handler<Route>>>>
  const handler = methods[exchange.request.method ?? '']
  const need = routeNeeds[path.route][exchange.request.method as Method]
  if (handler === undefined || need === undefined) {
    throw new RegistryError('UNSUPPORTED', {
      message: 'the method is not supported here',
      headers: { Allow: Object.keys(methods).join(', ') },
    })
  }
  const name = 'name' in path ? path.name : undefined
  const identity = authenticate(exchange)
  if (identity instanceof Promise) {
    return identity.then((known) => {
      exchange.identity = known
      authorize(exchange, need, name)
      return handler(exchange, path)
    })
  }
  exchange.identity = identity
  authorize(exchange, need, name)
  return handler(exchange, path)
}

/** The log line and the numbers, when the answer is out or the client is gone. */
function observe(exchange: Exchange, path: RegistryPath): void {
  const startMs = performance.now()
  const { region, request, response } = exchange
  response.once('close', () => {
    const durationMs = performance.now() - startMs
    const status = response.headersSent ? response.statusCode : 499
    const sent = exchange.bodyBytes
    const method = request.method ?? ''
    const { actor } = exchange.identity
    region.metrics.request({
      method: knownMethod(method),
      route: path.route,
      status,
      seconds: durationMs / 1_000,
      bytesOut: sent,
    })
    if (exchange.errorCode !== undefined) region.metrics.error(exchange.errorCode)
    logRequest(region.log, {
      id: exchange.requestId,
      method,
      route: path.route,
      repository: 'name' in path ? path.name : undefined,
      reference: 'reference' in path ? path.reference : 'digest' in path ? path.digest : undefined,
      status,
      bytes: sent,
      durationMs,
      actor: actor.kind === 'account' ? actor.name : '',
      address: exchange.remoteAddress,
      userAgent: request.headers['user-agent'],
      code: exchange.errorCode,
    })
  })
}

const METHODS: readonly string[] = Object.freeze(['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE'])

/** Metric labels are a closed set: a client may not make new ones. */
function knownMethod(method: string): string {
  return METHODS.includes(method) ? method : 'other'
}
