// Returns all rows of a database as text, that is, the content of a dump.

import pg from 'pg'

/** Returns each row of each table. Binary columns are decoded as text, so that planted strings are found in them. */
export async function everyRow(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows: tables } = await client.query<{ name: string }>(
      `select quote_ident(schemaname) || '.' || quote_ident(tablename) as name from pg_tables
       where schemaname not in ('pg_catalog', 'information_schema')`,
    )
    const texts: string[] = []
    for (const { name } of tables) {
      const { rows } = await client.query<Record<string, unknown>>(`select * from ${name}`)
      for (const value of rows.flatMap((row) => Object.values(row)))
        texts.push(Buffer.isBuffer(value) ? value.toString('latin1') : JSON.stringify(value))
    }
    return texts.join('\n')
  } finally {
    await client.end()
  }
}
