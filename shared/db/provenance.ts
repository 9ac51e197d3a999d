// Who did it and through what: the columns every outbox row carries, so that webhooks, feeds and audits need no join.

export interface Provenance {
  /** Account name, or '' for an anonymous caller. */
  readonly actor: string
  readonly request: {
    readonly id: string
    readonly addr: string
    readonly host: string
    readonly method: string
    readonly userAgent: string
  }
  /** W3C trace context of the request, where it had one. */
  readonly traceparent: string | null
  /** The process that took the request. */
  readonly instance: string
}

export function provenanceParameters(provenance: Provenance) {
  return {
    actor: provenance.actor,
    request: JSON.stringify(provenance.request),
    traceparent: provenance.traceparent,
    instance: provenance.instance,
  }
}
