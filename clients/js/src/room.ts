import { Emitter } from './emitter.js'
import { PigeonError } from './errors.js'
import { FRAME_BYTES, pack, type Packed } from './frames.js'
import { address, Hub } from './hub.js'
import { Link } from './link.js'
import { pickUp, putDown, randomId, watchPage, type Identity } from './page.js'
import { announced, PeerImpl } from './peer.js'
import type { Signal, SignalType } from './negotiation.js'
import type {
  Channel, ChannelOptions, GoneReason, HubMessage, HubState, LinkState, Options, Peer, Room, RoomEvents,
  Sealer, Sendable, Sent, Target
} from './api.js'

const DEFAULT_LINKS = 32
const DEFAULT_MESSAGE_BYTES = 16 * 1024 * 1024
const DEFAULT_QUEUE_BYTES = 32 * 1024 * 1024
/** Updates of this page's data within this time are sent as one. */
const UPDATE_MS = 100
/** Time for a peer that the hub has lost to answer on its link, or to return. */
const GRACE_MS = 3_000
/** Time for other peers to return after this page's connection was lost: they pause between attempts too. */
const RETURN_MS = 20_000
/** Pause after an undelivered signal before the next attempt. */
const RESEND_MS = 1_000
/** Maximum time to obtain the ICE servers. */
const SERVERS_MS = 10_000

const SIGNALS = new Set(['offer', 'answer', 'ice-candidate'])

export class RoomImpl<D extends object> extends Emitter<RoomEvents<D>> implements Room<D> {
  declare readonly network: string
  readonly peers = new Map<string, PeerImpl<D>>()
  declare readonly ready: Promise<void>
  readonly #options: Options<D> & { maxMessageBytes: number, maxQueueBytes: number, maxLinks: number }
  readonly #hub: Hub
  /** The storage key of the identity, for a reload. */
  readonly #key: string
  readonly #RTCPeerConnection: typeof RTCPeerConnection
  readonly #channels = new Map<string, RoomChannel<D>>()
  #identity: Identity
  #page = randomId()
  #data: D
  /** Aborted when the room is left, which removes all listeners. */
  readonly #over = new AbortController()
  #hidden = false
  #isReady!: () => void
  #neverReady!: (error: PigeonError) => void
  /** The type of the message that ends the roster; `undefined` once it has arrived. */
  #ends = ''
  /** Peers that have no link and want one. */
  readonly #unlinked = new Set<PeerImpl<D>>()
  readonly #linked = new Set<PeerImpl<D>>()
  readonly #sealer: Sealer | undefined
  /** Resolves when all signals so far have been sealed and sent: they stay in order. */
  #sealed = Promise.resolve()
  #servers: RTCIceServer[] = []
  #update: ReturnType<typeof setTimeout> | undefined

