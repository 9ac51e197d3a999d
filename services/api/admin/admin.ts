// /api/v1: administration, for the accounts in PORTOLAN_ADMINS. Asks for the account itself (Basic): tokens are made
// for registry clients and never carry it. Later features add their own files beside this one.

import { regionRow } from '#shared/db/region.ts'
import { RegistryError } from '#shared/errors.ts'
import { parseRepositoryName } from '#shared/oci/reference.ts'
import { deleteRepository } from '#shared/registry/remove.ts'
import { type Exchange, positionHeader, provenanceOf, sendEmpty, sendJson } from '../exchange.ts'

export async function getRegion(exchange: Exchange): Promise<void> {
  sendJson(exchange, await regionRow(exchange.region.reads))
}

export async function removeRepository(exchange: Exchange, { id }: { id: string }): Promise<void> {
  const repository = parseRepositoryName(id)
  if (repository === undefined) throw new RegistryError('NAME_INVALID')
  const provenance = provenanceOf(exchange)
  const position = await deleteRepository(exchange.registry, { repository, provenance })
  sendEmpty(exchange, 202, positionHeader(exchange, position))
}
