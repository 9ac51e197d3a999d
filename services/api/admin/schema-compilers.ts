// Compiles the schemas of the routes: request inputs are validated and replies are serialised. An error message names
// the field and never repeats its value. Properties that the schema does not name are not sent.
//
// A schema is compiled when the first request needs it: compiling all of them would slow down each start too much.
//
// Parameters and queries are text, so numbers in them are parsed from text. A body is JSON and is not converted: "true"
// is not true. `x-error-code` in a schema sets the error code of an invalid value; the default is REQUEST_INVALID.

import { Ajv2020, type ErrorObject, type Options } from 'ajv/dist/2020.js'
import fastJson from 'fast-json-stringify'
import type { FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'
import { type ErrorCode, RegistryError } from '#shared/errors.ts'

export const ERROR_CODE = 'x-error-code'
/** Maximum number of characters of a field name in a message, because names come from the client. */
const NAME_LENGTH_MAX = 50

/** Maps fastify's names for the parts of a request to common ones. */
const PARTS: Readonly<Record<string, string>> = Object.freeze({ querystring: 'query', params: 'path' })

export function createValidatorCompiler(): FastifySchemaCompiler<object> {
  // `verbose` includes the schema in the error, which provides its code.
  const options: Options = { useDefaults: true, verbose: true }
  const ofText = new Ajv2020({ ...options, coerceTypes: true }).addVocabulary([ERROR_CODE])
  const ofJson = new Ajv2020(options).addVocabulary([ERROR_CODE])
  return ({ schema, httpPart = 'body' }) => {
    const compiled = lazy(() => (httpPart === 'body' ? ofJson : ofText).compile(schema))
    return (value: unknown) => {
      const validate = compiled()
      if (validate(value)) return { value }
      return { error: invalid(validate.errors?.[0] ?? {}, PARTS[httpPart] ?? httpPart) }
    }
  }
}

export function createSerializerCompiler(): FastifySerializerCompiler<object> {
  return ({ schema }) => {
    const compiled = lazy(() => fastJson(schema))
    return (value) => compiled()(value)
  }
}

function lazy<T>(make: () => T): () => T {
  let made: T | undefined
  return () => {
    made ??= make()
    return made
  }
}

function invalid(error: Partial<ErrorObject>, part: string): RegistryError {
  const { [ERROR_CODE]: code = 'REQUEST_INVALID' } = Object(error.parentSchema) as {
    [ERROR_CODE]?: ErrorCode
  }
  // For other codes, the message in the error table explains the error.
  if (code !== 'REQUEST_INVALID') return new RegistryError(code)
  return new RegistryError(code, { message: sentence(error, part) })
}

function sentence(error: Partial<ErrorObject>, part: string): string {
  const { keyword, instancePath = '', params = {}, message = 'is invalid' } = error
  const inside = (name: string) => shortened(`${instancePath}/${name}`)
  const field = instancePath === '' ? `the ${part}` : shortened(instancePath)
  switch (keyword) {
    case 'required':
      return `${inside(String(params.missingProperty))} is missing`
    case 'additionalProperties':
      return `${inside(String(params.additionalProperty))} is not a known field`
    case 'enum':
      return `${field} must be one of ${(params.allowedValues as unknown[]).join(', ')}`
    case 'type':
      return `${field} must be ${ARTICLES[String(params.type)] ?? params.type}`
    default:
      return `${field} ${message}`
  }
}

const ARTICLES: Readonly<Record<string, string>> = Object.freeze({
  array: 'an array',
  boolean: 'true or false',
  integer: 'an integer',
  object: 'an object',
  string: 'a string',
})

/** Converts a JSON pointer to a readable field name: `headers.name`, `types.0`. */
function shortened(pointer: string): string {
  return pointer.slice(1).replaceAll('/', '.').slice(0, NAME_LENGTH_MAX)
}
