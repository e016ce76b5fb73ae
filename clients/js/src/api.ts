// The public types, all of them. What they promise is tested; what is not here is not public.
import type { PigeonError } from './errors.js'
import type { Off } from './emitter.js'

/** 40 hexadecimal digits: one page in one room. */
export type PeerId = string

/** What JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

/** What can be sent. Bytes arrive as an ArrayBuffer, all else as what JSON makes of it. */
export type Sendable = Json | ArrayBuffer | ArrayBufferView

/** Something with events. */
export interface Events<E extends { [K in keyof E]: unknown[] }> {
  /** Calls `listener` at each event of this name, until the function that is returned is called. */
  on<K extends keyof E> (name: K, listener: (...args: E[K]) => void): Off
  /** The next event of this name. */
  once<K extends keyof E> (name: K): Promise<E[K]>
}

/** How to join. Everything is optional. */
export interface Options<D extends object = Record<string, Json>> {
  /** What others see of you, as JSON: a name, a colour. At most 16 KiB. */
  data?: D
  /** AUTH_TOKEN of the hub. A function is asked at each connect, so that a token can expire. */
  token?: string | (() => string | Promise<string>)
  /** STUN and TURN servers. A function is asked for each new link, so that credentials can expire. Default: those that the hub names, if it does. */
  iceServers?: RTCIceServer[] | (() => RTCIceServer[] | Promise<RTCIceServer[]>)
  /** Further configuration of each RTCPeerConnection, such as `iceTransportPolicy: 'relay'`. */
  rtc?: Omit<RTCConfiguration, 'iceServers'>
  /** Whom to connect to: everybody (default), or whom `peer.connect()` names. Others may connect to you in either case. */
  link?: 'all' | 'on-demand'
  /** Links to open by yourself, at most. Further peers stay 'seen'. Others may open links to you, up to twice as many in all. Default 32. */
  maxLinks?: number
  /** In large rooms: discover the K members whose ids are closest, and a few at random. */
  discover?: { closest: number }
  /** The longest message to send or receive, in bytes. Default 16 MiB. */
  maxMessageBytes?: number
  /** Bytes that may wait for one peer on one channel. Beyond it send() fails with 'queue-full'. Default 32 MiB. */
  maxQueueBytes?: number
  /** Pauses between attempts to reach the hub grow from `minMs` (default 500) to `maxMs` (default 15,000). */
  retry?: { minMs?: number, maxMs?: number }
  /** Seals what is sent by way of the hub to connect, so that the hub cannot join in: `passphrase` of extras. */
  seal?: (network: string) => Sealer
  /** Abort is leave(). */
  signal?: AbortSignal
  /** Where the runtime has none, or to put another in its place. */
  WebSocket?: typeof WebSocket
  RTCPeerConnection?: typeof RTCPeerConnection
}

/** Seals signals, so that only who can open them can connect. `context` is what the hub says of a signal: sealed in another one, it does not open. */
export interface Sealer {
  seal (signal: object, context: string): Promise<{ sealed: string }>
  /** Rejects what was not sealed by one's equal. */
  open (data: any, context: string): Promise<object>
}

/** The connection to the hub. Links to peers do not depend on it. */
export type HubState =
  | { readonly is: 'connecting' }
  | { readonly is: 'online' }
  /** Not connected; the next attempt is at `retryAt` (as Date.now()). */
  | { readonly is: 'waiting', readonly retryAt: number, readonly because: PigeonError }
  /** Over: left, or refused for good. */
  | { readonly is: 'closed', readonly because?: PigeonError }

/**
 * The link to a peer. 'seen': in the room, not connected. 'interrupted': was open, and is being mended; what is sent meanwhile waits.
 * 'gone': the peer has left.
 */
export type LinkState = 'seen' | 'connecting' | 'open' | 'interrupted' | 'gone'

/** Why a peer is gone: it said goodbye, it was lost, or another page has taken its id (a reload). */
export type GoneReason = 'left' | 'lost' | 'replaced'

/** Who a message is for. */
export type Target<D extends object> = Peer<D> | Iterable<Peer<D>>

/** What became of a message: handed to the transport of each of `to`; not to those of `failed`. */
export interface Sent<D extends object> {
  readonly to: readonly Peer<D>[]
  readonly failed: ReadonlyMap<Peer<D>, PigeonError>
}

export type RoomEvents<D extends object> = {
  /** Each change of `room.hub`. */
  hub: [state: HubState]
  /** For each peer strictly in turns: join, leave, join. */
  join: [peer: Peer<D>]
  leave: [peer: Peer<D>, reason: GoneReason]
  /** A peer has new data. */
  change: [peer: Peer<D>, before: D]
  /** Each change of `peer.state`, but for 'gone'. */
  link: [peer: Peer<D>, state: LinkState]
  message: [value: any, from: Peer<D>]
  /** A new RTCPeerConnection to a peer, before it is negotiated: what is to travel on each is added here. `publish` of extras does. */
  connection: [pc: RTCPeerConnection, peer: Peer<D>]
  /** What no promise could say. Without a listener it goes to the console. */
  error: [error: PigeonError]
}

/** A room of peers. */
export interface Room<D extends object = Record<string, Json>> extends Events<RoomEvents<D>> {
  /** Who you are. Another id only where this one was taken by somebody else. */
  readonly id: PeerId
  readonly network: string
  readonly hub: HubState
  /** The others. It does not shrink while the hub is away. */
  readonly peers: ReadonlyMap<PeerId, Peer<D>>
  /** What others see of you. */
  readonly data: D
  /** When everybody who was there is in `peers`. Rejects when that can never be. */
  readonly ready: Promise<void>
  /** Changes what others see of you. Calls within 100 ms are one. */
  update (data: D): void
  /**
   * Sends to all peers, or to some. In order for each peer, any size up to `maxMessageBytes`; waits for links that are being made.
   * Resolves when every transport has taken it, so `await` it to send no faster than the network.
   */
  send (value: Sendable, to?: Target<D>): Promise<Sent<D>>
  /** A stream of messages of its own: what is large on one does not hold up another. Names are equal on both sides. */
  channel (name: string, options?: ChannelOptions): Channel<D>
  /** Tries at once to reach the hub, if it is waiting. */
  retry (): void
  /** Says goodbye and closes everything. No event afterwards. */
  leave (): void
}

/** Another page in the room. The same object for as long as it is there, over all reconnects. */
export interface Peer<D extends object = any> {
  readonly id: PeerId
  readonly data: D
  readonly state: LinkState
  /** Connects, if that is not so yet. Resolves when it is open. */
  connect (): Promise<void>
  /** Closes the link. The peer stays in the room as 'seen'. */
  disconnect (): void
  send (value: Sendable): Promise<void>
  /** The connection as it is now, for what is not here. Its negotiation is not yours. */
  readonly pc: RTCPeerConnection | undefined
}

export interface ChannelOptions {
  /** Whether messages arrive in the order in which they were sent. Default true. */
  ordered?: boolean
  /** How often a lost packet is sent again. Default: until it arrives. With it messages are at most 16 KiB. */
  maxRetransmits?: number
}

/** Messages of one kind. */
export interface Channel<D extends object> extends Events<{ message: [value: any, from: Peer<D>] }> {
  readonly name: string
  send (value: Sendable, to?: Target<D>): Promise<Sent<D>>
}

/** A message of the hub, or to it: docs/protocol.md. */
export interface HubMessage {
  type: string
  data?: any
  fromPeerId?: string
  targetPeerId?: string
  networkName?: string
  id?: string
  ack?: boolean
}
