import { PigeonError } from './errors.js'
import type { Link } from './link.js'
import type { LinkState, Peer, Sendable } from './api.js'

/** Another page in the room, as the room sees it. */
export class PeerImpl<D extends object> implements Peer<D> {
  declare readonly id: string
  declare data: D
  /** Names the page among those that have had its id; nothing where its client does not say. */
  declare readonly page: string | undefined
  /** Whether the hub has it in the room. A link can be open to one that the hub has lost. */
  present = true
  /** The peer has closed the link on purpose, so this side makes none. */
  declined = false
  /** Whether it is known to the listeners. */
  joined = false
  declare link: Link
  #waiting: { done: () => void, failed: (error: PigeonError) => void }[] = []

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
    return new Promise((done, failed) => {
      this.#waiting.push({ done, failed })
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

  /** Settles the promises that wait for the link, once it is open or has failed. */
  settle (): void {
    const open = this.state === 'open'
    if (!open && !this.declined && this.state !== 'gone') return
    for (const { done, failed } of this.#waiting.splice(0)) open ? done() : failed(this.gone())
  }
}

/** What a member of the room has announced. */
export interface Announced<D> { page: string | undefined, data: D }

/** Reads what a member has announced. Other clients send no `page`: their whole announcement is data. */
export function announced<D> ({ peerId, isHub, discover, page, data, ...rest }: any): Announced<D> {
  return typeof page === 'string' && typeof data === 'object' ? { page, data: data ?? {} } : { page: undefined, data: rest }
}
