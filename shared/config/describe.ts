// Describes the configuration for people: the effective settings with secrets masked, the documentation pages, and
// `.env.example`. All are generated from the declarations, so they always match the code.

import { concerns, type Environment, readConfig, type VariableName, variables } from './load.ts'
import type { Variable, Variables } from './variable.ts'

/**
 * Returns the effective settings, one per line, in the syntax of the environment. Secrets are masked, and unset
 * variables are comments.
 * @throws ConfigError in the same cases as loadConfig
 */
export function printConfig(environment: Environment): string {
  const { texts } = readConfig(environment)
  const lines = Object.entries<Variable<unknown>>(variables).map(([name, { mask }]) => {
    const text = texts.get(name)?.text
    if (text === undefined) return `# ${name} is unset`
    return `${name}=${mask === undefined ? text : mask(text)}`
  })
  return lines.join('\n')
}

/** The settings that most people need, in the order in which they need them. This is the README's table. */
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
  const rows = TWELVE.map((name) => {
    const { default: fallback, meaning }: Variable<unknown> = variables[name]
    return `| \`${name}\` | ${fallback ? `\`${fallback}\`` : ''} | ${firstSentence(meaning)} |`
  })
  return ['| variable | default | meaning |', '|---|---|---|', ...rows].join('\n')
}

function firstSentence(text: string): string {
  return /^.*?[.](?= [A-Z`]|$)/.exec(text)?.[0] ?? text
}

/** Returns all variables by concern. Each is a list item with its default and its full meaning. */
export function configurationLists(): string {
  return Object.entries<Variables>(concerns)
    .map(([concern, declared]) => {
      const items = Object.entries(declared).map(([name, { default: fallback, meaning, mask }]) => {
        const head = `- \`${name}\`${fallback ? ` = \`${fallback}\`` : ''}`
        return `${head}\n${wrapped(mask === undefined ? meaning : `${meaning} Or \`${name}_FILE\`.`)}`
      })
      return `## ${concern}\n\n${items.join('\n')}`
    })
    .join('\n\n')
}

const COLUMNS_MAX = 120
const INDENT = '  '

/** Wraps the text between words, into lines of at most COLUMNS_MAX. */
function wrapped(text: string): string {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const line = lines.at(-1)
    if (line === undefined || line.length + 1 + word.length > COLUMNS_MAX) lines.push(INDENT + word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines.join('\n')
}

/** Returns the text of .env.example. */
export function environmentExample(): string {
  const blocks = Object.entries<Variable<unknown>>(variables).map(
    ([name, { default: fallback, meaning }]) => `# ${meaning}\n# ${name}=${fallback ?? ''}\n`,
  )
  return `# Every variable with its default. Copy to .env and uncomment what you change.\n\n${blocks.join('\n')}`
}
