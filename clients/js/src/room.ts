import { Emitter } from './emitter.js'
import { PigeonError } from './errors.js'
import { FRAME_BYTES, pack, type Packed } from './frames.js'
import { address, Hub, type HubHost } from './hub.js'
import type { LinkHost } from './link.js'
import { pickUp, putDown, randomId, watchPage, type Identity, type PageHost } from './page.js'
import { announced, PeerImpl } from './peer.js'
import type { Signal, SignalType } from './negotiation.js'
import type {
  Channel, ChannelOptions, GoneReason, HubMessage, HubState, Options, Peer, Room, RoomEvents,
  Sealer, Sendable, Sent, Target
} from './api.js'

const DEFAULT_LINKS = 32
const DEFAULT_MESSAGE_BYTES = 16 * 1024 * 1024
const DEFAULT_QUEUE_BYTES = 32 * 1024 * 1024
/** Several updates of this page's data within this time cause only one announcement. */
const UPDATE_MS = 100
/** Time in which a peer that the hub has lost must answer on its link, or return to the hub. */
const GRACE_MS = 3_000
/** Time in which other peers must return after this page's connection to the hub was lost. The other peers may have lost the hub, too, and then also pause between attempts. */
const RETURN_MS = 20_000
/** Pause before the next attempt after a signal was not delivered. */
const RESEND_MS = 1_000
/** Maximum time to obtain the ICE servers. */
const SERVERS_MS = 10_000

const SIGNALS = new Set(['offer', 'answer', 'ice-candidate'])

/** An internal event: the hub has answered a request for more members. Without arguments, the request must be repeated. */
type Paging = { more: [more?: boolean | undefined, error?: PigeonError] }

/** The room. Members that are neither private nor part of {@link Room} are used by other modules of this client. */
export class RoomImpl<D extends object> extends Emitter<RoomEvents<D> & Paging> implements Room<D>, HubHost, PageHost, LinkHost {
  declare readonly network: string
  readonly peers = new Map<string, PeerImpl<D>>()
  declare readonly ready: Promise<void>
  readonly options: Options<D> & Required<Pick<Options<D>, 'WebSocket' | 'RTCPeerConnection' | 'data' | 'maxMessageBytes' | 'maxQueueBytes' | 'maxLinks'>>
  readonly #hub: Hub
  /** The storage key of the identity, for a reload. */
  readonly #key: string
  readonly #channels = new Map<string, RoomChannel<D>>()
  identity: Identity
  #page = randomId()
  /** Aborted when the room is left, which removes all listeners. */
  readonly #over = new AbortController()
  #isReady!: () => void
  #neverReady!: (error: PigeonError) => void
  /** The type of the message that ends the roster, or an empty string when it has arrived. */
  #ends = ''
  /** Peers for which this page has not opened a link yet, for example because of `maxLinks`. */
  readonly #unlinked = new Set<PeerImpl<D>>()
  readonly #linked = new Set<PeerImpl<D>>()
  readonly #sealer: Sealer | undefined
  /** Resolves when all signals so far have been sealed and sent. The next signal waits for it, so that signals stay in order. */
  #sealed = Promise.resolve()
  #servers: RTCIceServer[] = []
  #update: ReturnType<typeof setTimeout> | undefined

  constructor (hubs: readonly string[], network: string, options: Options<D>) {
    super()
    const { WebSocket = globalThis.WebSocket, RTCPeerConnection = globalThis.RTCPeerConnection, data = {} as D } = options
    this.options = {
      maxMessageBytes: DEFAULT_MESSAGE_BYTES, maxQueueBytes: DEFAULT_QUEUE_BYTES, maxLinks: DEFAULT_LINKS,
      ...options, WebSocket, RTCPeerConnection, data
    }
    if (!WebSocket || !RTCPeerConnection) throw new PigeonError('unsupported', 'no WebSocket or RTCPeerConnection', { final: true })
    this.network = network
    this.#sealer = options.seal?.(network)
    this.ready = new Promise((done, failed) => {
      this.#isReady = done
      this.#neverReady = failed
    })
    // A program may ignore `ready`. Then its rejection must not be reported as unhandled.
    this.ready.catch(() => {})
    this.#key = `peerpigeon ${hubs[0]} ${network}`
    this.identity = pickUp(this.#key) ?? { id: options.id ?? randomId() }
    this.#hub = new Hub((hubs[0] ? hubs : ['']).map(address), this)
    const { signal } = options
    const leave = () => this.leave()
    watchPage(this, this.#over.signal)
    signal?.addEventListener('abort', leave, { signal: this.#over.signal })
    if (signal?.aborted) leave()
    else this.#hub.connect()
  }

  get id (): string {
    return this.identity.id
  }

  get hub (): HubState {
    return this.#hub.state
  }

  get #left (): boolean {
    return this.#over.signal.aborted
  }

  get data (): D {
    return this.options.data
  }

  update (data: D): void {
    this.options.data = data
    this.#announceIn()
  }

  #announceIn (ms = UPDATE_MS): void {
    this.#update ??= setTimeout(() => {
      this.#update = undefined
      this.#announce()
    }, ms)
  }

