import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { SinkClosedError, writableSink } from '../../../services/api/writable-sink.ts'

test('a write resolves when the stream has taken it, and progress is told', async () => {
  const taken: (() => void)[] = []
  const stream = new Writable({ write: (_chunk, _encoding, done) => void taken.push(done) })
  let progress = 0
  const sink = writableSink(stream, (bytes) => {
    progress += bytes
  })
  let resolved = false
  const writing = sink.write(Buffer.from('abc')).then(() => {
    resolved = true
  })
  await new Promise((turn) => setImmediate(turn))
  assert.equal(resolved, false)
  taken[0]?.()
  await writing
  assert.equal(progress, 3)
})

test('a stream that closes or fails ends the write under way and refuses the next', async () => {
  const stream = new Writable({ write: () => {} })
  const sink = writableSink(stream)
  const writing = sink.write(Buffer.from('abc'))
  stream.destroy(new Error('reset'))
  await assert.rejects(writing, SinkClosedError)
  await assert.rejects(sink.write(Buffer.from('d')), SinkClosedError)
})

test('thousands of writes leave no listeners behind', async () => {
  const stream = new Writable({ write: (_chunk, _encoding, done) => done() })
  const sink = writableSink(stream)
  for (let index = 0; index < 2_000; index++) await sink.write(Buffer.from('x'))
  const during = stream.listenerCount('close')
  sink[Symbol.dispose]()
  assert.ok(during <= 2)
  assert.equal(stream.listenerCount('close'), during - 1)
})
