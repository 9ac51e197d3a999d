// The author of a write, and the request and process that made it. Every outbox row has these columns, so webhooks,
// feeds and audits need no join.

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
  /** W3C trace context of the request, if it had one. */
  readonly traceparent: string | null
  /** The process that handled the request. */
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
