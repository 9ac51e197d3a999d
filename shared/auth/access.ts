// Rights: who may do what. The one place; rights by namespace will be decided here too.
//
// An identity is an actor and, when it came with a token, what that token carries: a token never gives more than its
// scopes, whoever holds it. Names are compared exactly, as strings.

import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Scope } from '#shared/oci/scope.ts'

export type Actor =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'account'; readonly name: string; readonly admin: boolean }

export const ANONYMOUS: Actor = Object.freeze({ kind: 'anonymous' })

export interface Identity {
  readonly actor: Actor
  /** What a token carries; undefined for an identity that is bounded by the actor's rights alone. */
  readonly scopes: readonly Scope[] | undefined
}

export type Action = 'pull' | 'push' | 'delete'

export type Need =
  | { readonly kind: 'nothing' }
  /** Any valid credential: what `/v2/` asks for, so that clients learn how to log in. */
  | { readonly kind: 'credential' }
  | { readonly kind: 'repository'; readonly name: RepositoryName; readonly actions: readonly Action[] }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'admin' }

export interface AccessPolicy {
  /** Nobody is asked for anything: the registry is its machine's own. */
  readonly open: boolean
  readonly anonymousPull: boolean
}

/** True when the identity may do what the request needs. */
export function allows(policy: AccessPolicy, identity: Identity, need: Need): boolean {
  if (policy.open || need.kind === 'nothing') return true
  const { actor, scopes } = identity
  switch (need.kind) {
    case 'credential':
      return actor.kind === 'account' || scopes !== undefined
    case 'admin':
      // Tokens are made for registries' clients; administration takes the account itself.
      return actor.kind === 'account' && actor.admin && scopes === undefined
    case 'catalog':
      return allowsScope(policy, identity, { type: 'registry', name: 'catalog', action: '*' })
    case 'repository':
      return need.actions.every((action) =>
        allowsScope(policy, identity, { type: 'repository', name: need.name, action }),
      )
  }
}

/** True when the identity may pull from the repository. */
export function mayPull(policy: AccessPolicy, identity: Identity, name: RepositoryName): boolean {
  return allows(policy, identity, { kind: 'repository', name, actions: ['pull'] })
}

/**
 * True when the identity may see who did something and through what request: an admin, or the account that did it.
 * Where nobody is asked who they are, everybody is the admin.
 * @param actor the account's name; '' for an anonymous caller, who is nobody's own self
 */
export function maySeeActor(policy: AccessPolicy, identity: Identity, actor: string): boolean {
  if (allows(policy, identity, { kind: 'admin' })) return true
  return identity.actor.kind === 'account' && identity.actor.name === actor
}

function allowsScope(
  policy: AccessPolicy,
  { actor, scopes }: Identity,
  wanted: { type: string; name: string; action: string },
): boolean {
  if (!permits(policy, actor, wanted)) return false
  if (scopes === undefined) return true
  return scopes.some(
    (scope) =>
      scope.type === wanted.type &&
      scope.class === undefined &&
      scope.name === wanted.name &&
      (scope.actions.includes(wanted.action) || scope.actions.includes('*')),
  )
}

/** The actor's own rights. */
function permits(
  policy: AccessPolicy,
  actor: Actor,
  wanted: { type: string; name: string; action: string },
): boolean {
  if (actor.kind === 'account') return true
  if (!policy.anonymousPull) return false
  return wanted.type === 'registry' || wanted.action === 'pull'
}

/** Of what a client asks for, what a token may carry: possibly nothing, which is no error. */
export function grantableScopes(policy: AccessPolicy, actor: Actor, asked: readonly Scope[]): Scope[] {
  return asked
    .filter(({ type, class: of, name }) => of === undefined && isKnown(type, name))
    .map((scope) => ({
      ...scope,
      actions: scope.actions.filter((action) => permits(policy, actor, { ...scope, action })),
    }))
    .filter(({ actions }) => actions.length > 0)
}

function isKnown(type: string, name: string): boolean {
  return type === 'repository' || (type === 'registry' && name === 'catalog')
}
