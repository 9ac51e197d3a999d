// Defines the need of each route of /v2, and the refusal that tells clients how to obtain access. The other surfaces
// declare their needs beside their handlers. test/services/api/authorize.test.ts tests all of them with no, wrong and
// right credentials.

import { type Action, allows, type Identity, mayPull, type Need } from '#shared/auth/access.ts'
import { bearerChallenge, realmOf } from '#shared/auth/challenge.ts'
import { RegistryError } from '#shared/errors.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { RegistryPath } from '#shared/oci/registry-path.ts'
import type { Exchange } from './exchange.ts'

export type RegistryRoute = Exclude<RegistryPath['route'], 'unknown' | 'invalid'>
export type Method = 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE'

const PULL: readonly Action[] = Object.freeze(['pull'])
const PUSH: readonly Action[] = Object.freeze(['pull', 'push'])
/** An upload belongs to the client that pushes: reading its status and cancelling it require push, not delete. */
const UPLOAD: readonly Action[] = Object.freeze(['push'])
const DELETE: readonly Action[] = Object.freeze(['delete'])

export type RegistryNeed = readonly Action[] | 'credential' | 'catalog'

/**
 * Needs in addition to those of /v2. `nothing` requires no credentials. `login` means that the credentials are the
 * content of the request, and the handler checks them. `reader` is anyone who may pull anything. `admin` is an
 * administrator. `peer` is another region.
 */
export type RouteNeed = RegistryNeed | 'nothing' | 'login' | 'reader' | 'admin' | 'peer'

export const routeNeeds: Readonly<Record<RegistryRoute, Readonly<Partial<Record<Method, RegistryNeed>>>>> =
  Object.freeze({
    base: { GET: 'credential', HEAD: 'credential' },
    catalog: { GET: 'catalog', HEAD: 'catalog' },
    tags: { GET: PULL, HEAD: PULL },
    referrers: { GET: PULL, HEAD: PULL },
    blob: { GET: PULL, HEAD: PULL, DELETE },
    uploads: { POST: PUSH },
    upload: { GET: UPLOAD, PATCH: PUSH, PUT: PUSH, DELETE: UPLOAD },
    manifest: { GET: PULL, HEAD: PULL, PUT: PUSH, DELETE },
  })

/** Throws UNAUTHORIZED with the challenge if the identity lacks the access that the route needs. */
export function authorize(exchange: Exchange, need: RegistryNeed, name: RepositoryName | undefined): void {
  const { auth } = exchange.edge
  if (auth === undefined || allows(auth.policy, exchange.identity, toNeed(need, name))) return
  throw unauthorized(exchange, {
    scope: scopeOf(need, name),
    error: exchange.identity.scopes === undefined ? undefined : 'insufficient_scope',
  })
}

function toNeed(need: RegistryNeed, name: RepositoryName | undefined): Need {
  if (need === 'credential') return { kind: 'credential' }
  if (need === 'catalog' || name === undefined) return { kind: 'catalog' }
  return { kind: 'repository', name, actions: need }
}

function scopeOf(need: RegistryNeed, name: RepositoryName | undefined): string | undefined {
  if (need === 'credential') return undefined
  if (need === 'catalog' || name === undefined) return 'registry:catalog:*'
  return `repository:${name}:${need.join(',')}`
}

/** 401 with the one challenge that clients look for. */
export function unauthorized(
  exchange: Exchange,
  options: { scope: string | undefined; error: 'insufficient_scope' | 'invalid_token' | undefined },
): RegistryError {
  const { headers, socket } = exchange.request
  const realm = realmOf({
    publicUrl: exchange.region.config.publicUrl,
    encrypted: 'encrypted' in socket,
    host: headers.host,
    forwardedProto: single(headers['x-forwarded-proto']),
    forwardedHost: single(headers['x-forwarded-host']),
    trusted: exchange.trusted,
  })
  return new RegistryError('UNAUTHORIZED', {
    headers: { 'WWW-Authenticate': bearerChallenge({ realm, ...options }) },
  })
}

function single(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.[0]
}

/** Whether the caller may pull from a repository. Used for mounts and the catalog. */
export function callerMayPull(
  exchange: Exchange,
  identity: Identity = exchange.identity,
): (name: RepositoryName) => boolean {
  const { auth } = exchange.edge
  return (name) => auth === undefined || mayPull(auth.policy, identity, name)
}
