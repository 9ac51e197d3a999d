// A setting (an account, a grant, a webhook, a policy) is one register for each field, and one for its existence. Each
// field merges separately, so if two regions change two fields of one webhook, both changes win. A deleted object stays
// deleted until a greater version of its existence creates it again. Fields older than that creation belong to the
// previous object.
//
// The order is total: by version, then absent above present (so that a revocation wins a tie), then the value's bytes.

import { compareVersions, isNever, NEVER, type Version } from './version.ts'

export interface FieldRegister {
  readonly version: Version
  readonly value: string
}

export interface ExistenceRegister {
  readonly version: Version
  readonly exists: boolean
  /** The version of the creation that this existence belongs to. Fields below it belong to the previous object. */
  readonly since: Version
}

export interface Setting {
  existence: ExistenceRegister
  readonly fields: Map<string, FieldRegister>
}

export function emptySetting(): Setting {
  return { existence: { version: NEVER, exists: false, since: NEVER }, fields: new Map() }
}

export function mergeExistence(setting: Setting, merged: ExistenceRegister): void {
  const order = compareVersions(setting.existence.version, merged.version)
  if (order < 0 || (order === 0 && setting.existence.exists && !merged.exists)) setting.existence = merged
}

export function mergeField(setting: Setting, name: string, merged: FieldRegister): void {
  const known = setting.fields.get(name)
  const order = known === undefined ? -1 : compareVersions(known.version, merged.version)
  const isGreater =
    order < 0 ||
    (order === 0 && Buffer.compare(Buffer.from(known?.value ?? ''), Buffer.from(merged.value)) < 0)
  if (isGreater) setting.fields.set(name, merged)
}

/** Returns the object's fields, or undefined if the object does not exist. */
export function valuesOf({ existence, fields }: Setting): ReadonlyMap<string, string> | undefined {
  if (!existence.exists || isNever(existence.version)) return undefined
  return new Map(
    [...fields]
      .filter(([, { version }]) => compareVersions(version, existence.since) >= 0)
      .map(([name, { value }]) => [name, value]),
  )
}
