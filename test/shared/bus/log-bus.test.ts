// tests: shared/bus/hand-over.ts, shared/db/shard-log.ts, shared/registry/log-pages.ts

import { createLogBus } from '#shared/bus/log-bus.ts'
import { ownLogPages } from '#shared/registry/log-pages.ts'
import { busContract } from '../../contract/bus.ts'
import { fillLog } from '../../support/log-writer.ts'
import { testRegion } from '../../support/region.ts'

busContract('the log', async (t) => {
  const { region } = await testRegion(t)
  const another = () => createLogBus({ pages: ownLogPages(region), pollMs: 10 })
  return { bus: another(), another, emit: (options) => fillLog(region, options) }
})
