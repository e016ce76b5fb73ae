// The link to one peer. The link uses one RTCPeerConnection after another until the peer leaves.
import { pause } from './backoff.js'
import { PigeonError } from './errors.js'
import { BYE, PING, PONG, unpacker, type Packed } from './frames.js'
import { Lane } from './lane.js'
import { Negotiation, type NegotiationHost, type Signal, type SignalType } from './negotiation.js'
import type { ChannelOptions, LinkState, Sendable, Sent } from './api.js'

/** Time after which a connection that has not opened is replaced by a new one. Browsers stop their search for a path a little earlier. */
const CONNECT_MS = 20_000
/** Time after which an interrupted link restarts ICE. Most links recover by themselves before that. */
const RESTART_MS = 2_500
/** Time after which an interrupted link gets a new connection. */
const REBUILD_MS = 12_000
/** Minimum time between two new connections that the other side requests by an offer. */
const FLOOD_MS = 100
/** Time for which the connection of a closed link is kept open, so that its last message is sent. */
const LINGER_MS = 500
/** Number of buffered bytes in the transport of the main channel at which PING, PONG and BYE are dropped. A lane alone never buffers so much. */
const CONTROL_BYTES = 1_100_000
/** Maximum number of unreadable messages of a channel that are reported. */
const MAX_REPORTS = 16
/** Maximum number of channels that the other side may open. */
const MAX_CHANNELS = 64

/** The name of the channel that every link has. Messages that are sent without a channel use it. */
const MAIN = ''

const NO_PATH = () => new PigeonError('ice-failed', 'no path')

/** The functions of the room that a link uses. */
export interface LinkHost {
  /** The id of this page. */
  readonly id: string
  send (value: Sendable, to: any): Promise<Sent<any>>
  readonly options: { readonly maxMessageBytes: number, readonly maxQueueBytes: number }
  /** Whether signals can be sent now. */
  readonly online: boolean
  /** Whether the room has its maximum number of links, so that it accepts no more. */
  readonly crowded: boolean
  connection (): Promise<RTCPeerConnection>
  /** Gives a connection the current ICE servers before an ICE restart. */
  renew (pc: RTCPeerConnection): Promise<void>
  channelOptions (name: string): ChannelOptions
  relay (link: Link, type: SignalType, data: Signal): void
  linkChanged (link: Link): void
  arrived (link: Link, channel: string, value: unknown): void
  /** Called when a connection was created. */
  made (link: Link, pc: RTCPeerConnection): void
  broken (error: PigeonError, link?: any): void
}

/** One RTCPeerConnection with its own state. */
interface Connection {
  readonly pc: RTCPeerConnection
  readonly negotiation: Negotiation
  readonly main: RTCDataChannel
}

export class Link implements NegotiationHost {
  /** The id of the peer. */
  declare readonly id: string
  state: LinkState = 'seen'
  /** Whether one of the two sides has closed the link on purpose. While this is true, this page does not open the link by itself. */
  declined = false
  /** The room. */
  declare readonly host: LinkHost
  readonly #lanes = new Map<string, Lane>()
  #connection: Connection | undefined
  /** Changes with each connection, so that asynchronous work for an earlier connection can be dropped. */
  #generation = 0
  #tag = 0
  /** The greatest tag of a connection of the other side. */
  #newest = 0
  #failures = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  /** Processes incoming signals in order. Signals that arrive while a connection is being created wait for it. */
  #signals: Promise<void> = Promise.resolve()
  #pongs: (() => void)[] = []

  constructor (host: LinkHost, id: string) {
    this.host = host
    this.id = id
  }

  get pc (): RTCPeerConnection | undefined {
    return this.#connection?.pc
  }

  /** Of two peers, the one with the smaller id is polite (see Negotiation). */
  get polite (): boolean {
    return this.host.id < this.id
  }

  /** Whether there is no connection, and none is to be made. */
  get idle (): boolean {
    return this.state === 'gone' || this.state === 'seen'
  }

  /** Connects, unless a connection exists. With `first`, this side offers without waiting for an offer of the other side. */
  begin (first = !this.polite): void {
    if (this.state !== 'seen') return
    this.#become('connecting')
    this.#enqueue(() => this.#connection ? undefined : this.#build(!first))
  }

  /** Closes the link and notifies the other side, so that the other side does not connect again. */
  disconnect (): void {
    this.declined = true
    this.#control(BYE)
    this.#rest(LINGER_MS)
  }

  /** Closes the link for good, because the peer has left. */
  end (error: PigeonError): void {
    this.#drop()
    this.#become('gone')
    this.#lanes.forEach(lane => lane.fail(error))
    this.#lanes.clear()
  }

