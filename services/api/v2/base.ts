// GET /v2/: the ping that tells clients whether and how to authenticate. With authentication on, it returns 401 to
// every request without a credential, even if pulling is free: a 200 here means "no login" for the whole session.

import { type Exchange, sendJson } from '../exchange.ts'

export function ping(exchange: Exchange): void {
  sendJson(exchange, {})
}
