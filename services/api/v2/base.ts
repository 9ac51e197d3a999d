// GET /v2/: the ping from which clients learn whether and how to authenticate. With authentication on it is 401 to
// everybody without a credential, also where pulling is free: a 200 here means "no login" for the whole session.

import { type Exchange, sendJson } from '../exchange.ts'

export function ping(exchange: Exchange): void {
  sendJson(exchange, {})
}
