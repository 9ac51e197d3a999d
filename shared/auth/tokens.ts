// Issues and verifies tokens: signed statements of who the caller is and what it may do (RFC 7519; docker's token
// specification).
//
// A token must have exactly the header that this code writes: typ, alg ES256, and a kid from our key ring. A token that
// carries its own key or a key's URL is refused (CVE-2025-24976). Access and refresh tokens differ in type and
// audience, so neither is accepted as the other. Verified access tokens are cached until they expire: after the first
// request, a token costs one map lookup.

import { randomUUID } from 'node:crypto'
import { errors as joseErrors, jwtVerify, SignJWT } from 'jose'
import { LRUCache } from 'lru-cache'
import type { Scope } from '#shared/oci/scope.ts'
import { JsonError, parseStrictJson } from '#shared/oci/strict-json.ts'
import type { KeyRing } from './key-ring.ts'

/** Longer tokens are refused before they are parsed. */
const TOKEN_LENGTH_MAX = 16 * 1024
const REMEMBERED_MAX = 10_000
const LEEWAY_SECONDS = 60
const ACCESS = { typ: 'JWT', audience: 'registry' } as const
const REFRESH = { typ: 'refresh+jwt', audience: 'token' } as const
const REFRESH_TTL_SECONDS = 30 * 24 * 3600
const SCOPES_MAX = 100

export interface AccessClaims {
  /** '' for an anonymous caller. */
  readonly subject: string
  readonly scopes: readonly Scope[]
  /** Seconds since 1970. */
  readonly expiresAt: number
}

export interface RefreshClaims {
  readonly subject: string
  /** Thumbprint of the account's password hash. Changing the password invalidates the token. */
  readonly account: string
}

export interface Tokens {
  issueAccess(claims: {
    subject: string
    scopes: readonly Scope[]
  }): Promise<{ token: string; expiresIn: number; issuedAt: string }>
  /** Returns the claims of a token that was verified before and has not expired. Synchronous and cheap. */
  remembered(token: string): AccessClaims | undefined
  /** Returns undefined for anything but a valid access token that we issued. */
  verifyAccess(token: string): Promise<AccessClaims | undefined>
  issueRefresh(claims: RefreshClaims): Promise<string>
  verifyRefresh(token: string): Promise<RefreshClaims | undefined>
}

export interface TokensOptions {
  keys: KeyRing
  /** The region that signs; the token's `iss` claim. */
  issuer: string
  ttlSeconds: number
  nowMs?: () => number
}

export function createTokens(options: TokensOptions): Tokens {
  const { keys, issuer, ttlSeconds } = options
  const nowMs = options.nowMs ?? Date.now
  const known = new LRUCache<string, AccessClaims>({ max: REMEMBERED_MAX })

  async function sign(
    kind: typeof ACCESS | typeof REFRESH,
    subject: string,
    claims: Record<string, unknown>,
    lifeSeconds: number,
  ): Promise<string> {
    const { kid, key } = await keys.signing()
    const now = Math.floor(nowMs() / 1_000)
    return new SignJWT(claims)
      .setProtectedHeader({ alg: 'ES256', typ: kind.typ, kid })
      .setIssuer(issuer)
      .setSubject(subject)
      .setAudience(kind.audience)
      .setIssuedAt(now)
      .setNotBefore(now)
      .setExpirationTime(now + lifeSeconds)
      .setJti(randomUUID())
      .sign(key)
  }

  async function verify(token: string, kind: typeof ACCESS | typeof REFRESH) {
    const kid = keyIdOf(token, kind.typ)
    const key = kid === undefined ? undefined : await keys.verifying(kid)
    if (key === undefined) return undefined
    try {
      const { payload } = await jwtVerify(token, key, {
        algorithms: ['ES256'],
        typ: kind.typ,
        issuer,
        audience: kind.audience,
        clockTolerance: LEEWAY_SECONDS,
        currentDate: new Date(nowMs()),
        requiredClaims: ['sub', 'exp', 'iat', 'nbf', 'jti'],
      })
      return payload
    } catch (thrown) {
      if (thrown instanceof joseErrors.JOSEError) return undefined
      throw thrown
    }
  }

  return {
    async issueAccess({ subject, scopes }) {
      const token = await sign(ACCESS, subject, { access: scopes }, ttlSeconds)
      return { token, expiresIn: ttlSeconds, issuedAt: new Date(nowMs()).toISOString() }
    },
    remembered(token) {
      const claims = known.get(token)
      if (claims === undefined) return undefined
      if (claims.expiresAt + LEEWAY_SECONDS > nowMs() / 1_000) return claims
      known.delete(token)
      return undefined
    },
    async verifyAccess(token) {
      const payload = await verify(token, ACCESS)
      const scopes = payload && scopesOf(payload.access)
      if (payload?.sub === undefined || payload.exp === undefined || scopes === undefined) return undefined
      const claims = { subject: payload.sub, scopes, expiresAt: payload.exp }
      known.set(token, claims)
      return claims
    },
    issueRefresh: ({ subject, account }) => sign(REFRESH, subject, { account }, REFRESH_TTL_SECONDS),
    async verifyRefresh(token) {
      const payload = await verify(token, REFRESH)
      if (payload?.sub === undefined || typeof payload.account !== 'string') return undefined
      return { subject: payload.sub, account: payload.account }
    },
  }
}

const SEGMENTS = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+$/
const HEADER_FIELDS: readonly string[] = Object.freeze(['alg', 'kid', 'typ'])
const KID = /^[0-9a-f-]{36}$/

/** Returns the key id if the header and claims have exactly the form we write, else undefined. */
function keyIdOf(token: string, typ: string): string | undefined {
  if (token.length > TOKEN_LENGTH_MAX) return undefined
  const segments = SEGMENTS.exec(token)
  const header = segments && parseSegment(segments[1] ?? '')
  const claims = segments && parseSegment(segments[2] ?? '')
  if (!header || !claims) return undefined
  if (Object.keys(header).some((field) => !HEADER_FIELDS.includes(field))) return undefined
  const { alg, kid, typ: type } = header
  return alg === 'ES256' && type === typ && typeof kid === 'string' && KID.test(kid) ? kid : undefined
}

function parseSegment(segment: string): Record<string, unknown> | undefined {
  try {
    const value = parseStrictJson(Buffer.from(segment, 'base64url'))
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch (thrown) {
    if (thrown instanceof JsonError) return undefined
    throw thrown
  }
}

function scopesOf(value: unknown): Scope[] | undefined {
  if (!Array.isArray(value) || value.length > SCOPES_MAX) return undefined
  return value.every(isScope) ? value : undefined
}

function isScope(value: unknown): value is Scope {
  if (typeof value !== 'object' || value === null) return false
  const { type, name, actions, class: of } = value as Record<string, unknown>
  return (
    typeof type === 'string' &&
    typeof name === 'string' &&
    (of === undefined || typeof of === 'string') &&
    Array.isArray(actions) &&
    actions.every((action) => typeof action === 'string')
  )
}
