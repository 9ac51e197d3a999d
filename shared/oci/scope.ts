// Token scopes: `repository:team/app:pull,push` (docker's token specification; distribution's `scope` grammar). They
// are split at the first and the last colon, because a name may contain one (`host:port/name`).

const SCOPE_LENGTH_MAX = 1024
const SCOPES_MAX = 100
const TYPE = /^([a-z0-9]+)(?:\(([a-z0-9]+)\))?$/
const ACTIONS = /^(?:[a-z]+|\*)(?:,(?:[a-z]+|\*))*$/

export interface Scope {
  readonly type: string
  /** For example `plugin` in `repository(plugin)`. A scope with a class never equals one without. */
  readonly class?: string
  readonly name: string
  readonly actions: readonly string[]
}

export function parseScope(text: string): Scope | undefined {
  if (text.length > SCOPE_LENGTH_MAX) return undefined
  const first = text.indexOf(':')
  const last = text.lastIndexOf(':')
  if (first === -1 || first === last) return undefined
  const type = TYPE.exec(text.slice(0, first))
  const name = text.slice(first + 1, last)
  const actions = text.slice(last + 1)
  if (type?.[1] === undefined || name === '' || !ACTIONS.test(actions)) return undefined
  const scope = { type: type[1], name, actions: [...new Set(actions.split(','))] }
  return type[2] === undefined ? scope : { ...scope, class: type[2] }
}

/**
 * Returns all scopes of repeated, space-separated parameters. Text that does not parse is skipped and grants nothing.
 */
export function parseScopes(texts: readonly string[]): Scope[] {
  return texts
    .flatMap((text) => text.slice(0, SCOPES_MAX * SCOPE_LENGTH_MAX).split(' '))
    .filter((text) => text !== '')
    .slice(0, SCOPES_MAX)
    .map(parseScope)
    .filter((scope) => scope !== undefined)
}

export function formatScope(scope: Scope): string {
  const type = scope.class === undefined ? scope.type : `${scope.type}(${scope.class})`
  return `${type}:${scope.name}:${scope.actions.join(',')}`
}
