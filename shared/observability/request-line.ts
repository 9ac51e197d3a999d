// The log line of a request, written by hand. There is one for every request, and pino needs six times as long for it: a
// quarter of what a small pull cost. Fields and their order are those of pino's lines. They come from parsed parts only,
// never from an Authorization header, a cookie or a query string, so there is nothing to censor. A client's text cannot
// leave its field: whatever is not plain printable ASCII goes through JSON.stringify.

export interface RequestFacts {
  readonly id: string
  readonly method: string
  readonly route: string
  readonly repository: string | undefined
  /** Tag or digest as parsed; undefined when the path had none. */
  readonly reference: string | undefined
  readonly status: number
  readonly bytes: number
  readonly durationMs: number
  readonly actor: string
  readonly address: string
  readonly userAgent: string | undefined
  readonly code: string | undefined
}

const USER_AGENT_LENGTH_MAX = 256
/** What JSON needs no escape for: printable ASCII without the quotation mark and the backslash. */
const NEEDS_ESCAPE = /[^ !#-[\]-~]/

/** Makes lines that begin as pino's of the same logger do. `bindings` are its fields: `,"region":"eu"`, or nothing. */
export function createRequestLines(bindings: string): (facts: RequestFacts) => string {
  const time = createClock()
  return (facts) => {
    const { repository, reference, userAgent, code } = facts
    let line = `{"level":"info","time":"${time(Date.now())}"${bindings},"id":${quoted(facts.id)}`
    line += `,"method":${quoted(facts.method)},"route":${quoted(facts.route)}`
    if (repository !== undefined) line += `,"repository":${quoted(repository)}`
    if (reference !== undefined) line += `,"reference":${quoted(reference)}`
    line += `,"status":${facts.status},"bytes":${facts.bytes},"ms":${Math.round(facts.durationMs * 1000) / 1000}`
    line += `,"actor":${quoted(facts.actor)},"address":${quoted(facts.address)}`
    if (userAgent !== undefined) line += `,"userAgent":${quoted(userAgent.slice(0, USER_AGENT_LENGTH_MAX))}`
    if (code !== undefined) line += `,"code":${quoted(code)}`
    return `${line}}\n`
  }
}

function quoted(text: string): string {
  return NEEDS_ESCAPE.test(text) ? JSON.stringify(text) : `"${text}"`
}

/** RFC 3339 in UTC with milliseconds. Lines of one millisecond share their text. */
function createClock(): (ms: number) => string {
  let knownMs = Number.NaN
  let text = ''
  return (ms) => {
    if (ms !== knownMs) {
      knownMs = ms
      text = new Date(ms).toISOString()
    }
    return text
  }
}
