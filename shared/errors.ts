// The closed table of errors that clients can see, and the class that carries them.
//
// Errors are distinguished by type, never by text. A RegistryError is expected and is sent to the client as the OCI
// error envelope (distribution-spec, "Error Codes"). An OperatorError is a message for whoever starts or runs Portolan.
// An operational error (network, SQLSTATE, file system) is retried, or becomes UNAVAILABLE where it is handled.
// Anything else is a bug: the client gets UNKNOWN without internal details. test/tidy.test.ts compares the README's
// table with this one.

export const errorTable = {
  BLOB_UNKNOWN: { status: 404, message: 'blob unknown to this repository' },
  BLOB_UPLOAD_INVALID: { status: 400, message: 'blob upload invalid' },
  BLOB_UPLOAD_UNKNOWN: { status: 404, message: 'blob upload unknown to this repository' },
  DENIED: { status: 403, message: 'requested access to the resource is denied' },
  DIGEST_INVALID: { status: 400, message: 'digest is malformed, unsupported, or does not match the content' },
  MANIFEST_BLOB_UNKNOWN: { status: 404, message: 'manifest references content unknown to this repository' },
  MANIFEST_INVALID: { status: 400, message: 'manifest invalid' },
  MANIFEST_UNKNOWN: { status: 404, message: 'manifest unknown to this repository' },
  NAME_INVALID: { status: 400, message: 'repository name invalid' },
  NAME_UNKNOWN: { status: 404, message: 'repository unknown to this registry' },
  NOT_FOUND: { status: 404, message: 'no such resource' },
  PAGINATION_NUMBER_INVALID: { status: 400, message: 'page size invalid' },
  POSITION_GONE: { status: 410, message: 'the events after this position are no longer kept' },
  PRECONDITION_FAILED: { status: 412, message: 'a precondition of the request is not met' },
  RANGE_INVALID: { status: 416, message: 'range invalid' },
  REQUEST_INVALID: { status: 400, message: 'request malformed' },
  SIZE_INVALID: { status: 400, message: 'length of the content does not match the announced length' },
  TAG_INVALID: { status: 400, message: 'tag invalid' },
  TOOMANYREQUESTS: { status: 429, message: 'too many requests' },
  UNAUTHORIZED: { status: 401, message: 'authentication required' },
  UNAVAILABLE: { status: 503, message: 'a service that this request needs is unavailable; try again' },
  UNKNOWN: { status: 500, message: 'an unexpected error occurred; the log has details under the request id' },
  UNSUPPORTED: { status: 405, message: 'the operation is unsupported' },
} as const satisfies Record<string, { status: number; message: string }>

export type ErrorCode = keyof typeof errorTable

export interface ErrorOptions {
  /** Replaces the table's message. Never contains a secret, never echoes more than 256 bytes of input. */
  message?: string
  /** One envelope entry per detail; absent means one entry without detail. */
  details?: readonly unknown[]
  /** Replaces the table's status where the protocol requires another (413 for size, 401 with scopes ...). */
  status?: number
  /** Extra response headers (WWW-Authenticate, Retry-After, Allow, Range). */
  headers?: Readonly<Record<string, string>>
  /** True if the request's body was not read to its end. The connection is then closed after the response. */
  closeConnection?: boolean
  cause?: unknown
}

export class RegistryError extends Error {
  override readonly name = 'RegistryError'
  readonly code: ErrorCode
  readonly status: number
  readonly details: readonly unknown[]
  readonly headers: Readonly<Record<string, string>>
  readonly closeConnection: boolean

  constructor(code: ErrorCode, options: ErrorOptions = {}) {
    super(
      options.message ?? errorTable[code].message,
      options.cause === undefined ? {} : { cause: options.cause },
    )
    this.code = code
    this.status = options.status ?? errorTable[code].status
    this.details = options.details ?? []
    this.headers = options.headers ?? {}
    this.closeConnection = options.closeConnection ?? false
  }
}

/**
 * An error that an operator can fix. The message says what is wrong and what to do, without secrets. It ends a start or
 * a command with that message alone and exit code 1. The cause is only logged.
 */
export class OperatorError extends Error {
  override readonly name: string = 'OperatorError'
}

/** Returns any thrown value as an Error. A value that is not an Error becomes the cause. */
export function toError(thrown: unknown): Error {
  return thrown instanceof Error
    ? thrown
    : new Error('a value that is not an Error was thrown', { cause: thrown })
}
