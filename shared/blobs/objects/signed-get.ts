// Sends one GET of an object with node:http, for large bodies. An SDK spends a millisecond of CPU on each request and
// wraps the body in its own streams. A pull needs only a signed request and the raw response.
//
// No retries, no redirects, no time limit: retry.ts and object-read.ts provide those. An error response is thrown in
// the shape of the SDK's errors, so that one table (`failureOf`) classifies both.

import { type Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { type Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import type { Readable } from 'node:stream'
import { freeMemory } from '../free-memory.ts'

/** Maximum bytes read of an error body. The code is at its beginning. */
const ERROR_BYTES_MAX = 64 * 1024

export interface SignedRequest {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
}

export interface GetOptions {
  readonly agents: { readonly http: HttpAgent; readonly https: HttpsAgent }
  readonly connectMsMax: number
  readonly range: { readonly start: number; readonly end: number } | undefined
  /** Ends the request and the body. */
  readonly signal: AbortSignal
}

/**
 * Returns the body and the length that the service announces, -1 if it announces none.
 * @throws Error with a system `code`, or with the code of the service as `name` and its status in `$metadata`
 */
export async function getSigned(
  { url, headers }: SignedRequest,
  options: GetOptions,
): Promise<{ readonly bytes: number; readonly body: Readable }> {
  const answer = await answerTo(url, headers, options)
  const status = answer.statusCode ?? 0
  // A caller that requested a part and gets the whole object detects this by the length.
  if (status === 200 || status === 206) {
    return { bytes: Number(answer.headers['content-length'] ?? -1), body: answer }
  }
  throw await errorOf(answer)
}

function answerTo(
  url: string,
  headers: SignedRequest['headers'],
  { agents, connectMsMax, range, signal }: GetOptions,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const secure = url.startsWith('https:')
    const asking = (secure ? httpsRequest : httpRequest)(url, {
      agent: secure ? agents.https : agents.http,
      headers: { ...headers, ...(range && { Range: `bytes=${range.start}-${range.end}` }) },
      signal,
    })
    asking.once('socket', (socket) => {
      // Runs after http's own listener, which has copied what it needs. Removed before the next request on this
      // connection.
      socket.on('data', freeMemory)
      asking.once('close', () => socket.off('data', freeMemory))
      if (!socket.connecting) return
      const late = Object.assign(new Error(`no connection within ${connectMsMax} ms`), { code: 'ETIMEDOUT' })
      const timer = setTimeout(() => asking.destroy(late), connectMsMax)
      const stop = () => clearTimeout(timer)
      socket.once('connect', stop)
      asking.once('close', stop)
    })
    asking.once('response', resolve)
    // Also catches later errors. An error that breaks the body is reported by the body.
    asking.on('error', reject)
    asking.end()
  })
}

/**
 * Returns `<Code>NoSuchKey</Code>` in the form that the SDK uses. Without a readable code, only the status is known.
 */
async function errorOf(answer: IncomingMessage): Promise<Error> {
  let text = ''
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      text += chunk.toString('latin1')
      if (text.length > ERROR_BYTES_MAX) break
    }
  } catch (thrown) {
    return thrown as Error
  }
  const name = /<Code>([A-Za-z0-9.]{1,100})<\/Code>/.exec(text)?.[1] ?? 'Unknown'
  const status = answer.statusCode ?? 0
  return Object.assign(new Error(`the store answered ${status}`), {
    name,
    $metadata: { httpStatusCode: status },
  })
}
