// /api/v1/region: the region that handles the request.

import { Type } from 'typebox'
import { regionRow } from '#shared/db/region.ts'
import { declare } from './declare.ts'

export const regionRoutes = Object.freeze([
  declare({
    name: 'region',
    method: 'GET',
    url: '/api/v1/region',
    need: 'admin',
    operationId: 'getRegion',
    tag: 'region',
    summary: 'The region that answers',
    status: 200,
    reply: {
      description: 'Its name, and its epoch: that rises when a backup of its database was restored.',
      body: Type.Object({ name: Type.String(), epoch: Type.Integer({ minimum: 1 }) }),
    },
    handle: async ({ exchange }) => ({ body: await regionRow(exchange.region.reads) }),
  }),
])
