// A configuration variable: its parser, its default, its meaning for the operator, and whether it is a secret. Each
// concern declares its variables once, in its own file. Everything else is derived from that declaration: the type of
// the values, the tables in the documentation, `.env.example`, `--print-config` and the masking of secrets.

export interface Variable<T> {
  /**
   * Parses the text. Throws ConfigValueError, whose message completes a sentence that begins with the variable's name.
   */
  readonly parse: (text: string) => T
  /** As written in the environment. Absent if being unset has its own meaning. */
  readonly default?: string
  /** One or two sentences: what it does and what the trade-off is. */
  readonly meaning: string
  /** Only on secrets: returns what may be shown of the value. A secret may also come from a file (`<NAME>_FILE`). */
  readonly mask?: (text: string) => string
}

export type Variables = Readonly<Record<string, Variable<unknown>>>

/** The parsed values of valid settings. */
export type Values<V extends Variables> = {
  readonly [Name in keyof V]: V[Name] extends { default: string }
    ? ReturnType<V[Name]['parse']>
    : ReturnType<V[Name]['parse']> | undefined
}

/** The parsed values before all of them are known to be valid. An invalid one is undefined. */
export type Parsed<V extends Variables> = { readonly [Name in keyof Values<V>]: Values<V>[Name] | undefined }

export const variable = <T>(
  parse: (text: string) => T,
  fallback: string,
  meaning: string,
): Variable<T> & { default: string } => Object.freeze({ parse, default: fallback, meaning })

export const optional = <T>(parse: (text: string) => T, meaning: string): Variable<T> =>
  Object.freeze({ parse, meaning })

export const secret = <T>(
  parse: (text: string) => T,
  meaning: string,
  mask: (text: string) => string = () => '***',
): Variable<T> & { mask: (text: string) => string } => Object.freeze({ parse, meaning, mask })

export const KIB = 2 ** 10
export const MIB = 2 ** 20
export const GIB = 2 ** 30
export const DAY_SECONDS = 86_400
