// GET and POST /token: the docker token endpoint and its OAuth2 form (RFC 6749, 4.3 and 6).
// shared/auth/token-service.ts makes the decisions; this file handles the two shapes of the request.

import { parseAuthorization } from '#shared/auth/authorization-header.ts'
import { answerTokenRequest, type TokenRequest } from '#shared/auth/token-service.ts'
import { RegistryError } from '#shared/errors.ts'
import { parseQuery } from '#shared/oci/query.ts'
import { readBody } from './body.ts'
import { type Exchange, sendJson } from './exchange.ts'

const FORM_BYTES_MAX = 64 * 1024
const TARGET_LENGTH_MAX = 32 * 1024

export async function token(exchange: Exchange): Promise<void> {
  const { auth } = exchange.edge
  if (auth === undefined)
    throw new RegistryError('NOT_FOUND', { message: 'this registry asks nobody for a token' })
  try {
    const request = exchange.request.method === 'GET' ? fromQuery(exchange) : await fromForm(exchange)
    const answer = await answerTokenRequest(auth, request)
    sendJson(exchange, answer)
  } catch (thrown) {
    if (!(thrown instanceof RegistryError) || thrown.code !== 'UNAUTHORIZED') throw thrown
    // RFC 9110, 15.5.2 requires a challenge. Bearer would send the client back to this endpoint.
    throw new RegistryError('UNAUTHORIZED', {
      message: thrown.message,
      headers: { 'WWW-Authenticate': 'Basic realm="portolan"' },
    })
  }
}

function fromQuery(exchange: Exchange): TokenRequest {
  const target = exchange.request.url ?? ''
  if (target.length > TARGET_LENGTH_MAX) throw new RegistryError('REQUEST_INVALID', { status: 414 })
  const mark = target.indexOf('?')
  const query = parseForm(mark === -1 ? '' : target.slice(mark + 1))
  const credentials = parseAuthorization(exchange.request.headers.authorization)
  if (credentials.kind === 'malformed' || credentials.kind === 'bearer') {
    throw new RegistryError('UNAUTHORIZED', { message: 'the credentials are malformed' })
  }
  return {
    credentials,
    scopes: query.getAll('scope'),
    offline: query.get('offline_token') === 'true',
    address: exchange.remoteAddress,
  }
}

async function fromForm(exchange: Exchange): Promise<TokenRequest> {
  const body = await readBody(exchange, { bytesMax: FORM_BYTES_MAX, code: 'REQUEST_INVALID' })
  const form = parseForm(body.toString('utf8'))
  const grant = form.get('grant_type')
  const base = {
    scopes: form.getAll('scope'),
    offline: form.get('access_type') === 'offline',
    address: exchange.remoteAddress,
  }
  if (grant === 'password') {
    const name = form.get('username') ?? ''
    return { ...base, credentials: { kind: 'basic', name, password: form.get('password') ?? '' } }
  }
  if (grant === 'refresh_token') {
    return { ...base, credentials: { kind: 'refresh', token: form.get('refresh_token') ?? '' } }
  }
  throw new RegistryError('REQUEST_INVALID', { message: 'grant_type is neither password nor refresh_token' })
}

/** In forms and in this query a plus sign is a space, because clients join scopes with it. */
function parseForm(text: string) {
  return parseQuery(text.replaceAll('+', ' '))
}
