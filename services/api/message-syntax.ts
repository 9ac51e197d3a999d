// Checks what RFC 9112 requires of a request head and Node's parser does not check: the form of the target, and exactly
// one Host. Node has checks for these that reply without an envelope or a log line. They are switched off and made here
// instead.

import type { IncomingMessage } from 'node:http'
import { RegistryError } from '#shared/errors.ts'

const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/is
/** uri-host [ ":" port ] (RFC 9110, 7.2): a registered name, an IPv4 address or a bracketed IPv6 address. */
const HOST = /^(?:[A-Za-z0-9._~!$&'()*+,;=%-]{0,255}|\[[0-9A-Za-z:.%]{2,60}\])(?::[0-9]{0,5})?$/

/**
 * Replaces an absolute-form target with its path, and the Host with the authority of the target, whatever the Host
 * field said (RFC 9112, 3.2.2). A target of any other form is left unchanged, and `refuseMalformed` rejects it.
 */
export function toOriginForm(request: IncomingMessage): void {
  const { url = '' } = request
  if (url.startsWith('/')) return
  const [, authority = '', rest = ''] = ABSOLUTE.exec(url) ?? []
  if (authority === '' || !HOST.test(authority) || authority.startsWith(':')) return
  request.url = rest.startsWith('/') ? rest : `/${rest}`
  request.headers.host = authority
}

/** @throws RegistryError REQUEST_INVALID: 400 for the target or the Host (RFC 9112, 3.2), 417 for an expectation */
export function refuseMalformed(request: IncomingMessage): void {
  const { url = '', headers, httpVersion, rawHeaders } = request
  if (!url.startsWith('/') && url !== '*') {
    throw malformed('the request target is neither a path nor an http URL')
  }
  const hosts = countOfHost(rawHeaders)
  if (hosts > 1) throw malformed('the request has more than one Host')
  if (hosts === 0 && httpVersion === '1.1') throw malformed('the request has no Host')
  if (!HOST.test(headers.host ?? '')) throw malformed('the Host is malformed')
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== '100-continue') {
    throw new RegistryError('REQUEST_INVALID', { status: 417, message: 'the expectation cannot be met' })
  }
}

function malformed(message: string): RegistryError {
  return new RegistryError('REQUEST_INVALID', { message, closeConnection: true })
}

/** Node keeps the first of several Host fields and drops the others. Only the raw list contains them all. */
function countOfHost(rawHeaders: readonly string[]): number {
  let count = 0
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]
    if (name?.length === 4 && name.toLowerCase() === 'host') count++
  }
  return count
}
