// A statement: plain SQL with a name and named parameters, prepared once per connection.
//
// Named prepared statements make Postgres fast here, because unnamed ones are parsed and planned each time. Named
// parameters keep a statement with twenty parameters readable. `:name` is a parameter. A cast `::` is left alone. The
// text is constant: nothing that a client sends can become SQL.

export interface Statement<Row> {
  readonly name: string
  readonly text: string
  /** Parameter names in the order of $1, $2, ... */
  readonly parameters: readonly string[]
  /** Carries the row's type. Never set. */
  readonly row?: Row
}

export type Parameters = Readonly<Record<string, unknown>>

/** Compiles `:name` to `$n`. The name must be unique in the program, because Postgres keeps one text per name. */
export function statement<Row>(name: string, source: string): Statement<Row> {
  const parameters: string[] = []
  const text = source.replace(/(?<![:\w]):([a-z][a-z_]*)/g, (_match, parameter: string) => {
    const known = parameters.indexOf(parameter)
    return `$${known === -1 ? parameters.push(parameter) : known + 1}`
  })
  return Object.freeze({ name, text, parameters: Object.freeze(parameters) })
}

/**
 * Returns parameter values in the statement's order. Throws on a missing one, because undefined would silently become
 * null.
 */
export function bind(statement: Statement<unknown>, values: Parameters): unknown[] {
  return statement.parameters.map((parameter) => {
    const value = values[parameter]
    if (value === undefined) throw new TypeError(`${statement.name}: no value for :${parameter}`)
    return value
  })
}

/** Runs statements: the pool or one transaction. */
export interface Queryable {
  rows<Row>(statement: Statement<Row>, values?: Parameters): Promise<Row[]>
}

/** Returns the row of a statement that returns at most one. */
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

/** Returns the row of a statement that always returns one. */
export async function one<Row>(
  db: Queryable,
  statement: Statement<Row>,
  values: Parameters = {},
): Promise<Row> {
  const row = await maybe(db, statement, values)
  if (row === undefined) throw new Error(`${statement.name}: no row where one was promised`)
  return row
}
