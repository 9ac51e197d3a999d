// The message a registry prints when it has started: its address, its data directory, and how to push the first image.

import { resolve } from 'node:path'
import type { Config } from '#shared/config/load.ts'

/** @param port the listening port; undefined when this process does not run the API */
export function greeting(config: Config, port: number | undefined): string {
  const lines = [`Portolan, region "${config.region}"`]
  if (port !== undefined) {
    const host = ['::', '0.0.0.0'].includes(config.listen.host) ? 'localhost' : config.listen.host
    const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
    lines.push(
      `  registry   http://${address}${config.auth.mode === 'none' ? '' : '  (accounts: docker login first)'}`,
      `  try        docker tag hello-world ${address}/hello && docker push ${address}/hello`,
    )
  }
  const where = resolve(config.dataDir, config.region)
  lines.push(
    `  data       ${where}${config.database.url === undefined ? ' (with an embedded Postgres)' : ''}`,
  )
  if (config.metricsListen !== undefined) {
    lines.push(`  metrics    http://${config.metricsListen.host}:${config.metricsListen.port}/metrics`)
  }
  return `\n${lines.join('\n')}\n  stop       Ctrl-C\n\n`
}
