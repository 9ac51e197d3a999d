// A version orders every write in every region: (h, origin), by h first, then by the origin's bytes.
//
// h is a hybrid logical clock: milliseconds since 1970 << 16 | counter. It is a signed 64-bit integer in Postgres and a
// bigint here. This process never makes new versions. Postgres computes them under the row lock from the database's
// clock (shared/db/push-manifest.ts), so a region has one clock however many nodes it has, and a local overwrite always
// beats what it overwrote. The zero version means "never" and is below every write.

export interface Version {
  readonly h: bigint
  readonly origin: string
}

export const NEVER: Version = Object.freeze({ h: 0n, origin: '' })

export function isNever({ h }: Version): boolean {
  return h === 0n
}

/**
 * Returns a negative number, zero or a positive number if a is before, the same as, or after b. Compares origins
 * bytewise.
 */
export function compareVersions(a: Version, b: Version): number {
  if (a.h !== b.h) return a.h < b.h ? -1 : 1
  return Buffer.compare(Buffer.from(a.origin), Buffer.from(b.origin))
}

/** Returns the wall-clock part of a version, in milliseconds since 1970. */
export function versionTimeMs(version: Version): number {
  return Number(version.h >> 16n)
}
