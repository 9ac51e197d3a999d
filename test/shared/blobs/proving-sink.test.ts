import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import type { ByteSink } from '#shared/blobs/blob-store.ts'
import { provingSink, WrongContentError } from '#shared/blobs/proving-sink.ts'
import { collector } from '../../contract/blob-store.ts'
import { sha256, sha512 } from '../../support/image.ts'

const CHUNK = 10_000

/** Sends the bytes in chunks, one by one or several at once. */
async function send(sink: ByteSink, bytes: Buffer, several: boolean): Promise<void> {
  for (let from = 0; from < bytes.length; from += CHUNK * 2) {
    const chunks = [bytes.subarray(from, from + CHUNK), bytes.subarray(from + CHUNK, from + 2 * CHUNK)]
    if (several) await sink.writeAll?.(chunks)
    else for (const chunk of chunks) if (chunk.length > 0) await sink.write(chunk)
  }
}

for (const several of [false, true]) {
  for (const digestOf of [sha256, sha512]) {
    const how = `${digestOf.name}, ${several ? 'several chunks' : 'one chunk'} at a time`

    test(`the right bytes pass unchanged (${how})`, async () => {
      for (const size of [1, CHUNK, CHUNK + 1, 20 * CHUNK]) {
        const bytes = randomBytes(size)
        const { sink, received } = receiver()
        await send(provingSink(sink, { digest: digestOf(bytes), size }), bytes, several)
        assert.ok(received().equals(bytes), String(size))
      }
    })

    test(`of wrong bytes the last chunk never passes, wherever the error is (${how})`, async () => {
      for (const wrongAt of [0, 5 * CHUNK, 10 * CHUNK - 1]) {
        const good = randomBytes(10 * CHUNK)
        const wrong = Buffer.from(good)
        wrong.writeUInt8((good[wrongAt] ?? 0) ^ 1, wrongAt)
        const { sink, received } = receiver()
        await assert.rejects(
          send(provingSink(sink, { digest: digestOf(good), size: good.length }), wrong, several),
          WrongContentError,
        )
        assert.ok(received().length < good.length, String(wrongAt))
      }
    })
  }
}

test('what the receiver rejects with is what the sender sees', async () => {
  const bytes = randomBytes(100)
  const refusing: ByteSink = { write: () => Promise.reject(new Error('gone')) }
  const sink = provingSink(refusing, { digest: sha256(bytes), size: bytes.length })
  await assert.rejects(sink.write(bytes.subarray(0, 50)), /gone/)
})

function receiver() {
  const collecting = collector()
  const sink: ByteSink = {
    write: collecting.write,
    writeAll: async (chunks) => {
      for (const chunk of chunks) await collecting.write(chunk)
    },
  }
  return { sink, received: () => collecting.bytes() }
}
