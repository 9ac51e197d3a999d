// A node with accounts: alice has full access, root is an admin. Also issues the tokens that tests need.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import bcrypt from 'bcrypt'
import { ociClient } from './oci-client.ts'
import type { Cleanup } from './postgres.ts'
import { type TestNode, type TestRegionOptions, testDirectory, testNode } from './region.ts'

export const ALICE = Object.freeze({ name: 'alice', password: 'alice-planted-secret' })
export const ROOT = Object.freeze({ name: 'root', password: 'root-planted-secret' })

export interface AccountsNode extends TestNode {
  /** Returns a token for the scopes. Without an account, the token is anonymous. */
  token(scopes: readonly string[], account?: { name: string; password: string } | null): Promise<string>
  bearer(scopes: readonly string[]): Promise<string>
}

export function basic({ name, password }: { name: string; password: string }): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
}

export async function accountsNode(t: Cleanup, options: TestRegionOptions = {}): Promise<AccountsNode> {
  const htpasswd = join(await testDirectory(t), 'htpasswd')
  const lines = [ALICE, ROOT].map(async ({ name, password }) => `${name}:${await bcrypt.hash(password, 4)}\n`)
  await writeFile(htpasswd, (await Promise.all(lines)).join(''))
  const node = await testNode(t, {
    ...options,
    env: {
      PORTOLAN_AUTH: 'accounts',
      PORTOLAN_HTPASSWD_FILE: htpasswd,
      PORTOLAN_ADMINS: ROOT.name,
      ...options.env,
    },
  })
  const token = async (
    scopes: readonly string[],
    account: { name: string; password: string } | null = ALICE,
  ) => {
    const query = scopes.map((scope) => `scope=${encodeURIComponent(scope)}`).join('&')
    const client = ociClient(node.url, account === null ? undefined : basic(account))
    const answer = await client.get(`/token?service=portolan&${query}`)
    if (answer.status !== 200) throw new Error(`no token: ${answer.status} ${answer.body}`)
    return (JSON.parse(answer.body.toString()) as { token: string }).token
  }
  return { ...node, token, bearer: async (scopes) => `Bearer ${await token(scopes)}` }
}