  constructor (hubs: readonly string[], network: string, options: Options<D>) {
    super()
    const { WebSocket: Socket = globalThis.WebSocket, RTCPeerConnection: Connection = globalThis.RTCPeerConnection, retry } = options
    if (!Socket || !Connection) throw new PigeonError('unsupported', 'no WebSocket or RTCPeerConnection', { final: true })
    this.network = network
    this.#options = { maxMessageBytes: DEFAULT_MESSAGE_BYTES, maxQueueBytes: DEFAULT_QUEUE_BYTES, maxLinks: DEFAULT_LINKS, ...options }
    this.#RTCPeerConnection = Connection
    this.#data = options.data ?? {} as D
    this.#sealer = options.seal?.(network)
    this.ready = new Promise((done, failed) => {
      this.#isReady = done
      this.#neverReady = failed
    })
    // Programs need not await `ready`, so its rejection must not count as unhandled.
    this.ready.catch(() => {})
    this.#key = `peerpigeon ${hubs[0]} ${network}`
    this.#identity = pickUp(this.#key) ?? { id: randomId() }
    this.#hub = new Hub({
      urls: (hubs.length > 0 ? hubs : ['']).map(address),
      token: options.token,
      minMs: retry?.minMs ?? 500,
      maxMs: retry?.maxMs ?? 15_000,
      WebSocket: Socket
    }, {
      identity: () => this.#identity,
      refused: () => this.#rename(),
      state: state => this.#hubChanged(state),
      online: data => this.#online(data),
      message: message => this.#receive(message)
    })
    const { signal } = options
    const leave = () => this.leave()
    watchPage({
      hide: () => this.#hide(),
      show: () => this.#show(),
      network: () => this.#hub.check()
    }, this.#over.signal)
    signal?.addEventListener('abort', leave, { signal: this.#over.signal })
    if (signal?.aborted) leave()
    else this.#hub.connect()
  }

  get id (): string {
    return this.#identity.id
  }

  get hub (): HubState {
    return this.#hub.state
  }

  get #left (): boolean {
    return this.#over.signal.aborted
  }

  get data (): D {
    return this.#data
  }

  update (data: D): void {
    this.#data = data
    this.#update ??= setTimeout(() => {
      this.#update = undefined
      this.#announce()
    }, UPDATE_MS)
  }

  send (value: Sendable, to?: Target<D>): Promise<Sent<D>> {
    return this.#send('', value, to)
  }

  channel (name: string, options: ChannelOptions = {}): Channel<D> {
    let channel = this.#channels.get(name)
    if (!channel) {
      const send = (value: Sendable, to?: Target<D>) => this.#send(name, value, to)
      channel = Object.assign(new Emitter<{ message: [value: any, from: Peer<D>] }>(), { name, options, send })
      this.#channels.set(name, channel)
    }
    return channel
  }

  retry (): void {
    this.#hub.retry()
  }

  leave (): void {
    if (this.#left) return
    this.#over.abort()
    clearTimeout(this.#update)
    this.silence()
    this.#goodbye()
    this.#hub.close()
    const error = new PigeonError('left', 'the room')
    this.#neverReady(error)
    for (const peer of this.peers.values()) this.#close(peer, error)
    this.peers.clear()
  }

  /** The user leaves the page, perhaps for good. Open links would prevent the browser from keeping the page. */
  #hide (): void {
    putDown(this.#key, this.#identity)
    this.#hidden = true
    this.#goodbye()
    this.#hub.suspend()
    this.#forget()
  }

  #show (): void {
    this.#hidden = false
    this.#identity = pickUp(this.#key) ?? this.#identity
    this.#hub.connect()
  }

  #online ({ peerId, resume, iceServers, session }: { peerId: string, resume?: string, iceServers?: RTCIceServer[], session?: number }): void {
    this.#identity = { id: peerId, resume }
    if (iceServers) this.#servers = iceServers
    // Hubs before 2.1 do not report the end of the roster. They answer in order, so a pong marks it, except in large
    // rooms.
    this.#ends = session ? 'announced' : 'pong'
    for (const peer of this.peers.values()) peer.present = false
    this.#announce()
    this.#hub.send({ type: 'ping' })
  }

  #announce (): void {
    const { discover } = this.#options
    // The user's data has its own field, since the hub adds fields beside it.
    const data = { page: this.#page, data: this.#data, ...(discover && { discover }) }
    this.#hub.send({ type: 'announce', networkName: this.network, data, ack: true })
  }

  #hubChanged (state: HubState): void {
    if (state.is === 'closed' && state.because) this.#neverReady(state.because)
    this.emit('hub', state)
  }

  #receive (message: HubMessage): void {
    const { type, data, fromPeerId = '', networkName } = message
    if (type === this.#ends) return this.#everybodyNamed()
    if (type === 'receipt') return this.#receipt(data ?? {})
    if (networkName !== this.network) return
    if (type === 'peer-discovered') return this.#discovered(data ?? {})
    if (type === 'error') return this.#refused(data ?? {})
    const peer = this.peers.get(type === 'peer-disconnected' ? data?.peerId : fromPeerId)
    if (!peer) return
    if (SIGNALS.has(type)) peer.link.take(type as SignalType, this.#unseal(peer, type, data ?? {}))
    else if (type === 'goodbye') this.#remove(peer, 'left')
    else if (type === 'peer-disconnected') {
      peer.present = false
      void this.#doubt(peer, GRACE_MS)
    }
  }

  #discovered (said: { peerId?: string }): void {
    const { page, data } = announced<D>(said)
    const id = String(said.peerId)
    const known = this.peers.get(id)
    if (id === this.id) return
    if (known && known.page === page) {
      known.present = true
      const before = known.data
      known.data = data
      if (JSON.stringify(before) !== JSON.stringify(data)) this.emit('change', known, before)
      known.link.nudge()
    } else {
      if (known) this.#remove(known, 'replaced')
      const peer = new PeerImpl<D>(id, { page, data }, async value => {
        const { failed } = await this.send(value, peer)
        for (const error of failed.values()) throw error
      })
      this.#add(peer)
    }
  }

  #add (peer: PeerImpl<D>): void {
    peer.link = this.#link(peer)
    this.peers.set(peer.id, peer)
    this.#unlinked.add(peer)
    // The link starts first, so that messages sent in a 'join' listener wait for it.
    this.#connectMore()
    peer.joined = true
    this.emit('join', peer)
  }

  /** Opens links up to the limit. Of two peers, the one with the greater id sends the offer. */
  #connectMore (): void {
    if (this.#left || this.#options.link === 'on-demand') return
    for (const peer of this.#unlinked) {
      if (this.#linked.size >= this.#options.maxLinks) return
      this.#unlinked.delete(peer)
      if (!peer.declined) peer.link.open(this.id > peer.id)
    }
  }

  #remove (peer: PeerImpl<D>, reason: GoneReason): void {
    if (this.peers.get(peer.id) !== peer) return
    this.peers.delete(peer.id)
    this.#unlinked.delete(peer)
    this.#close(peer, peer.gone())
    this.emit('leave', peer, reason)
    this.#connectMore()
  }

  #close (peer: PeerImpl<D>, error: PigeonError): void {
    peer.link.end(error)
    peer.settle()
  }

  /** The hub does not have this peer. The peer stays if it answers on its link, or if it returns in time. */
  async #doubt (peer: PeerImpl<D>, graceMs: number): Promise<void> {
    if (peer.state === 'open' && await peer.link.probe(GRACE_MS)) return
    if (peer.state !== 'open') await new Promise(resolve => setTimeout(resolve, graceMs))
    if (!peer.present && this.#hub.online && !this.#hidden) this.#remove(peer, 'lost')
  }

  #everybodyNamed (): void {
    this.#ends = ''
    this.#isReady()
    for (const peer of this.peers.values()) {
      if (!peer.present) void this.#doubt(peer, RETURN_MS)
    }
  }

  #receipt ({ targetPeerId, outcome }: { targetPeerId?: string, outcome?: string }): void {
    const peer = this.peers.get(String(targetPeerId))
    if (peer && outcome !== 'delivered' && outcome !== 'forwarded') setTimeout(() => peer.link.nudge(), RESEND_MS)
  }

  #signal (peer: PeerImpl<D>, type: SignalType, data: Signal): void {
    // A lost candidate matters little, since there are many. Receipts show whether the other signals have arrived.
    const id = type === 'ice-candidate' ? {} : { id: type }
    const send = (data: object) => { this.#hub.send({ type, targetPeerId: peer.id, networkName: this.network, data, ...id }) }
    if (this.#sealer) this.#sealed = this.#sealed.then(async () => send(await this.#sealer!.seal(data, `${type} ${this.id} ${peer.id}`)))
    else send(data)
  }

  /** Reads a signal. Without the same passphrase there can be no link. */
  async #unseal (peer: PeerImpl<D>, type: string, data: any): Promise<Signal | undefined> {
    try {
      if (this.#sealer) return await this.#sealer.open(data, `${type} ${peer.id} ${this.id}`)
      if (!data.sealed) return data
    } catch {}
    // The other side cannot read this answer either, so it also reports the error.
    if (type === 'offer') this.#signal(peer, 'answer', {})
    if (!peer.declined && peer.state !== 'open') {
      this.#error(Object.assign(new PigeonError('passphrase', 'not the same'), { peer }))
      peer.disconnect()
    }
    return undefined
  }

  #refused ({ code, message, inReplyTo }: { code?: string, message?: string, inReplyTo?: string }): void {
    // Signals have receipts, except candidates, of which there are many.
    if (SIGNALS.has(String(inReplyTo))) return
    const error = new PigeonError('refused', `${inReplyTo}: ${message}`)
    if (inReplyTo === 'announce') {
      if (code === 'rate-limited') this.update(this.#data)
      else this.#neverReady(error)
    }
    this.#error(error)
  }

  /** Another page has this id. All links under that id end. */
  #rename (): void {
    this.#forget()
    this.#identity = { id: randomId() }
  }

  #goodbye (): void {
    this.#hub.send({ type: 'goodbye', networkName: this.network })
  }

  /** All links belong to the former identity. */
  #forget (): void {
    for (const peer of this.peers.values()) this.#remove(peer, 'lost')
  }

  #link (peer: PeerImpl<D>): Link {
    const room = this
    const { maxMessageBytes, maxQueueBytes } = this.#options
    return new Link({
      polite: this.id < peer.id,
      maxMessageBytes,
      maxQueueBytes,
      get online () { return room.#hub.online },
      // Links that other peers open count as well. Their limit is twice as high, since both pages decide about each
      // link.
      get crowded () { return room.#linked.size >= 2 * room.#options.maxLinks },
      connect: async () => new this.#RTCPeerConnection({ ...this.#options.rtc, iceServers: await this.#iceServers() }),
      channelOptions: name => this.#channels.get(name)?.options ?? {},
      send: (type, data) => this.#signal(peer, type, data),
      state: state => this.#linkChanged(peer, state),
      closed: () => { peer.declined = true },
      message: (channel, value) => {
        if (channel === '') this.emit('message', value, peer)
        else this.#channels.get(channel)?.emit('message', value, peer)
      },
      made: pc => { this.emit('connection', pc, peer) },
      error: error => this.#error(Object.assign(error, { peer }))
    })
  }

  #linkChanged (peer: PeerImpl<D>, state: LinkState): void {
    if (state === 'gone' || state === 'seen') this.#linked.delete(peer)
    else this.#linked.add(peer)
    if (state === 'gone') return
    if (state === 'seen') this.#connectMore()
    peer.settle()
    if (peer.joined) this.emit('link', peer, state)
    if (state === 'interrupted' && !peer.present) void this.#doubt(peer, GRACE_MS)
  }

  async #iceServers (): Promise<RTCIceServer[]> {
    const { iceServers } = this.#options
    if (typeof iceServers !== 'function') return iceServers ?? this.#servers
    try {
      const late = new Promise<never>((_resolve, reject) => setTimeout(reject, SERVERS_MS))
      this.#servers = await Promise.race([iceServers(), late])
    } catch (cause) {
      // The previous servers may still work.
      this.#error(new PigeonError('timeout', 'iceServers()', { cause }))
    }
    return this.#servers
  }

  async #send (channel: string, value: Sendable, to?: Target<D>): Promise<Sent<D>> {
    if (this.#left) throw new PigeonError('left', 'the room')
    const packed = this.#pack(channel, value)
    const peers = to === undefined ? [...this.peers.values()].filter(({ state }) => state !== 'seen') : 'id' in to ? [to] : [...to]
    const failed = new Map<Peer<D>, PigeonError>()
    await Promise.all((peers as PeerImpl<D>[]).map(async peer => {
      try {
        if (peer.state === 'gone') throw peer.gone()
        if (peer.state === 'seen') peer.connect().catch(() => {})
        await peer.link.send(channel, packed)
      } catch (error) {
        failed.set(peer, Object.assign(error as PigeonError, { peer }))
      }
    }))
    return { to: peers.filter(peer => !failed.has(peer)), failed }
  }

  #pack (channel: string, value: Sendable): Packed {
    const { ordered = true, maxRetransmits } = this.#channels.get(channel)?.options ?? {}
    // The parts of a message could arrive in the wrong order, or be lost.
    return pack(value, ordered && maxRetransmits === undefined ? this.#options.maxMessageBytes : FRAME_BYTES - 1)
  }

  #error (error: PigeonError): void {
    if (!this.#left && !this.emit('error', error)) console.warn(error, error.hint)
  }
}

interface RoomChannel<D extends object> extends Emitter<{ message: [value: any, from: Peer<D>] }> {
  readonly name: string
  readonly options: ChannelOptions
  readonly send: (value: Sendable, to?: Target<D>) => Promise<Sent<D>>
}
