// Settings of other regions.

import { peerKeys } from './parsers.ts'
import { secret } from './variable.ts'

export const peerVariables = Object.freeze({
  PORTOLAN_PEER_KEYS: secret(
    peerKeys,
    'Comma-separated keys that all regions share. The first signs requests to other regions; each is accepted, so ' +
      'that keys can be rotated. Unset, no other region can read the log.',
  ),
})
