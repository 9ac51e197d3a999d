// Signs GETs for S3 here instead of in the SDK, because a pull should cost microseconds. Uses AWS Signature Version 4:
// in the query for links that others follow (docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html), in
// a header for our own requests (sig-v4-header-based-auth.html). The signing key is derived from the secret once per
// day and region; each signature is then two hashes. test/stores compares both forms with those of the SDK.

import { createHash, createHmac } from 'node:crypto'

export interface S3Credentials {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

export interface S3SignerOptions {
  readonly bucket: string
  readonly pathStyle: boolean
  /** undefined: Amazon's endpoint, derived from the region. */
  readonly endpoint: string | undefined
  region(): Promise<string>
  credentials(): Promise<S3Credentials>
}

/** Response headers for a client that follows the link. They prevent a browser from running the bytes. */
const ANSWER = Object.freeze({
  'response-content-disposition': 'attachment',
  'response-content-type': 'application/octet-stream',
})

/** Maps the name of an object to a URL that is valid for `seconds` from `nowMs`. */
export function createS3Signer(
  options: S3SignerOptions,
): (name: string, time: { nowMs: number; seconds: number }) => Promise<string> {
  const sign = createSigning()

  return async (name, { nowMs, seconds }) => {
    const region = await options.region()
    const { accessKeyId, secretAccessKey, sessionToken } = await options.credentials()
    const time = timeOf(nowMs)
    const date = time.slice(0, 8)
    const { origin, host, path } = placeOf(options, region, name)
    const query: Record<string, string> = {
      'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
      'X-Amz-Content-Sha256': 'UNSIGNED-PAYLOAD',
      'X-Amz-Credential': `${accessKeyId}/${date}/${region}/s3/aws4_request`,
      'X-Amz-Date': time,
      'X-Amz-Expires': String(seconds),
      'X-Amz-SignedHeaders': 'host',
      ...(sessionToken !== undefined && { 'X-Amz-Security-Token': sessionToken }),
      ...ANSWER,
      'x-id': 'GetObject',
    }
    const text = Object.keys(query)
      .sort()
      .map((field) => `${encode(field)}=${encode(query[field] ?? '')}`)
      .join('&')
    const request = `GET\n${path}\n${text}\nhost:${host}\n\nhost\nUNSIGNED-PAYLOAD`
    const signature = sign(request, { time, region, secretAccessKey })
    return `${origin}${path}?${text}&X-Amz-Signature=${signature}`
  }
}

/**
 * Maps the name of an object to a GET of our own, signed now. A Range may be added: it is not signed, as in the
 * requests of the SDK.
 */
export function createS3GetSigner(
  options: S3SignerOptions,
): (name: string, time: { nowMs: number }) => Promise<{ url: string; headers: Record<string, string> }> {
  const sign = createSigning()

  return async (name, { nowMs }) => {
    const region = await options.region()
    const { accessKeyId, secretAccessKey, sessionToken } = await options.credentials()
    const time = timeOf(nowMs)
    const { origin, host, path } = placeOf(options, region, name)
    const headers: Record<string, string> = {
      host,
      'x-amz-content-sha256': EMPTY_SHA256,
      'x-amz-date': time,
      ...(sessionToken !== undefined && { 'x-amz-security-token': sessionToken }),
    }
    const fields = Object.keys(headers).sort()
    const lines = fields.map((field) => `${field}:${headers[field]}\n`).join('')
    const request = `GET\n${path}\n\n${lines}\n${fields.join(';')}\n${EMPTY_SHA256}`
    const signature = sign(request, { time, region, secretAccessKey })
    headers.authorization =
      `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${time.slice(0, 8)}/${region}/s3/aws4_request, ` +
      `SignedHeaders=${fields.join(';')}, Signature=${signature}`
    return { url: `${origin}${path}`, headers }
  }
}

const EMPTY_SHA256 = createHash('sha256').digest('hex')

/** 20261124T085000Z */
function timeOf(nowMs: number): string {
  return new Date(nowMs).toISOString().replace(/[-:]|\.\d{3}/g, '')
}

/** Signs canonical requests and caches the key of the day. */
function createSigning(): (
  request: string,
  by: { time: string; region: string; secretAccessKey: string },
) => string {
  let day: { of: string; key: Buffer } | undefined

  function keyOf(date: string, region: string, secret: string): Buffer {
    const of = `${date}/${region}/${secret}`
    if (day?.of === of) return day.key
    const hmac = (key: string | Buffer, text: string) => createHmac('sha256', key).update(text).digest()
    const key = hmac(hmac(hmac(hmac(`AWS4${secret}`, date), region), 's3'), 'aws4_request')
    day = { of, key }
    return key
  }

  return (request, { time, region, secretAccessKey }) => {
    const date = time.slice(0, 8)
    const hashed = createHash('sha256').update(request).digest('hex')
    const toSign = `AWS4-HMAC-SHA256\n${time}\n${date}/${region}/s3/aws4_request\n${hashed}`
    return createHmac('sha256', keyOf(date, region, secretAccessKey))
      .update(toSign)
      .digest('hex')
  }
}

function placeOf(
  { bucket, endpoint, pathStyle }: S3SignerOptions,
  region: string,
  name: string,
): { origin: string; host: string; path: string } {
  const base = new URL(endpoint ?? `https://s3.${region}.amazonaws.com`)
  const host = pathStyle ? base.host : `${bucket}.${base.host}`
  const object = name.split('/').map(encode).join('/')
  const root = base.pathname.replace(/\/$/, '')
  const path = pathStyle ? `${root}/${encode(bucket)}/${object}` : `${root}/${object}`
  return { origin: `${base.protocol}//${host}`, host, path }
}

/** RFC 3986: encodes everything except letters, digits and -._~ (encodeURIComponent leaves five more). */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}
