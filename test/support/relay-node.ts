// A relay that kills itself at a failpoint after it has passed the failpoint AFTER times. It takes its Kafka settings
// from the environment.
//
//   node relay-node.ts DATABASE_URL DATA_DIR AFTER [FAILPOINT]

import { loadConfig } from '#shared/config/load.ts'
import { openRegion } from '#shared/region.ts'
import { startRelay } from '../../services/relay/service.ts'

const [databaseUrl = '', dataDir = '', after = '0', failpoint = 'outbox-moved'] = process.argv.slice(2)
let left = Number(after)
const kafka = Object.entries(process.env).filter(([name]) => name.startsWith('PORTOLAN_KAFKA_'))
const config = loadConfig({
  ...Object.fromEntries(kafka),
  PORTOLAN_DATABASE_URL: databaseUrl,
  PORTOLAN_DATA_DIR: dataDir,
  PORTOLAN_METRICS_LISTEN: 'off',
  PORTOLAN_LOG_LEVEL: 'error',
})
const region = await openRegion(config, {
  reach: (reached) => {
    if (reached === failpoint && left-- <= 0) process.kill(process.pid, 'SIGKILL')
  },
})
await startRelay(region)
// The relay's timers do not keep the process alive. This timer does, until the kill.
setInterval(() => {}, 60_000)
