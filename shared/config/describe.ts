// The configuration for people: the effective settings with secrets masked, the tables of the documentation, and
// `.env.example`. All are made from the declarations, so none of them can be wrong.

import { concerns, type Environment, loadConfig, readTexts, type VariableName, variables } from './load.ts'
import type { Variable, Variables } from './variable.ts'

/**
 * The effective settings, a line each, as the environment would have them: secrets masked, unset ones as comments.
 * @throws ConfigError as loadConfig does
 */
export function printConfig(environment: Environment): string {
  loadConfig(environment)
  const { texts } = readTexts(environment)
  const lines = Object.entries<Variable<unknown>>(variables).map(([name, { mask }]) => {
    const text = texts.get(name)?.text
    if (text === undefined) return `# ${name} is unset`
    return `${name}=${mask === undefined ? text : mask(text)}`
  })
  return lines.join('\n')
}

/** The settings that most people need, in the order in which they need them: the README's table. */
const TWELVE: readonly VariableName[] = Object.freeze([
  'PORTOLAN_LISTEN',
  'PORTOLAN_PUBLIC_URL',
  'PORTOLAN_TRUSTED_PROXIES',
  'PORTOLAN_AUTH',
  'PORTOLAN_HTPASSWD_FILE',
  'PORTOLAN_ADMINS',
  'PORTOLAN_REGION',
  'PORTOLAN_DATA_DIR',
  'PORTOLAN_DATABASE_URL',
  'PORTOLAN_BLOBS',
  'PORTOLAN_KAFKA_BROKERS',
  'PORTOLAN_EMBEDDED',
])

export function shortTable(): string {
  return table(Object.fromEntries(TWELVE.map((name) => [name, variables[name]])))
}

/** Every variable, a table for each concern. */
export function configurationTables(): string {
  return Object.entries<Variables>(concerns)
    .map(([concern, declared]) => `## ${concern}\n\n${table(declared)}`)
    .join('\n\n')
}

function table(declared: Variables): string {
  const rows = Object.entries(declared).map(([name, { default: fallback, meaning, mask }]) => {
    const file = mask === undefined ? '' : ` Or \`${name}_FILE\`.`
    return `| \`${name}\` | ${fallback ? `\`${fallback}\`` : ''} | ${meaning}${file} |`
  })
  return ['| variable | default | meaning |', '|---|---|---|', ...rows].join('\n')
}

/** The text of .env.example. */
export function environmentExample(): string {
  const blocks = Object.entries<Variable<unknown>>(variables).map(
    ([name, { default: fallback, meaning }]) => `# ${meaning}\n# ${name}=${fallback ?? ''}\n`,
  )
  return `# Every variable with its default. Copy to .env and uncomment what you change.\n\n${blocks.join('\n')}`
}