  /** The error with which messages and calls fail when this link ends. */
  gone (): PigeonError {
    return Object.assign(new PigeonError('peer-gone', 'it left or closed the link'), { peer: this }) as PigeonError
  }

  /** Continues to connect if the link is not open. Called when the hub or the peer has returned, or when a signal was lost. */
  nudge (): void {
    const negotiation = this.#connection?.negotiation
    if (negotiation?.pending) negotiation.repeat()
    else if (this.state === 'interrupted') this.#restart()
  }

  /** Processes a signal of the other side. `read` resolves with `undefined` if the signal cannot be decrypted. */
  take (type: SignalType, read: Promise<Signal | undefined>): void {
    this.#enqueue(async () => {
      const signal = await read
      if (!signal) return
      const from = Number(signal.from ?? 0)
      if (type === 'offer' && !await this.#meet(from)) return
      const negotiation = this.#connection?.negotiation
      if (!negotiation) return
      if (signal.full && signal.to === negotiation.tag) return this.#rest(0, true)
      // The other side's connection is identified by its first offer, or by its answer to an offer of this side.
      if (type === 'answer' && from >= this.#newest && from !== negotiation.remote) {
        // The other side has made a new connection, so this side needs a new connection, too.
        if (negotiation.remote !== undefined) return this.#again()
        negotiation.remote = this.#newest = from
      }
      const current = type === 'offer' || signal.to === undefined || signal.to === negotiation.tag
      if (current && negotiation.remote === from) await negotiation.take(type, signal)
    })
  }

  relay (type: SignalType, data: Signal): void {
    this.host.relay(this, type, data)
  }

  post (channel: string, packed: Packed): Promise<void> {
    return this.#lane(channel).send(packed)
  }

  /** Sends a PING on the link. Resolves with whether the other side answers within `ms`. */
  probe (ms: number): Promise<boolean> {
    return new Promise(resolve => {
      setTimeout(resolve, ms, false)
      this.#pongs.push(() => resolve(true))
      this.#control(PING)
    })
  }

  #lane (name: string): Lane {
    let lane = this.#lanes.get(name)
    if (!lane) {
      lane = new Lane(this.host.options.maxQueueBytes)
      this.#lanes.set(name, lane)
      if (this.#connection) this.#attach(this.#connection, name, lane)
    }
    return lane
  }

  /** Makes a connection for an offer with this tag, if there is none yet. Returns false if the offer must be ignored, for example because it is outdated. */
  async #meet (from: number): Promise<boolean> {
    if (from < this.#newest) return false
    if (from === this.#newest && from > 0) return this.#connection?.negotiation.remote === from
    if (this.#connection?.negotiation.remote !== undefined && from > 0 || !this.#connection) {
      if (Date.now() - this.#tag < FLOOD_MS) return false
      if (this.state === 'seen') {
        if (this.host.crowded) {
          this.relay('answer', { to: from, full: true })
          return false
        }
        this.#become('connecting')
      }
      this.#interrupt()
      await this.#build(true)
    }
    const negotiation = this.#connection?.negotiation
    if (!negotiation) return false
    negotiation.remote = this.#newest = from
    return true
  }

  async #build (wait: boolean): Promise<void> {
    this.#drop()
    const generation = this.#generation
    const pc = await this.host.connection()
    if (generation !== this.#generation || this.idle) return pc.close()
    this.#tag = Math.max(this.#tag + 1, Date.now())
    const negotiation = new Negotiation(pc, this, this.#tag, wait)
    // Both sides create the main channel with the same number before the first offer. So this channel needs no further
    // negotiation.
    const main = pc.createDataChannel('peerpigeon', { negotiated: true, id: 0 })
    const connection: Connection = { pc, negotiation, main }
    let channels = 0
    const held = { bytes: 0 }
    this.#connection = connection
    this.#listen(main, MAIN, held)
    main.onopen = pc.onconnectionstatechange = () => this.#settle(connection)
    main.onclose = () => { if (connection === this.#connection) this.#again() }
    pc.ondatachannel = ({ channel }) => {
      if (++channels > MAX_CHANNELS) channel.close()
      else this.#listen(channel, channel.label, held)
    }
    this.#lane(MAIN)
    for (const [name, lane] of this.#lanes) this.#attach(connection, name, lane)
    this.host.made(this, pc)
    this.#later(CONNECT_MS, () => this.#failed(NO_PATH()))
  }

  /** Gives a lane its data channel. Each side opens the channels on which it sends, so two sides never open the same channel. */
  #attach (connection: Connection, name: string, lane: Lane): void {
    lane.attach(name === MAIN ? connection.main : connection.pc.createDataChannel(name, this.host.channelOptions(name) as RTCDataChannelInit))
  }

  #listen (channel: RTCDataChannel, name: string, held: { bytes: number }): void {
    const unpack = unpacker(this.host.options.maxMessageBytes, held)
    let reports = 0
    channel.binaryType = 'arraybuffer'
    channel.onmessage = ({ data }) => {
      if (data.byteLength === 1 && this.#heard(data)) return
      try {
        const taken = unpack(data)
        if (taken) this.host.arrived(this, name, taken.value)
      } catch (cause) {
        if (++reports <= MAX_REPORTS) this.host.broken(cause instanceof PigeonError ? cause : new PigeonError('protocol', 'unreadable', { cause }), this)
      }
    }
  }

  #heard (data: ArrayBuffer): boolean {
    const [kind] = new Uint8Array(data)
    if (kind === PING) this.#control(PONG)
    if (kind === PONG) this.#pongs.splice(0).forEach(pong => pong())
    if (kind === BYE) this.#rest(0, true)
    return kind! >= PING
  }

  /** Closes the connection and returns the link to the state 'seen'. `told` is true if the other side has closed the link. */
  #rest (lingerMs: number, told = false): void {
    this.#drop(lingerMs)
    this.#failures = 0
    this.#lanes.forEach(lane => lane.fail(this.gone()))
    if (told) this.declined = true
    if (this.state !== 'gone') this.#become('seen')
  }

  #control (kind: number): void {
    const main = this.#connection?.main
    // If the other side sends many PINGs and reads nothing, the answers must not accumulate.
    if (main?.readyState === 'open' && main.bufferedAmount < CONTROL_BYTES) main.send(new Uint8Array([kind]))
  }

  /** Updates the state of the link after a change of its connection. */
  #settle (connection: Connection): void {
    if (connection !== this.#connection) return
    const { pc: { connectionState }, main } = connection
    if (connectionState === 'connected' && main.readyState === 'open') {
      this.#failures = 0
      this.#later(0)
      this.#become('open')
    } else if (connectionState === 'disconnected' && this.state === 'open') {
      this.#become('interrupted')
      this.#later(RESTART_MS, () => this.#restart())
    } else if (connectionState === 'failed') {
      this.#interrupt()
      if (this.state === 'interrupted') this.#restart()
      else this.#failed(NO_PATH())
    }
  }

  /** Restarts ICE, which looks for another path for the same connection. */
  #restart (): void {
    // The polite side waits a moment, so that the two sides rarely offer at the same time.
    this.#later(this.polite ? 1000 : 0, async () => {
      const { pc } = this
      this.#later(REBUILD_MS + pause(0, 2000, 2000), () => this.#again())
      if (!pc || !this.host.online) return
      await this.host.renew(pc)
      if (pc === this.pc) pc.restartIce()
    })
  }

  fault (cause: unknown): void {
    this.#failed(new PigeonError('negotiation', String(cause), { cause }))
  }

  #failed (error: PigeonError): void {
    if (this.idle) return
    this.host.broken(error, this)
    this.#interrupt()
    this.#later(pause(this.#failures, 1000, 30_000), () => this.#again())
  }

  #interrupt (): void {
    if (this.state === 'open') this.#become('interrupted')
  }

  /** Replaces the connection. If the hub is unreachable, the link waits for the hub, because the new connection needs it for signals. */
  #again (): void {
    if (this.idle) return
    this.#interrupt()
    if (!this.host.online) return this.#later(1000, () => this.#again())
    this.#failures++
    // The connection may have been replaced meanwhile, because of an offer of the other side.
    const last = this.#connection
    this.#enqueue(() => last === this.#connection ? this.#build(false) : undefined)
  }

  #become (state: LinkState): void {
    if (this.state === state) return
    this.state = state
    this.host.linkChanged(this)
  }

  #later (ms: number, act?: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = act && setTimeout(act, ms)
  }

  #enqueue (task: () => void | Promise<void>): void {
    this.#signals = this.#signals.then(task).catch(cause => this.fault(cause))
  }

  #drop (lingerMs = 0): void {
    this.#generation++
    this.#later(0)
    const connection = this.#connection
    this.#connection = undefined
    this.#pongs = []
    if (!connection) return
    const { pc, negotiation } = connection
    negotiation.stop()
    if (lingerMs) setTimeout(() => pc.close(), lingerMs)
    else pc.close()
  }
}
