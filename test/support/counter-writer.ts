// A writer process for the snapshot stress test. It increments counters and ends its transactions in every possible
// way. After each acknowledged commit, it reports the committed value to its parent.
//
//   node counter-writer.ts URL KEYS NAME

import pg from 'pg'

const [url = '', keys = '1', name = 'w'] = process.argv.slice(2)
const client = new pg.Client({ connectionString: url })
await client.connect()

const increment = 'update counter set value = value + 1 where key = $1 returning value'
const bump = async (key: number) => Number((await client.query(increment, [key])).rows[0].value)
const ignore = () => {}

const ways: ((key: number, round: number) => Promise<number | undefined>)[] = [
  bump,
  async (key) => {
    await client.query('begin')
    await client.query('savepoint a')
    await bump(key)
    await client.query('rollback to savepoint a')
    const value = await bump(key)
    await client.query('commit')
    return value
  },
  async (key) => {
    await client.query('begin')
    await bump(key)
    await client.query('rollback')
    return undefined
  },
  async (key, round) => {
    await client.query('begin')
    const value = await bump(key)
    await client.query(`prepare transaction '${name}-${round}'`)
    await client.query(`commit prepared '${name}-${round}'`)
    return value
  },
  async (key, round) => {
    await client.query('begin')
    await bump(key)
    await client.query(`prepare transaction '${name}-${round}'`)
    await client.query(`rollback prepared '${name}-${round}'`)
    return undefined
  },
]

let stopped = false
process.on('message', () => {
  stopped = true
})
for (let round = 0; !stopped; round++) {
  const key = 1 + Math.floor(Math.random() * Number(keys))
  const way = ways[round % ways.length]
  const value = await way?.(key, round)
  if (value !== undefined) process.send?.([key, value], undefined, {}, ignore)
}
await client.end()
process.disconnect()
