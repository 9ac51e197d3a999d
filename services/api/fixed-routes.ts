// Routes with a fixed path whose replies are controlled byte by byte: health, tokens, other regions. The routes of /v2
// are in v2/dispatch.ts, those of /api/v1 in admin/routes.ts.

import { live, ready } from './health.ts'
import { peerBlob, peerManifest } from './peer/content.ts'
import { peerLog } from './peer/log.ts'
import type { Declared, FixedPath, Methods } from './route.ts'
import { token } from './token.ts'

export interface FixedRoute {
  /** Labels metrics and log lines. */
  readonly name: string
  readonly url: string
  readonly methods: Methods<Declared<FixedPath>>
}

const LIVE: Declared<FixedPath> = { need: 'nothing', handle: live }
const READY: Declared<FixedPath> = { need: 'nothing', handle: ready }
const TOKEN: Declared<FixedPath> = { need: 'login', handle: token }

export const fixedRoutes: readonly FixedRoute[] = Object.freeze([
  { name: 'live', url: '/livez', methods: { GET: LIVE, HEAD: LIVE } },
  { name: 'ready', url: '/readyz', methods: { GET: READY, HEAD: READY } },
  { name: 'token', url: '/token', methods: { GET: TOKEN, POST: TOKEN } },
  { name: 'peer-blob', url: '/peer/v1/blobs/:id', methods: { GET: { need: 'peer', handle: peerBlob } } },
  {
    name: 'peer-manifest',
    url: '/peer/v1/manifests/:id',
    methods: { GET: { need: 'peer', handle: peerManifest } },
  },
  { name: 'peer-log', url: '/peer/v1/log', methods: { GET: { need: 'peer', handle: peerLog } } },
])
