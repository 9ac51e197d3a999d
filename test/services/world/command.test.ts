import assert from 'node:assert/strict'
import { test } from 'node:test'
import { configuresRegion, runWorld } from '../../../services/world/command.ts'

test('a variable that configures a region makes npm start one region; those of the world and of others do not', () => {
  const world = { PATH: '/bin', PORTOLAN_DATA_DIR: '/d', PORTOLAN_LOG_LEVEL: 'warn', PORTOLAN_CI_CACHE: '/c' }
  assert.equal(configuresRegion(world), undefined)
  assert.equal(configuresRegion({ ...world, PORTOLAN_LISTEN: ':5000' }), 'PORTOLAN_LISTEN')
  assert.equal(configuresRegion({ ...world, PORTOLAN_S3_BUCKET: '' }), 'PORTOLAN_S3_BUCKET')
})

test('options that make no world are refused before anything is made', async () => {
  const stop = Promise.resolve()
  const refused = (options: Parameters<typeof runWorld>[0], sentence: RegExp) =>
    assert.rejects(runWorld(options, { PORTOLAN_DATA_DIR: '/nonexistent/x' }, stop), sentence)
  await refused({ regions: 'EU' }, /--regions is not a lower-case word/)
  await refused({ regions: 'eu,eu' }, /each once/)
  await refused({ regions: 'a,b,c,d,e,f,g,h,i,j' }, /one to 9/)
  await refused({ port: '0' }, /--port is not a whole number/)
  await refused({ kafka: 'eu' }, /--kafka holds "eu"/)
  await refused({ kafka: 'ap=k:9092' }, /--kafka names "ap"/)
})
