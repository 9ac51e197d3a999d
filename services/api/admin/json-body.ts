// Reads the body of a request to /api/v1 as JSON, with bounds. JSON that two parsers could read differently is
// rejected.

import { RegistryError } from '#shared/errors.ts'
import { JsonError, parseStrictJson } from '#shared/oci/strict-json.ts'
import { readBody } from '../body.ts'
import type { Exchange } from '../exchange.ts'

const BODY_BYTES_MAX = 64 * 1024

/** @throws RegistryError REQUEST_INVALID: 400 if the body is not JSON, 413 above 64 KiB, 408 if the body is too slow */
export async function readJson(exchange: Exchange): Promise<unknown> {
  const bytes = await readBody(exchange, { bytesMax: BODY_BYTES_MAX, code: 'REQUEST_INVALID' })
  try {
    return parseStrictJson(bytes)
  } catch (thrown) {
    if (!(thrown instanceof JsonError)) throw thrown
    throw new RegistryError('REQUEST_INVALID', { message: `the body is invalid: ${thrown.message}` })
  }
}
