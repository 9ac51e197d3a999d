import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StoreError } from '#shared/blobs/blob-store.ts'
import { createVolume } from '#shared/blobs/files/volume.ts'

const isFull = (error: unknown) => error instanceof StoreError && error.kind === 'full'

/** A disk of 100 bytes of which 20 must stay free. */
function disk(options: { floorBytes?: number } = {}) {
  const state = { free: 100, asked: 0, nowMs: 0 }
  const volume = createVolume({
    directory: '/disk',
    floorBytes: options.floorBytes ?? 20,
    ask: async () => {
      state.asked++
      return state.free
    },
    nowMs: () => state.nowMs,
  })
  return { state, volume }
}

test('what is announced is set aside before it is written: together nobody is promised more than there is', async () => {
  const { volume } = disk()
  const admitted = await Promise.allSettled(Array.from({ length: 50 }, () => volume.admit(15)))
  assert.equal(admitted.filter(({ status }) => status === 'fulfilled').length, 5)
  await assert.rejects(volume.admit(6), isFull)
  await volume.admit(5)
})

test('what is not written is given back, what is written counts until the file system reports it', async () => {
  const { state, volume } = disk()
  const first = await volume.admit(60)
  await assert.rejects(volume.admit(30), isFull)
  await first.expect(10)
  first.written(10)
  first[Symbol.dispose]()
  first[Symbol.dispose]()
  assert.equal(await volume.freeBytes(), 90)
  await assert.rejects(volume.admit(71), isFull)
  state.free = 90
  state.nowMs = 1_000
  assert.equal(await volume.freeBytes(), 90, 'not counted twice')
  await volume.admit(70)
})

test('a body of unknown length is admitted chunk by chunk, up to the floor and no byte further', async () => {
  const { volume } = disk()
  const upload = await volume.admit(0)
  for (let chunk = 0; chunk < 8; chunk++) {
    await upload.expect(10)
    upload.written(10)
  }
  await assert.rejects(upload.expect(1), isFull)
  upload[Symbol.dispose]()
  await assert.rejects(volume.admit(1), isFull, 'the bytes are still there')
})

test('an upload that was admitted ends when others have taken the space', async () => {
  const { state, volume } = disk()
  const upload = await volume.admit(50)
  await upload.expect(10)
  upload.written(10)
  state.free = 15
  state.nowMs = 1_000
  await assert.rejects(upload.expect(10), isFull)
  await assert.rejects(volume.requireRoom(), isFull)
  state.free = 95
  state.nowMs = 2_000
  await upload.expect(10)
  await volume.requireRoom()
})

test('the file system is asked once a second, however many ask', async () => {
  const { state, volume } = disk()
  await Promise.all(Array.from({ length: 100 }, () => volume.requireRoom()))
  assert.equal(state.asked, 1)
  state.nowMs = 1_000
  await Promise.all(Array.from({ length: 100 }, () => volume.requireRoom()))
  assert.equal(state.asked, 2)
})

test('a file system that cannot be asked fails those who asked, and is asked again by the next', async () => {
  let broken = true
  const volume = createVolume({
    directory: '/disk',
    floorBytes: 1,
    ask: async () => {
      if (broken) throw new Error('EIO')
      return 100
    },
  })
  await assert.rejects(volume.admit(1), /EIO/)
  broken = false
  await volume.admit(1)
})

test('a floor of 0 refuses nothing', async () => {
  const { state, volume } = disk({ floorBytes: 0 })
  state.free = 0
  const upload = await volume.admit(1_000)
  await upload.expect(2_000)
  await volume.requireRoom()
})
