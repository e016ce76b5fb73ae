import { PigeonError } from './errors.js'
import type { Link } from './link.js'
import type { LinkState, Peer, Sendable } from './api.js'

/** Another page in the room, as the room sees it. */
export class PeerImpl<D extends object> implements Peer<D> {
  declare readonly id: string
  declare data: D
  /** Distinguishes the page from other pages that had the same id. `undefined` if the peer's client does not send it. */
  declare readonly page: string | undefined
  /** Whether the peer is a member according to the hub. A link can be open to a peer that the hub has lost. */
  present = true
  /** Whether one of the two sides has closed the link on purpose. Then this page does not open a link by itself. */
  declined = false
  /** Whether listeners have received its `join`. */
  joined = false
  declare link: Link<PeerImpl<D>>
  #waiting: { done: () => void, fail: (error: PigeonError) => void }[] = []

  declare readonly send: (value: Sendable) => Promise<void>

  constructor (id: string, { page, data }: Announced<D>, send: (value: Sendable) => Promise<void>) {
    this.id = id
    this.data = data
    this.page = page
    this.send = send
  }

  get state (): LinkState {
    return this.link.state
  }

  get pc (): RTCPeerConnection | undefined {
    return this.link.pc
  }

  connect (): Promise<void> {
    this.declined = false
    this.link.open(true)
    return new Promise((done, fail) => {
      this.#waiting.push({ done, fail })
      this.settle()
    })
  }

  disconnect (): void {
    this.declined = true
    this.link.close()
  }

  gone (): PigeonError {
    return Object.assign(new PigeonError('peer-gone', 'it left, or closed the link'), { peer: this })
  }

  /** Settles the promises of connect(), if the link is open, or cannot open because it was closed or the peer has left. */
  settle (): void {
    const open = this.state === 'open'
    if (!open && !this.declined && this.state !== 'gone') return
    for (const { done, fail } of this.#waiting.splice(0)) open ? done() : fail(this.gone())
  }
}

/** The announcement of a member of the room. */
export interface Announced<D> { page: string | undefined, data: D }

/** Parses the announcement of a member. Clients of other kinds send no `page`. All fields of their announcement are data. */
export function announced<D> ({ peerId, isHub, discover, page, data, ...rest }: any): Announced<D> {
  return typeof page === 'string' && typeof data === 'object' ? { page, data: data ?? {} } : { page: undefined, data: rest }
}
