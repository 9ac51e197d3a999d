// A route: a name for metrics and log lines, and the need of each of its methods. A method without a need cannot be
// declared, and a route that contains one cannot be registered. Such a mistake stops the process at start.

import { RegistryError } from '#shared/errors.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Method, RouteNeed } from './authorize.ts'
import type { Exchange } from './exchange.ts'

export type Answered = void | Promise<void>

export interface Needed {
  readonly need: RouteNeed
}

/** What a method of a route needs and does. `Path` is what the match extracts from the target. */
export interface Declared<Path> extends Needed {
  readonly handle: (exchange: Exchange, path: Path) => Answered
}

export type Methods<Of> = Readonly<Partial<Record<Method, Of>>>

/** The route of a request. `refusal` is set if there is none. */
export interface Matched<Of extends Needed> {
  readonly name: string
  readonly repository?: RepositoryName | undefined
  readonly reference?: string | undefined
  readonly refusal?: RegistryError
  readonly path: unknown
  readonly methods: Readonly<Record<string, Of | undefined>>
}

export type Match<Of extends Needed> = (target: string) => Matched<Of>

/** @throws Error for a route whose method declares no need */
export function requireNeeds(name: string, methods: Methods<Needed>): void {
  for (const [method, declared] of Object.entries(methods)) {
    if (declared?.need === undefined) throw new Error(`${method} of the route ${name} declares no need`)
  }
}

const NO_METHODS = Object.freeze({})

export function unknownRoute(): Matched<never> {
  return { name: 'unknown', path: undefined, methods: NO_METHODS, refusal: new RegistryError('NOT_FOUND') }
}

export function refusedRoute(name: string, path: unknown, refusal: RegistryError): Matched<never> {
  return { name, path, methods: NO_METHODS, refusal }
}

/** The parts of the target that a fixed route receives, not decoded. */
export interface FixedPath {
  /** The first parameter of its URL; empty if it has none. */
  readonly id: string
  readonly query: string
}

/**
 * Matches a target that the router assigned to `url`, in the router's notation (`:id` is a part of one segment, `*` is
 * the rest). The router decodes; this function compares the target as it was sent. A target with another spelling
 * (`/%61pi/v1/...`) is not a route: a proxy that guards a path would not recognize it either.
 */
export function fixedMatch<Of extends Needed>(
  { name, methods }: { name: string; methods: Methods<Of> },
  url: string,
): Match<Of> {
  const literal = url.replaceAll('.', '\\.')
  const pattern = new RegExp(`^${literal.replace(/\*$/, '.*').replaceAll(/:[a-z]+/g, '([^/]*)')}$`)
  return (target) => {
    const mark = target.indexOf('?')
    const found = pattern.exec(mark === -1 ? target : target.slice(0, mark))
    if (found === null) return unknownRoute()
    const path: FixedPath = { id: found[1] ?? '', query: mark === -1 ? '' : target.slice(mark + 1) }
    return { name, path, methods }
  }
}