  send (value: Sendable, to?: Target<D>): Promise<Sent<D>> {
    return this.#send('', value, to)
  }

  async more (limit?: number): Promise<boolean> {
    for (;;) {
      await this.ready
      if (this.hub.is === 'closed') throw this.hub.because
      this.#say('discover', { limit })
      const [more, error] = await this.once('more')
      if (error) throw error
      if (more !== undefined) return more
    }
  }

  channel (name: string, options: ChannelOptions = {}): Channel<D> {
    let channel = this.#channels.get(name)
    if (!channel) {
      channel = Object.assign(new Emitter<{ message: [value: any, from: Peer<D>] }>(), {
        name, options, send: (value: Sendable, to?: Target<D>) => this.#send(name, value, to)
      })
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
    this.emit('more')
    this.silence()
    this.#say('goodbye')
    const error = new PigeonError('left', 'the room')
    this.#hub.close(error)
    this.peers.forEach(peer => this.#close(peer, error))
    this.peers.clear()
  }

  /** Closes all connections when the user leaves the page. With open connections, the browser could not keep the page. */
  hide (): void {
    putDown(this.#key, this.identity)
    this.#say('goodbye')
    this.#hub.suspend()
    this.#forget()
  }

  show (): void {
    this.identity = pickUp(this.#key) ?? this.identity
    this.#hub.connect()
  }

  welcomed (data: { peerId: string, resume?: string, iceServers?: RTCIceServer[], session?: number }): void {
    this.identity = { id: data.peerId, resume: data.resume }
    this.#serve(data)
    // Hubs before 2.1 do not report the end of the roster. Such hubs answer messages in order, so their pong marks the
    // end of the roster, except in large rooms.
    this.#ends = data.session ? 'announced' : 'pong'
    for (const peer of this.peers.values()) peer.present = false
    this.#announce()
    this.#hub.send({ type: 'ping' })
  }

  wake (): void {
    this.#hub.check()
  }

  #announce (): void {
    const { data, discover } = this.options
    // The page's data has its own field, because the hub adds other fields to the announcement.
    this.#say('announce', { page: this.#page, data, discover }, { ack: true })
  }

  hubChanged (state: HubState): void {
    if (state.is === 'closed') {
      this.#neverReady(state.because)
      this.emit('more')
    }
    this.emit('hub', state)
  }

  receive (message: HubMessage): void {
    const { type, data, fromPeerId = '', networkName } = message
    if (type === this.#ends) return this.#everybodyNamed()
    if (type === 'receipt') return this.#receipt(data)
    if (type === 'ice-servers') return this.#serve(data)
    if (networkName !== this.network) return
    if (type === 'peer-discovered') return this.#discovered(data)
    if (type === 'error') return this.#declined(data)
    if (type === 'discovered') this.emit('more', data.more)
    const peer = this.peers.get(type === 'peer-disconnected' ? data.peerId : fromPeerId)
    if (!peer) return
    if (SIGNALS.has(type)) peer.take(type as SignalType, this.#unseal(peer, type, data))
    else if (data.reason === 'kicked') this.#remove(peer, 'kicked')
    // Browsers close a connection with 1001 when its page is closed.
    else if (type === 'goodbye' || data.closeCode === 1001) this.#remove(peer, 'left')
    else if (type === 'peer-disconnected') {
      peer.present = false
      void this.#doubt(peer, GRACE_MS)
    }
  }

  #discovered (said: { peerId?: string }): void {
    const { page, data } = announced<D>(said)
    const id = said.peerId!
    const known = this.peers.get(id)
    if (id === this.id) return
    if (known && known.page === page) {
      known.present = true
      const before = known.data
      known.data = data
      if (JSON.stringify(before) !== JSON.stringify(data)) this.emit('change', known, before)
      known.nudge()
    } else {
      if (known) this.#remove(known, 'replaced')
      this.#add(new PeerImpl<D>(this, id, { page, data }))
    }
  }

  #add (peer: PeerImpl<D>): void {
    this.#unlinked.add(peer)
    // The link starts before the event, so that messages that a 'join' listener sends wait for the link.
    this.#connectMore()
    this.peers.set(peer.id, peer)
    this.emit('join', peer)
  }

  /** Opens links up to the limit. Of two peers, the one with the greater id sends the offer. */
  #connectMore (): void {
    if (this.#left || this.options.link === 'on-demand') return
    for (const peer of this.#unlinked) {
      if (this.#linked.size >= this.options.maxLinks) return
      this.#unlinked.delete(peer)
      if (!peer.declined) peer.begin()
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
    peer.end(error)
    peer.settle()
  }

  /** Removes a peer that the hub no longer lists as a member, unless it answers on its link or returns to the hub within `graceMs`. */
  async #doubt (peer: PeerImpl<D>, graceMs: number): Promise<void> {
    if (peer.state === 'open' && await peer.probe(GRACE_MS)) return
    if (peer.state !== 'open') await new Promise(resolve => setTimeout(resolve, graceMs))
    if (!peer.present && this.online) this.#remove(peer, 'lost')
  }

  #everybodyNamed (): void {
    this.#ends = ''
    this.#isReady()
    this.emit('more')
    for (const peer of this.peers.values()) {
      if (!peer.present) void this.#doubt(peer, RETURN_MS)
    }
  }

  /** Stores the hub's ICE servers. Open connections use them at their next ICE restart. */
  #serve ({ iceServers }: { iceServers?: RTCIceServer[] | undefined }): void {
    if (!iceServers) return
    this.#servers = iceServers
    for (const { pc } of this.#linked) if (pc) void this.renew(pc)
  }

  #receipt ({ targetPeerId, outcome, retryInMs = RESEND_MS }: { targetPeerId?: string, outcome?: string, retryInMs?: number }): void {
    const peer = this.peers.get(targetPeerId!)
    if (peer && outcome !== 'delivered' && outcome !== 'forwarded') setTimeout(() => peer.nudge(), retryInMs)
  }

  relay (peer: PeerImpl<D>, type: SignalType, data: Signal): void {
    // Offers and answers have an id, so that the hub reports their outcome in a receipt. Candidates have none: a lost
    // candidate matters little, because there are many.
    const send = (data: object) => this.#say(type, data, { targetPeerId: peer.id, id: type === 'ice-candidate' ? undefined : type })
    if (this.#sealer) this.#sealed = this.#sealed.then(async () => send(await this.#sealer!.seal(data, `${type} ${this.id} ${peer.id}`)))
    else send(data)
  }

  /** Decrypts a signal if the room has a passphrase. If it cannot be decrypted, there can be no link, and the result is `undefined`. */
  async #unseal (peer: PeerImpl<D>, type: string, data: any): Promise<Signal | undefined> {
    try {
      if (this.#sealer) return await this.#sealer.open(data, `${type} ${peer.id} ${this.id}`)
      if (!data.sealed) return data
    } catch {}
    // The other side cannot read this answer either. It is sent so that the other side also reports the error.
    if (type === 'offer') this.relay(peer, 'answer', {})
    if (!peer.declined && peer.state !== 'open') {
      this.broken(new PigeonError('passphrase', 'not the same'), peer)
      peer.disconnect()
    }
    return undefined
  }

  #declined (data: { code?: string, message?: string, inReplyTo?: string, targetPeerId?: string, retryInMs?: number }): void {
    const { code, message, inReplyTo, retryInMs } = data
    // Failed offers and answers are handled by their receipts. Failed candidates do not matter, because a repeated
    // description contains them.
    if (SIGNALS.has(inReplyTo!)) return code === 'rate-limited' ? this.#receipt(data) : undefined
    if (code === 'kicked') return this.#hub.close(new PigeonError('kicked', message!, { final: true }))
    const error = new PigeonError('refused', `${inReplyTo ?? code}: ${message}`)
    const limited = code === 'rate-limited'
    if (inReplyTo === 'announce') {
      if (limited) return this.#announceIn(retryInMs)
      this.#neverReady(error)
    }
    if (inReplyTo !== 'discover') this.broken(error)
    else if (limited) setTimeout(() => this.emit('more'), retryInMs)
    else this.emit('more', undefined, error)
  }

  /** Takes a new random id, because another page has the current one, unless the program has chosen the id. All links of the current id end. */
  refused (): boolean {
    this.#forget()
    if (this.options.id !== undefined) return true
    this.identity = { id: randomId() }
    return false
  }

  /** Sends a message about this room to the hub, if the page is connected to it. */
  #say (type: string, data?: object, more?: object): void {
    this.#hub.send({ type, networkName: this.network, data, ...more })
  }

  /** Removes all peers, because their links belong to an identity that ends. */
  #forget (): void {
    for (const peer of this.peers.values()) this.#remove(peer, 'lost')
  }

