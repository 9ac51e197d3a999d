// The upload state machine compared with a model of one page: random operations on a few sessions, through two nodes.
// After each operation the reply must be the one that the model expects.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { sha256 } from '../../../support/image.ts'
import { type OciClient, ociClient } from '../../../support/oci-client.ts'
import { testNode } from '../../../support/region.ts'

/** A session in the model: its bytes, or gone. */
interface Session {
  location: string
  bytes: string | undefined
}

type Step =
  | { kind: 'open' }
  | { kind: 'patch'; session: number; text: string; at: 'none' | 'right' | 'wrong' }
  | { kind: 'put'; session: number; text: string; digest: 'right' | 'wrong'; at: 'none' | 'right' | 'wrong' }
  | { kind: 'get'; session: number }
  | { kind: 'cancel'; session: number }

const session = fc.nat(3)
const text = fc.string({ maxLength: 12, unit: fc.constantFrom('a', 'b', 'c') })
const at = fc.constantFrom('none' as const, 'right' as const, 'wrong' as const)
const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('open' as const) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('patch' as const), session, text, at }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('put' as const),
      session,
      text,
      digest: fc.constantFrom('right' as const, 'wrong' as const),
      at,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('get' as const), session }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), session }) },
)

function rangeHeader(of: Step & { text: string; at: string }, size: number): Record<string, string> {
  if (of.at === 'none' || of.text === '') return {}
  const start = of.at === 'right' ? size : size + 7
  return { 'Content-Range': `${start}-${start + of.text.length - 1}` }
}

async function play(client: OciClient, step: Step, model: Session[]): Promise<void> {
  if (step.kind === 'open') {
    const answer = await client.request('POST', '/v2/m/blobs/uploads/')
    assert.equal(answer.status, 202)
    model.push({ location: answer.headers.get('location') ?? '', bytes: '' })
    return
  }
  const known = model[step.session]
  if (known === undefined) return
  const { location, bytes } = known
  if (step.kind === 'get') {
    const answer = await client.request('GET', location)
    assert.equal(answer.status, bytes === undefined ? 404 : 204)
    if (bytes !== undefined) assert.equal(answer.headers.get('range'), `0-${Math.max(0, bytes.length - 1)}`)
    return
  }
  if (step.kind === 'cancel') {
    assert.equal((await client.request('DELETE', location)).status, bytes === undefined ? 404 : 204)
    known.bytes = undefined
    return
  }
  const headers = bytes === undefined ? {} : rangeHeader(step, bytes.length)
  const outOfOrder = 'Content-Range' in headers && step.at === 'wrong'
  if (step.kind === 'patch') {
    const answer = await client.request('PATCH', location, { headers, body: step.text })
    assert.equal(answer.status, bytes === undefined ? 404 : outOfOrder ? 416 : 202)
    if (answer.status === 202) known.bytes = bytes + step.text
    return
  }
  const whole = `${bytes ?? ''}${step.text}`
  const digest = sha256(step.digest === 'right' ? whole : `${whole}!`)
  const answer = await client.request('PUT', `${location}?digest=${digest}`, { headers, body: step.text })
  const expected = bytes === undefined ? 404 : outOfOrder ? 416 : step.digest === 'right' ? 201 : 400
  assert.equal(answer.status, expected)
  if (expected === 201) assert.equal((await client.get(`/v2/m/blobs/${digest}`)).body.toString(), whole)
  if (expected === 201 || expected === 400) known.bytes = undefined
}

test('uploads through two nodes behave as their model says, whatever is done in whatever order', async (t) => {
  const first = await testNode(t)
  const second = await testNode(t, { sharing: first })
  const clients = [ociClient(first.url), ociClient(second.url)]
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(steps, fc.nat(1)), { minLength: 1, maxLength: 25 }),
      async (script) => {
        const model: Session[] = []
        for (const [step, node] of script) await play(clients[node] as OciClient, step, model)
      },
    ),
    { numRuns: 60 },
  )
})
