// A fake hub, fake WebSockets and RTCPeerConnections, and a clock that moves only when a test moves it.
import { mock } from 'node:test'
import { join, type Options, type Room } from '../src/index.js'

/** Lets all pending promises settle, without moving the clock. */
export async function settle (): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await new Promise(resolve => setImmediate(resolve))
}

/** Moves the clock in small steps, and lets pending promises settle after each step. */
export async function pass (ms: number, step = 100): Promise<void> {
  for (let left = ms; left > 0; left -= step) {
    mock.timers.tick(Math.min(left, step))
    await settle()
  }
}

/** Stops the clock, and makes Math.random() return `random`. */
export function still (random = 0.5): void {
  mock.timers.reset()
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_700_000_000_000 })
  mock.method(Math, 'random', () => random)
  FakeSocket.all = []
  FakeConnection.all = []
  FakeConnection.severed = false
}

export class FakeSocket {
  static all: FakeSocket[] = []
  /** Called with each new WebSocket. */
  static opened: (socket: FakeSocket) => void = () => {}
  readonly url: URL
  readyState = 0
  sent: any[] = []
  onopen: (() => void) | null = null
  onmessage: ((event: { data: string }) => void) | null = null
  onclose: ((event: { code: number, reason: string }) => void) | null = null
  /** Called with each message that the client sends. */
  heard: (message: any) => void = () => {}

  constructor (url: URL | string, readonly protocols: string | string[]) {
    this.url = new URL(url)
    FakeSocket.all.push(this)
    queueMicrotask(() => { if (this.readyState === 0) FakeSocket.opened(this) })
  }

  static get last (): FakeSocket {
    return FakeSocket.all.at(-1)!
  }

  get id (): string {
    return this.url.searchParams.get('peerId')!
  }

  /** Acts as a hub that accepts the connection. */
  welcome (data: object = {}): void {
    this.readyState = 1
    this.onopen?.()
    this.say('connected', { peerId: this.id, ...data })
  }

  say (type: string, data: object, more: object = {}): void {
    this.onmessage?.({ data: JSON.stringify({ type, data, networkName: 'lobby', ...more }) })
  }

  /** Ends the connection, as a hub or a network failure does. */
  end (code = 1006, reason = ''): void {
    if (this.readyState === 3) return
    this.readyState = 3
    this.onclose?.({ code, reason })
  }

  /** Acts as a hub that refuses the connection after the upgrade. */
  refuse (code: number, reason = ''): void {
    this.readyState = 1
    this.onopen?.()
    this.end(code, reason)
  }

  send (text: string): void {
    const message = JSON.parse(text)
    this.sent.push(message)
    this.heard(message)
  }

  close (): void {
    this.readyState = 3
    this.heard({ type: 'closed' })
    queueMicrotask(() => this.onclose?.({ code: 1000, reason: '' }))
  }
}

/** A hub that lets peers discover each other and forwards their signals. */
export class FakeHub {
  readonly members = new Map<FakeSocket, any>()
  /** Signals that the hub has forwarded. */
  readonly signals: any[] = []
  /** The additional data of `connected`. A hub before 2.1 sends neither `session` nor the end of the roster. */
  hello: { session?: number } = { session: 1_700_000_000_000 }
  /** Whether the hub delays the end of the roster. */
  slow = false
  /** The close code with which the hub refuses connections. 0 means that it accepts them. */
  refuses = 0
  /** Whether the hub accepts connections. */
  up = true
  /** The ids of members that the hub does not name before a request for more. */
  unnamed: string[] = []
  /** Returns whether the hub loses a signal. */
  loses: (signal: any) => boolean = () => false
  /** Returns whether the hub holds a signal back until `deliver` is called. */
  delays: (signal: any) => boolean = () => false
  #delayed: (() => void)[] = []

