// A node that kills itself at a failpoint after it has passed the failpoint AFTER times.
//
//   node crash-node.ts DATABASE_URL DATA_DIR FAILPOINT AFTER

import { loadConfig } from '#shared/config/load.ts'
import { openRegion } from '#shared/region.ts'
import { startApi } from '../../services/api/service.ts'
import { startJanitor } from '../../services/janitor/service.ts'

const [databaseUrl = '', dataDir = '', failpoint = '', after = '0'] = process.argv.slice(2)
let left = Number(after)
const config = loadConfig({
  PORTOLAN_DATABASE_URL: databaseUrl,
  PORTOLAN_DATA_DIR: dataDir,
  PORTOLAN_LISTEN: '127.0.0.1:0',
  PORTOLAN_METRICS_LISTEN: 'off',
  PORTOLAN_LOG_LEVEL: 'error',
  PORTOLAN_SWEEP_SECONDS: '1',
})
const region = await openRegion(config, {
  reach: (reached) => {
    if (reached === failpoint && left-- <= 0) process.kill(process.pid, 'SIGKILL')
  },
})
const api = await startApi(region)
process.on('message', (message) => {
  if (message === 'janitor') void startJanitor(region)
})
process.send?.(api.port)
