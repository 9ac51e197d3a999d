// Configuration for people: the effective values with secrets masked, the README's table, the .env example. All are made
// from the one table in config-variables.ts.

import type { BlobsConfig, Config } from './config.ts'
import { type Variable, variables } from './config-variables.ts'

/** The effective configuration as text, every secret masked. */
export function printConfig(config: Config): string {
  const { kafka } = config
  const { url } = config.database
  const masked = (blobs: BlobsConfig) =>
    blobs.kind === 'azure' && blobs.account ? { ...blobs, account: { ...blobs.account, key: '***' } } : blobs
  return JSON.stringify(
    {
      ...config,
      database: { ...config.database, url: url && maskPassword(url) },
      blobs: masked(config.blobs),
      stores: config.stores.map(masked),
      kafka: kafka && { ...kafka, ...(kafka.sasl && { sasl: { ...kafka.sasl, password: '***' } }) },
      peerKeys: config.peerKeys?.map(() => '***'),
      secretsKeys: config.secretsKeys?.map(() => '***'),
    },
    undefined,
    2,
  )
}

function maskPassword(text: string): string {
  const url = new URL(text)
  if (url.password !== '') url.password = '***'
  for (const name of ['password', 'sslpassword'])
    if (url.searchParams.has(name)) url.searchParams.set(name, '***')
  return url.href
}

/** The table for the README. */
export function configurationTable(): string {
  const rows = Object.entries<Variable<unknown>>(variables).map(
    ([name, { default: fallback, meaning, secret }]) =>
      `| \`${name}\` | ${fallback ? `\`${fallback}\`` : ''} | ${meaning}${secret ? ` Or \`${name}_FILE\`.` : ''} |`,
  )
  return ['| variable | default | meaning |', '|---|---|---|', ...rows].join('\n')
}

/** The text of .env.example. */
export function environmentExample(): string {
  const blocks = Object.entries<Variable<unknown>>(variables).map(
    ([name, { default: fallback, meaning }]) => `# ${meaning}\n# ${name}=${fallback ?? ''}\n`,
  )
  return `# Every variable with its default. Copy to .env and uncomment what you change.\n\n${blocks.join('\n')}`
}