  get online (): boolean {
    return this.#hub.online
  }

  /** Whether the room accepts no more links. This limit also counts the links that other peers have opened, so it is twice `maxLinks`. */
  get crowded (): boolean {
    return this.#linked.size >= 2 * this.options.maxLinks
  }

  async connection (): Promise<RTCPeerConnection> {
    return new this.options.RTCPeerConnection(await this.#configuration())
  }

  async renew (pc: RTCPeerConnection): Promise<void> {
    const configuration = await this.#configuration()
    // The connection may have been closed meanwhile.
    if (pc.signalingState !== 'closed') pc.setConfiguration(configuration)
  }

  channelOptions (name: string): ChannelOptions {
    return this.#channels.get(name)?.options ?? {}
  }

  arrived (peer: PeerImpl<D>, channel: string, value: unknown): void {
    if (channel === '') this.emit('message', value, peer)
    else this.#channels.get(channel)?.emit('message', value, peer)
  }

  made (peer: PeerImpl<D>, pc: RTCPeerConnection): void {
    this.emit('connection', pc, peer)
  }

  linkChanged (peer: PeerImpl<D>): void {
    const { state } = peer
    if (peer.idle) this.#linked.delete(peer)
    else this.#linked.add(peer)
    if (state === 'gone') return
    if (state === 'seen') this.#connectMore()
    peer.settle()
    // A link that starts before its peer's 'join' causes no event.
    if (this.peers.has(peer.id)) this.emit('link', peer, state)
    if (state === 'interrupted' && !peer.present) void this.#doubt(peer, GRACE_MS)
  }

  async #configuration (): Promise<RTCConfiguration> {
    const { iceServers, rtc } = this.options
    if (typeof iceServers === 'function') {
      try {
        const late = new Promise<never>((_resolve, reject) => setTimeout(reject, SERVERS_MS))
        this.#servers = await Promise.race([iceServers(), late])
      } catch (cause) {
        // The connection uses the previous servers, which may still work.
        this.broken(new PigeonError('timeout', 'iceServers()', { cause }))
      }
    }
    return { ...rtc, iceServers: iceServers instanceof Array ? iceServers : this.#servers }
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
        await peer.post(channel, packed)
      } catch (error) {
        failed.set(peer, Object.assign(error as PigeonError, { peer }))
      }
    }))
    return { to: peers.filter(peer => !failed.has(peer)), failed }
  }

  #pack (channel: string, value: Sendable): Packed {
    const { ordered = true, maxRetransmits } = this.channelOptions(channel)
    // On an unordered or unreliable channel, parts of a message could arrive in the wrong order or be lost. So a
    // message on such a channel must fit into one frame.
    return pack(value, ordered && maxRetransmits === undefined ? this.options.maxMessageBytes : FRAME_BYTES - 1)
  }

  /** Reports an error that no promise reports. */
  broken (error: PigeonError, peer?: PeerImpl<D>): void {
    if (peer) Object.assign(error, { peer })
    if (!this.#left && !this.emit('error', error)) console.warn(error, error.hint)
  }
}

interface RoomChannel<D extends object> extends Emitter<{ message: [value: any, from: Peer<D>] }> {
  readonly name: string
  readonly options: ChannelOptions
  readonly send: (value: Sendable, to?: Target<D>) => Promise<Sent<D>>
}
