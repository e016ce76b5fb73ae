import type { Peer } from '../api.js'

export interface Route {
  /** 'host': directly in one network. 'nat': directly, through NATs. 'relay': over a TURN server. */
  path: 'host' | 'nat' | 'relay'
  /** The round-trip time in milliseconds, once it has been measured. */
  rttMs: number | undefined
}

/** Returns the current path to a peer, or undefined while there is no path. */
export async function route (peer: Peer): Promise<Route | undefined> {
  const stats = await peer.pc?.getStats()
  const reports = new Map<string, any>()
  stats?.forEach((report, id) => reports.set(id, report))
  const pair = [...reports.values()].find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded')
  if (!pair) return undefined
  const kinds = [pair.localCandidateId, pair.remoteCandidateId].map(id => reports.get(id)?.candidateType)
  const path = kinds.includes('relay') ? 'relay' : kinds.every(kind => kind === 'host') ? 'host' : 'nat'
  return { path, rttMs: pair.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000 }
}
