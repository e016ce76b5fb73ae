import { Link, type LinkHost } from './link.js'
import type { Peer, Sendable } from './api.js'

/** Another page in the room, as the room sees it, and the link to it. Members that are not part of {@link Peer} are used by other modules of this client. */
export class PeerImpl<D extends object> extends Link implements Peer<D> {
  declare data: D
  /** Distinguishes the page from other pages that had the same id. `undefined` if the peer's client does not send it. */
  declare readonly page: string | undefined
  /** Whether the peer is a member according to the hub. A link can be open to a peer that the hub has lost. */
  present = true
  /** Continues the calls of connect(). */
  #waiting: (() => void)[] = []

  constructor (host: LinkHost, id: string, { page, data }: Announced<D>) {
    super(host, id)
    this.data = data
    this.page = page
  }

  async connect (): Promise<void> {
    this.declined = false
    this.begin(true)
    while (this.state !== 'open') {
      if (this.declined || this.state === 'gone') throw this.gone()
      await new Promise<void>(resolve => this.#waiting.push(resolve))
    }
  }

  async send (value: Sendable): Promise<void> {
    const { failed } = await this.host.send(value, this)
    for (const error of failed.values()) throw error
  }

  /** Lets the calls of connect() examine the new state of the link. */
  settle (): void {
    this.#waiting.splice(0).forEach(resolve => resolve())
  }
}

/** The announcement of a member of the room. */
export interface Announced<D> { page: string | undefined, data: D }

/** Parses the announcement of a member. Clients of other kinds send no `page`. All fields of their announcement are data. */
export function announced<D> ({ peerId, isHub, discover, page, data, ...rest }: any): Announced<D> {
  return typeof page === 'string' && typeof data === 'object' ? { page, data: data ?? {} } : { page: undefined, data: rest }
}
