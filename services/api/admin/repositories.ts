// /api/v1/repositories: operations on a whole repository. Its content is served under /v2.

import { Type } from 'typebox'
import { RegistryError } from '#shared/errors.ts'
import { parseRepositoryName } from '#shared/oci/reference.ts'
import { deleteRepository } from '#shared/registry/remove.ts'
import { positionHeader, provenanceOf } from '../exchange.ts'
import { declare } from './declare.ts'
import { POSITION_HEADER, RepositoryName } from './shapes.ts'

export const repositoryRoutes = Object.freeze([
  declare({
    name: 'repository',
    method: 'DELETE',
    url: '/api/v1/repositories/*name',
    need: 'admin',
    operationId: 'deleteRepository',
    tag: 'repositories',
    summary: 'Delete a repository with all it holds',
    params: Type.Object({ name: RepositoryName }),
    status: 202,
    reply: { description: 'It is gone; its bytes are collected later.', headers: POSITION_HEADER },
    errors: ['NAME_INVALID', 'NAME_UNKNOWN', 'UNSUPPORTED'],
    async handle({ exchange, params }) {
      const repository = parseRepositoryName(params.name)
      if (repository === undefined) throw new RegistryError('NAME_INVALID')
      const provenance = provenanceOf(exchange)
      const position = await deleteRepository(exchange.registry, { repository, provenance })
      return { headers: positionHeader(exchange, position) }
    },
  }),
])
