// Lists every route of /api/v1. To add one, declare it in the file of its noun and list it here.

import type { Declaration } from './declare.ts'
import { deliveryRoutes } from './deliveries.ts'
import { documentRoute } from './document.ts'
import { eventRoutes } from './events.ts'
import { regionRoutes } from './regions.ts'
import { repositoryRoutes } from './repositories.ts'
import { schemaRoutes } from './schemas.ts'
import { webhookRoutes } from './webhooks.ts'

export function adminRoutes(document: () => object): readonly Declaration[] {
  return [
    ...regionRoutes,
    ...repositoryRoutes,
    ...eventRoutes,
    ...schemaRoutes,
    ...webhookRoutes,
    ...deliveryRoutes,
    documentRoute(document),
  ]
}
