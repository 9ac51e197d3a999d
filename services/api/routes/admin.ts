// /api/v1: administration, for the accounts in PORTOLAN_ADMINS. Asks for the account itself (Basic): tokens are made
// for registry clients and never carry it. Later features add their own files beside this one.

import { RegistryError } from '#shared/errors.ts'
import { parseRepositoryName } from '#shared/oci/reference.ts'
import { deleteRepository } from '#shared/registry/remove.ts'
import { type Exchange, provenanceOf, sendEmpty, sendJson } from '../exchange.ts'

export function getRegion(exchange: Exchange): void {
  const { name, epoch } = exchange.region
  sendJson(exchange, { name, epoch })
}

export async function removeRepository(exchange: Exchange, { id }: { id: string }): Promise<void> {
  const repository = parseRepositoryName(id)
  if (repository === undefined) throw new RegistryError('NAME_INVALID')
  await deleteRepository(exchange.region, { repository, provenance: provenanceOf(exchange) })
  sendEmpty(exchange, 202)
}
