// Authorization: decides what each identity may do. All rules live here; permissions per namespace will be added here
// too.
//
// An identity is an actor plus, if the request carried a token, the token's scopes. A token never grants more than its
// scopes, whoever presents it. Names are compared as exact strings.

import type { RepositoryName } from '#shared/oci/reference.ts'
import type { Scope } from '#shared/oci/scope.ts'

export type Actor =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'account'; readonly name: string; readonly admin: boolean }

export const ANONYMOUS: Actor = Object.freeze({ kind: 'anonymous' })

export interface Identity {
  readonly actor: Actor
  /** The token's scopes. undefined if there is no token: the actor's rights are the only limit. */
  readonly scopes: readonly Scope[] | undefined
}

export type Action = 'pull' | 'push' | 'delete'

export type Need =
  | { readonly kind: 'nothing' }
  /** Any valid credential. `/v2/` needs this, so that clients learn how to log in. */
  | { readonly kind: 'credential' }
  | { readonly kind: 'repository'; readonly name: RepositoryName; readonly actions: readonly Action[] }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'admin' }

export interface AccessPolicy {
  /** True if authentication is off: no request needs a credential. */
  readonly open: boolean
  readonly anonymousPull: boolean
}

/** Returns true if the identity may do what the request needs. */
export function allows(policy: AccessPolicy, identity: Identity, need: Need): boolean {
  if (policy.open || need.kind === 'nothing') return true
  const { actor, scopes } = identity
  switch (need.kind) {
    case 'credential':
      return actor.kind === 'account' || scopes !== undefined
    case 'admin':
      // Tokens are issued to registry clients. Administration requires the account's own login.
      return actor.kind === 'account' && actor.admin && scopes === undefined
    case 'catalog':
      return allowsScope(policy, identity, { type: 'registry', name: 'catalog', action: '*' })
    case 'repository':
      return need.actions.every((action) =>
        allowsScope(policy, identity, { type: 'repository', name: need.name, action }),
      )
  }
}

/** Returns true if the identity may pull from the repository. */
export function mayPull(policy: AccessPolicy, identity: Identity, name: RepositoryName): boolean {
  return allows(policy, identity, { kind: 'repository', name, actions: ['pull'] })
}

/**
 * Returns true if the identity may see who performed an action and in which request: an admin, or the account that
 * performed it. If the policy is open, every caller counts as an admin.
 * @param actor the account's name; '' for an anonymous caller, which matches no account
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

/** Returns true if the actor itself has the right, before any token narrows it. */
function permits(
  policy: AccessPolicy,
  actor: Actor,
  wanted: { type: string; name: string; action: string },
): boolean {
  if (actor.kind === 'account') return true
  if (!policy.anonymousPull) return false
  return wanted.type === 'registry' || wanted.action === 'pull'
}

/** Returns the part of the requested scopes that a token may carry. An empty result is not an error. */
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
