// Fetches content that this region lacks from regions that have it: blobs by digest, of one repository.
//
// All peers are asked at the same time. The first one that has the blob sends it, and the other requests are cancelled.
// A peer that failed is not asked for some seconds, and the number of simultaneous requests per peer is bounded. So
// neither a lost region nor a flood of misses holds up other requests. The bytes are unverified: the caller must check
// the digest.

import type { Digest } from '#shared/oci/digest.ts'
import type { RepositoryName } from '#shared/oci/reference.ts'
import { askPeer, type PeerAddress, PeerError } from './peer-request.ts'

const ANSWER_MS_MAX = 2_000
const REST_MS = 5_000
const QUESTIONS_PER_PEER_MAX = 64

export interface RemoteBlob {
  readonly peer: string
  /** Bytes, according to the peer. */
  readonly size: number
  /** Must be read to its end or cancelled. */
  readonly body: ReadableStream<Uint8Array>
}

export type RemoteOutcome =
  | { readonly kind: 'found'; readonly blob: RemoteBlob }
  /** Every peer was asked, and none has it. */
  | { readonly kind: 'nowhere' }
  /** A peer that may have it is unreachable. */
  | { readonly kind: 'unknown' }

export interface PeerContent {
  blob(asked: {
    repository: RepositoryName
    digest: Digest
    /** Cancels the transfer. */
    signal: AbortSignal
  }): Promise<RemoteOutcome>
}

interface Peer {
  readonly address: PeerAddress
  questions: number
  restUntilMs: number
}

export function createPeerContent(addresses: readonly PeerAddress[]): PeerContent {
  const peers: Peer[] = addresses.map((address) => ({ address, questions: 0, restUntilMs: 0 }))

  async function ask(peer: Peer, target: string, signal: AbortSignal): Promise<RemoteOutcome> {
    if (performance.now() < peer.restUntilMs || peer.questions >= QUESTIONS_PER_PEER_MAX)
      return { kind: 'unknown' }
    peer.questions++
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(), ANSWER_MS_MAX)
    try {
      const response = await askPeer(peer.address, target, {
        signal: AbortSignal.any([signal, late.signal]),
      })
      const blob = blobOf(response, peer.address.to)
      if (blob !== undefined) return { kind: 'found', blob }
      await response.body?.cancel()
      return { kind: response.status === 404 ? 'nowhere' : 'unknown' }
    } catch (thrown) {
      if (!(thrown instanceof PeerError)) throw thrown
      if (!signal.aborted) peer.restUntilMs = performance.now() + REST_MS
      return { kind: 'unknown' }
    } finally {
      clearTimeout(timer)
      peer.questions--
    }
  }

  return {
    blob({ repository, digest, signal }) {
      const target = `/peer/v1/blobs/${digest}?repository=${encodeURIComponent(repository)}`
      const { promise: found, resolve } = Promise.withResolvers<RemoteOutcome>()
      let taken = false
      const answers = peers.map(async (peer) => {
        const answer = await ask(peer, target, signal)
        if (answer.kind !== 'found') return answer
        if (taken) await answer.blob.body.cancel()
        else resolve(answer)
        taken = true
        return answer
      })
      const all = Promise.all(answers).then((outcomes): RemoteOutcome => {
        const unknown = outcomes.some(({ kind }) => kind === 'unknown')
        return { kind: unknown ? 'unknown' : 'nowhere' }
      })
      return Promise.race([found, all])
    },
  }
}

function blobOf(response: Response, peer: string): RemoteBlob | undefined {
  const size = Number(response.headers.get('content-length') ?? Number.NaN)
  if (response.status !== 200 || response.body === null || !Number.isSafeInteger(size)) return undefined
  return { peer, size, body: response.body }
}
