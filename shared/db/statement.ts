// A statement: plain SQL with a name and named parameters, prepared once per connection.
//
// Named prepared statements are what makes Postgres quick here (unnamed ones are parsed and planned each time), and
// named parameters are what keeps a statement of twenty of them readable. `:name` stands for a parameter; a cast `::`
// is left alone. The text is constant: nothing that a client sends can become SQL.

export interface Statement<Row> {
  readonly name: string
  readonly text: string
  /** Parameter names in the order of $1, $2, ... */
  readonly parameters: readonly string[]
  /** Carries the row's type; never set. */
  readonly row?: Row
}

export type Parameters = Readonly<Record<string, unknown>>

/** Compiles `:name` to `$n`. The name must be unique in the program: Postgres keeps one text per name. */
export function statement<Row>(name: string, source: string): Statement<Row> {
  const parameters: string[] = []
  const text = source.replace(/(?<![:\w]):([a-z][a-z_]*)/g, (_match, parameter: string) => {
    const known = parameters.indexOf(parameter)
    return `$${known === -1 ? parameters.push(parameter) : known + 1}`
  })
  return Object.freeze({ name, text, parameters: Object.freeze(parameters) })
}

/** Parameter values in the statement's order. Throws on a missing one: undefined would silently become null. */
export function bind(statement: Statement<unknown>, values: Parameters): unknown[] {
  return statement.parameters.map((parameter) => {
    const value = values[parameter]
    if (value === undefined) throw new TypeError(`${statement.name}: no value for :${parameter}`)
    return value
  })
}

/** What runs statements: the pool or one transaction. */
export interface Queryable {
  rows<Row>(statement: Statement<Row>, values?: Parameters): Promise<Row[]>
}

/** The one row of a statement that returns at most one. */
export async function maybe<Row>(
  db: Queryable,
  statement: Statement<Row>,
  values: Parameters = {},
): Promise<Row | undefined> {
  const rows = await db.rows(statement, values)
  if (rows.length > 1)
    throw new Error(`${statement.name}: ${rows.length} rows where at most one was promised`)
  return rows[0]
}

/** The one row of a statement that always returns one. */
export async function one<Row>(
  db: Queryable,
  statement: Statement<Row>,
  values: Parameters = {},
): Promise<Row> {
  const row = await maybe(db, statement, values)
  if (row === undefined) throw new Error(`${statement.name}: no row where one was promised`)
  return row
}
