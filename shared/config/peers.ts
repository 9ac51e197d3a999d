// Settings of other regions, and of the keys that regions share.

import { keyList } from './parsers.ts'
import { secret } from './variable.ts'

export const peerVariables = Object.freeze({
  PORTOLAN_PEER_KEYS: secret(
    keyList,
    'Comma-separated keys that all regions share. The first signs requests to other regions; each is accepted, so ' +
      'that keys can be rotated. Unset, no other region can read the log.',
  ),
  PORTOLAN_SECRETS_KEY: secret(
    keyList,
    'Comma-separated keys that encrypt secrets in the database, the same in all nodes. The first encrypts; each decrypts, ' +
      'so that keys can be rotated. Unset, the embedded database uses a key of its own in `secrets-key` under the data ' +
      'directory; another database needs one for accounts and webhooks.',
  ),
})
