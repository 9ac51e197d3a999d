// A relay that kills itself in the middle of a move, the n-th time.
//
//   node relay-node.ts DATABASE_URL DATA_DIR AFTER

import { loadConfig } from '#shared/config.ts'
import { openRegion } from '#shared/region.ts'
import { startRelay } from '../../services/relay/service.ts'

const [databaseUrl = '', dataDir = '', after = '0'] = process.argv.slice(2)
let left = Number(after)
const config = loadConfig({
  PORTOLAN_DATABASE_URL: databaseUrl,
  PORTOLAN_DATA_DIR: dataDir,
  PORTOLAN_METRICS_LISTEN: 'off',
  PORTOLAN_LOG_LEVEL: 'error',
})
const region = await openRegion(config, {
  reach: (reached) => {
    if (reached === 'outbox-moved' && left-- <= 0) process.kill(process.pid, 'SIGKILL')
  },
})
await startRelay(region)
// The relay's own timers hold nobody: this does, until the kill.
setInterval(() => {}, 60_000)