  constructor () {
    FakeSocket.opened = socket => {
      if (this.refuses) return socket.refuse(this.refuses)
      if (!this.up) return socket.end()
      socket.heard = message => queueMicrotask(() => this.#hear(socket, message))
      socket.welcome(this.hello)
    }
  }

  /** Joins a room at this hub. */
  room (options: Options<any> = {}): Room<any> {
    return join('ws://hub', 'lobby', {
      WebSocket: FakeSocket as any, RTCPeerConnection: FakeConnection as any, ...options
    })
  }

  socket (room: Room<any>): FakeSocket {
    return [...this.members.keys()].find(({ id }) => id === room.id)!
  }

  /** Ends all connections, as a crash does. */
  crash (): void {
    this.up = false
    const members = [...this.members.keys()]
    this.members.clear()
    for (const socket of members) socket.end()
  }

  /** Forwards the signals that were held back. */
  deliver (): void {
    this.#delayed.splice(0).forEach(deliver => deliver())
  }

  /** Removes a member that has not sent a goodbye. */
  lose (socket: FakeSocket, reason = 'connection-lost', code = 1006): void {
    if (!this.members.delete(socket)) return
    for (const other of this.members.keys()) other.say('peer-disconnected', { peerId: socket.id, reason, closeCode: code })
  }

  #hear (socket: FakeSocket, message: any): void {
    const { type, data, targetPeerId, id } = message
    const others = [...this.members].filter(([other]) => other !== socket)
    if (type === 'ping') socket.say('pong', {})
    else if (type === 'closed') this.lose(socket)
    else if (type === 'goodbye') {
      if (this.members.delete(socket)) for (const [other] of others) other.say('goodbye', {}, { fromPeerId: socket.id })
    } else if (type === 'discover') {
      const page = this.unnamed.splice(0, data.limit ?? 2)
      for (const peerId of page) socket.say('peer-discovered', { peerId, isHub: false })
      socket.say('discovered', { count: page.length, more: this.unnamed.length > 0 })
    } else if (type === 'announce') {
      const known = this.members.has(socket)
      this.members.set(socket, data)
      for (const [other, told] of others) {
        other.say('peer-discovered', { ...data, peerId: socket.id, isHub: false })
        if (!known || !message.ack || !this.hello.session) socket.say('peer-discovered', { ...told, peerId: other.id, isHub: false })
      }
      if (message.ack && this.hello.session && !this.slow) socket.say('announced', { count: others.length })
    } else {
      const target = others.find(([other]) => other.id === targetPeerId)?.[0]
      if (id) socket.say('receipt', { id, outcome: target ? 'delivered' : 'peer-not-found', targetPeerId })
      if (!target || this.loses(message)) return
      const deliver = () => {
        this.signals.push(message)
        target.say(type, data, { fromPeerId: socket.id })
      }
      if (this.delays(message)) this.#delayed.push(deliver)
      else deliver()
    }
  }
}

class FakeChannel extends EventTarget {
  readyState = 'connecting'
  bufferedAmount = 0
  bufferedAmountLowThreshold = 0
  onbufferedamountlow: (() => void) | null = null
  binaryType = 'blob'
  onopen: (() => void) | null = null
  onclose: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  other: FakeChannel | undefined
  /** Whether sent data stays in the transport's buffer. */
  static stuck = false

  constructor (readonly label: string, readonly negotiated: boolean) {
    super()
  }

  open (other: FakeChannel): void {
    if (this.readyState !== 'connecting') return
    this.other = other
    this.readyState = 'open'
    this.onopen?.()
    this.dispatchEvent(new Event('open'))
  }

  send (data: string | Uint8Array): void {
    if (this.readyState !== 'open') throw new Error('InvalidStateError')
    if (FakeChannel.stuck) {
      this.bufferedAmount += data.length
      return
    }
    const copy = typeof data === 'string' ? data : data.slice().buffer
    const other = this.other
    queueMicrotask(() => { if (other?.readyState === 'open' && !FakeConnection.severed) other.onmessage?.({ data: copy }) })
  }

  close (): void {
    if (this.readyState === 'closed') return
    this.readyState = 'closed'
    queueMicrotask(() => this.onclose?.())
    if (!FakeConnection.severed) this.other?.close()
  }
}

/**
 * The parts of an RTCPeerConnection that links depend on. The `sdp` of a description contains the number of its connection
 * and a number that counts the descriptions of this connection.
 */
export class FakeConnection {
  static all: FakeConnection[] = []
  /** Whether the network drops every packet. */
  static severed = false
  signalingState = 'stable'
  connectionState = 'new'
  localDescription: { type: string, sdp: string } | null = null
  remote: FakeConnection | undefined
  channels: FakeChannel[] = []
  transceivers: any[] = []
  restarts = 0
  candidates: any[] = []
  onnegotiationneeded: (() => void) | null = null
  onicecandidate: ((event: any) => void) | null = null
  onconnectionstatechange: (() => void) | null = null
  ondatachannel: ((event: any) => void) | null = null
  #needed = false
  #turn = 0

  constructor (public configuration: any) {
    FakeConnection.all.push(this)
  }

  static get open (): FakeConnection[] {
    return FakeConnection.all.filter(pc => pc.connectionState !== 'closed')
  }

