// A process that runs one service and sends itself SIGSTOP the first time it reaches a failpoint. Without a failpoint,
// the parent freezes it. It tells its parent when it is running.
//
//   node frozen-node.ts SERVICE DATABASE_URL DATA_DIR [FAILPOINT]

import { loadConfig } from '#shared/config/load.ts'
import { openRegion } from '#shared/region.ts'
import { startApi } from '../../services/api/service.ts'
import { startJanitor } from '../../services/janitor/service.ts'
import { startRelay } from '../../services/relay/service.ts'
import { startWebhooks } from '../../services/webhooks/service.ts'
import { TEST_SECRETS_KEY } from './region.ts'

const [service = '', databaseUrl = '', dataDir = '', failpoint = ''] = process.argv.slice(2)
let frozen = false
const config = loadConfig({
  PORTOLAN_DATABASE_URL: databaseUrl,
  PORTOLAN_DATA_DIR: dataDir,
  PORTOLAN_SECRETS_KEY: TEST_SECRETS_KEY,
  PORTOLAN_INLINE_BYTES_MAX: '0',
  PORTOLAN_LISTEN: '127.0.0.1:0',
  PORTOLAN_METRICS_LISTEN: 'off',
  PORTOLAN_LOG_LEVEL: 'error',
  PORTOLAN_SWEEP_SECONDS: '1',
  PORTOLAN_ORPHAN_GRACE_SECONDS: '60',
})
const region = await openRegion(config, {
  reach: (reached) => {
    if (reached !== failpoint || frozen) return
    frozen = true
    process.kill(process.pid, 'SIGSTOP')
  },
})
const starts = { api: startApi, janitor: startJanitor, relay: startRelay, webhooks: startWebhooks }
const started = await starts[service as keyof typeof starts](region)
process.send?.('port' in started ? started.port : 0)
