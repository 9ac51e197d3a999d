// Lists: tags, the catalog, referrers (distribution-spec, "Content Discovery").

import { RegistryError } from '#shared/errors.ts'
import { parseDigest } from '#shared/oci/digest.ts'
import { OCI_INDEX } from '#shared/oci/media-type.ts'
import { nextLink, parsePage } from '#shared/oci/pagination.ts'
import { parseQuery } from '#shared/oci/query.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { listReferrers, listRepositories, listTags } from '#shared/registry/list.ts'
import { callerMayPull } from '../authorize.ts'
import { type Exchange, type Headers, registryHeaders, sendBytes } from '../exchange.ts'

export async function getTags(
  exchange: Exchange,
  path: { name: RepositoryName; query: string },
): Promise<void> {
  const page = parsePage(parseQuery(path.query))
  const { json, next } = await listTags(exchange.registry, { repository: path.name, page })
  const headers: Headers =
    next === undefined ? {} : { Link: nextLink(`/v2/${path.name}/tags/list`, { last: next, n: page.limit }) }
  sendList(exchange, `{"name":"${path.name}","tags":${json}}`, headers)
}

export async function getCatalog(exchange: Exchange, path: { query: string }): Promise<void> {
  const page = parsePage(parseQuery(path.query))
  const { json, next } = await listRepositories(exchange.registry, {
    page,
    visible: callerMayPullAtAll(exchange),
  })
  const headers: Headers =
    next === undefined ? {} : { Link: nextLink('/v2/_catalog', { last: next, n: page.limit }) }
  sendList(exchange, `{"repositories":${json}}`, headers)
}

function sendList(exchange: Exchange, json: string, headers: Headers): void {
  sendBytes(exchange, {
    status: 200,
    headers: { ...registryHeaders(), 'Content-Type': 'application/json', ...headers },
    body: Buffer.from(json),
  })
}

/** A catalog token carries no repository scopes. What its holder could request decides. */
function callerMayPullAtAll(exchange: Exchange): (name: RepositoryName) => boolean {
  const { actor } = exchange.identity
  return callerMayPull(exchange, { actor, scopes: undefined })
}

const ARTIFACT_TYPES_MAX = 16

export async function getReferrers(
  exchange: Exchange,
  path: { name: RepositoryName; digest: string; query: string },
): Promise<void> {
  const subject = parseDigest(path.digest)
  if (subject === undefined) throw new RegistryError('DIGEST_INVALID')
  const query = parseQuery(path.query)
  const artifactTypes = query.getAll('artifactType')
  const after = query.get('last') ?? ''
  if (artifactTypes.length > ARTIFACT_TYPES_MAX || artifactTypes.some((type) => type.includes('\0'))) {
    throw new RegistryError('REQUEST_INVALID', { message: 'artifactType is malformed or given too often' })
  }
  const { items, next } = await listReferrers(exchange.registry, {
    repository: path.name,
    subject,
    artifactTypes,
    after,
  })
  const headers: Headers = { ...registryHeaders(), 'Content-Type': OCI_INDEX }
  if (artifactTypes.length > 0) headers['OCI-Filters-Applied'] = 'artifactType'
  if (next !== undefined) {
    const filters = artifactTypes.map((type) => `artifactType=${encodeURIComponent(type)}&`).join('')
    headers.Link = `</v2/${path.name}/referrers/${subject}?${filters}last=${encodeURIComponent(next)}>; rel="next"`
  }
  const body = `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${items.join(',')}]}`
  sendBytes(exchange, { status: 200, headers, body: Buffer.from(body) })
}
