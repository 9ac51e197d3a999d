// A configuration variable: its parser, its default, one sentence for the operator, and whether it is a secret. Each
// concern declares its variables in a file of its own, once; the type of the values, the tables in the documentation,
// `.env.example`, `--print-config` and the masking of secrets are all derived from that declaration.

export interface Variable<T> {
  /** Text to value. Throws ConfigValueError with the rest of the sentence that begins with the variable's name. */
  readonly parse: (text: string) => T
  /** As written in the environment; absent: being unset has a meaning of its own. */
  readonly default?: string
  /** One or two sentences: what it does and what it trades for what. */
  readonly meaning: string
  /** Present on secrets: what may be shown of the value. A secret may also come from a file (`<NAME>_FILE`). */
  readonly mask?: (text: string) => string
}

export type Variables = Readonly<Record<string, Variable<unknown>>>

/** The parsed values of valid settings. */
export type Values<V extends Variables> = {
  readonly [Name in keyof V]: V[Name] extends { default: string }
    ? ReturnType<V[Name]['parse']>
    : ReturnType<V[Name]['parse']> | undefined
}

/** The parsed values before all of them are known to be valid: an invalid one is undefined. */
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
