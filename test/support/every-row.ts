// Everything a database holds, as text: what a dump of it would show.

import pg from 'pg'

/** Each row of each table; bytes as text too, so that a planted word is found in them. */
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
