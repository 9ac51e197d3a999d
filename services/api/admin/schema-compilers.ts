// The schemas of a route at work: what a request brings is validated, what is answered is serialised. An error is a
// sentence that names the field and never repeats its value. What a schema does not name is not sent.
//
// Schemas are compiled when the first request needs them: compiling all at each start would cost more than the start.
//
// Parameters and queries are text, so numbers in them are read from text. A body is JSON and is taken as it is: "true" is
// not true. A schema says by `x-error-code` which code an invalid value gets, if not REQUEST_INVALID.

import { Ajv2020, type ErrorObject, type Options } from 'ajv/dist/2020.js'
import fastJson from 'fast-json-stringify'
import type { FastifySchemaCompiler, FastifySerializerCompiler } from 'fastify'
import { type ErrorCode, RegistryError } from '#shared/errors.ts'

export const ERROR_CODE = 'x-error-code'
/** Characters of a field's name in a message: names are the client's. */
const NAME_LENGTH_MAX = 50

/** What fastify calls the parts of a request -> what people do. */
const PARTS: Readonly<Record<string, string>> = Object.freeze({ querystring: 'query', params: 'path' })

export function createValidatorCompiler(): FastifySchemaCompiler<object> {
  // `verbose` puts the schema beside the error, for its code.
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
  // For the others, the table's own sentence says what is wrong.
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

/** A JSON pointer as people write fields: `headers.name`, `types.0`. */
function shortened(pointer: string): string {
  return pointer.slice(1).replaceAll('/', '.').slice(0, NAME_LENGTH_MAX)
}
