// Events as Server-Sent Event frames, rendered once for all streams.
//
// The tail passes the same event objects to every stream. A frame is rendered when the first stream needs it, and is
// kept as long as the event object lives. So 500 streams cost two renderings instead of 500: one for readers that may
// see the actor, one for the others.

import type { LoggedEvent } from '#shared/db/event-log.ts'
import { toCloudEvent, withoutProvenance } from '#shared/events/cloud-event.ts'

/** `full` includes the actor and the request; `plain` omits them. */
export type Audience = 'full' | 'plain'

export interface EventFrames {
  /** https://html.spec.whatwg.org/multipage/server-sent-events.html */
  frame(event: LoggedEvent, audience: Audience): Buffer
}

export function createEventFrames(origin: string): EventFrames {
  const rendered: Readonly<Record<Audience, WeakMap<LoggedEvent, Buffer>>> = {
    full: new WeakMap(),
    plain: new WeakMap(),
  }
  return {
    frame(event, audience) {
      const known = rendered[audience].get(event)
      if (known !== undefined) return known
      const frame = Buffer.from(render(origin, event, audience))
      rendered[audience].set(event, frame)
      return frame
    },
  }
}

function render(origin: string, event: LoggedEvent, audience: Audience): string {
  const full = toCloudEvent(origin, event)
  const { position, ...rest } = audience === 'full' ? full : withoutProvenance(full)
  return `id: ${position}\nevent: ${event.type}\ndata: ${JSON.stringify({ ...rest, position })}\n\n`
}
