// The routes of /v2, each handler with its need. Names contain slashes and targets are never decoded, so shared/oci
// distinguishes the paths instead of a router.

import { RegistryError } from '#shared/errors.ts'
import { matchRegistryPath, type RegistryPath } from '#shared/oci/registry-path.ts'
import { type Method, type RegistryRoute, routeNeeds } from '../authorize.ts'
import type { Exchange } from '../exchange.ts'
import { type Answered, type Declared, type Matched, refusedRoute, unknownRoute } from '../route.ts'
import { ping } from './base.ts'
import { deleteBlob, getBlob } from './blobs.ts'
import { getCatalog, getReferrers, getTags } from './lists.ts'
import { deleteManifest, getManifest, putManifest } from './manifests.ts'
import { appendUpload, deleteUpload, endUpload, getUpload, startUpload } from './uploads.ts'

type PathOf<R extends RegistryRoute> = Extract<RegistryPath, { route: R }>
type Handler<R extends RegistryRoute> = (exchange: Exchange, path: PathOf<R>) => Answered
type Handlers = { readonly [R in RegistryRoute]: Readonly<Partial<Record<Method, Handler<R>>>> }
type RegistryMethods = Matched<Declared<never>>['methods']

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

export const registryRoutes: Readonly<Record<RegistryRoute, RegistryMethods>> = Object.freeze(
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
  ) as Record<RegistryRoute, RegistryMethods>,
)

/** Matches a target under /v2. */
export function matchRegistry(target: string): Matched<Declared<never>> {
  const path = matchRegistryPath(target)
  if (path.route === 'unknown') return unknownRoute()
  if (path.route === 'invalid') {
    const refusal =
      path.reason === 'name'
        ? new RegistryError('NAME_INVALID')
        : new RegistryError('REQUEST_INVALID', { status: 414, message: 'the request target is too long' })
    return refusedRoute('invalid', path, refusal)
  }
  return {
    name: path.route,
    repository: 'name' in path ? path.name : undefined,
    reference: 'reference' in path ? path.reference : 'digest' in path ? path.digest : undefined,
    path,
    methods: registryRoutes[path.route],
  }
}