  createDataChannel (label: string, { negotiated = false } = {}): any {
    const channel = new FakeChannel(label, negotiated)
    this.channels.push(channel)
    if (this.channels.length === 1) this.#need()
    this.#wire()
    return channel
  }

  addTransceiver (track: any, init: any): any {
    const transceiver = { track, init, sender: { replaceTrack: async (next: any) => { transceiver.track = next } }, stopped: false, stop: () => { transceiver.stopped = true; this.#need() } }
    this.transceivers.push(transceiver)
    this.#need()
    return transceiver
  }

  setConfiguration (configuration: any): void {
    this.configuration = configuration
  }

  restartIce (): void {
    this.restarts++
    this.#need()
  }

  async setLocalDescription (): Promise<void> {
    if (this.signalingState === 'closed') return new Promise(() => {})
    const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer'
    this.localDescription = { type, sdp: `${FakeConnection.all.indexOf(this)} ${++this.#turn}` }
    this.#needed = false
    this.#state(type === 'offer' ? 'have-local-offer' : 'stable')
    queueMicrotask(() => this.onicecandidate?.({ candidate: { toJSON: () => ({ candidate: `candidate of ${this.localDescription?.sdp}`, sdpMid: '0' }) } }))
    if (type === 'answer') this.#connect()
  }

  async setRemoteDescription ({ type, sdp }: { type: string, sdp: string }): Promise<void> {
    await undefined
    if (this.signalingState === 'closed') return new Promise(() => {})
    if (type === 'answer' && this.signalingState !== 'have-local-offer') throw new Error(`an answer in ${this.signalingState}`)
    // This side withdraws its own offer, so the changes in that offer must still be negotiated.
    if (type === 'offer' && this.signalingState === 'have-local-offer') this.#needed = true
    this.remote = FakeConnection.all[Number(sdp.split(' ')[0])]
    this.#state(type === 'offer' ? 'have-remote-offer' : 'stable')
    if (type === 'answer') this.#connect()
  }

  async addIceCandidate (candidate: any): Promise<void> {
    if (!this.remote) throw new Error('no remote description')
    this.candidates.push(candidate.candidate)
  }

  /** Changes the state of the connection, as the loss of its path does. */
  become (state: string): void {
    if (this.connectionState === 'closed') return
    this.connectionState = state
    this.onconnectionstatechange?.()
  }

  async getStats (): Promise<Map<string, any>> {
    return new Map()
  }

  close (): void {
    this.connectionState = this.signalingState = 'closed'
    this.channels.forEach(channel => channel.close())
  }

  #need (): void {
    this.#needed = true
    setImmediate(() => { if (this.#needed && this.signalingState === 'stable') this.onnegotiationneeded?.() })
  }

  #state (state: string): void {
    this.signalingState = state
    if (state === 'stable' && this.#needed) this.#need()
  }

  #connect (): void {
    const { remote } = this
    setImmediate(() => {
      if (FakeConnection.severed || remote?.remote !== this || this.signalingState !== 'stable' || remote.signalingState !== 'stable') return
      for (const pc of [this, remote]) pc.become('connected')
      this.#wire()
    })
  }

  #wire (): void {
    const { remote } = this
    if (this.connectionState !== 'connected' || !remote) return
    for (const [from, to] of [[this, remote], [remote, this]] as const) {
      for (const channel of from.channels) {
        if (channel.readyState !== 'connecting') continue
        if (channel.negotiated) {
          const twin = to.channels.find(({ negotiated }) => negotiated)
          if (twin) setImmediate(() => { channel.open(twin); twin.open(channel) })
        } else {
          const twin = new FakeChannel(channel.label, true)
          setImmediate(() => { to.ondatachannel?.({ channel: twin }); twin.open(channel); channel.open(twin) })
        }
      }
    }
  }
}

export { FakeChannel }

/** Records the events of a room. */
export function events (room: Room<any>): string[] {
  const log: string[] = []
  const name = (peer: { data: any, id: string }) => peer.data.name ?? peer.id.slice(0, 4)
  room.on('join', peer => log.push(`join ${name(peer)}`))
  room.on('leave', (peer, reason) => log.push(`leave ${name(peer)} ${reason}`))
  room.on('link', (peer, state) => log.push(`link ${name(peer)} ${state}`))
  room.on('change', (peer, before) => log.push(`change ${before.name} ${name(peer)}`))
  room.on('message', (value, peer) => log.push(`message ${JSON.stringify(value)} ${name(peer)}`))
  room.on('hub', state => log.push(`hub ${state.is}`))
  room.on('error', error => log.push(`error ${error.code}`))
  return log
}
