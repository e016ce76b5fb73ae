// All public types. Names that are not in this file are private. Each promise in its comments has a test.
import type { PigeonError } from './errors.js'
import type { Off } from './emitter.js'

/** The id of a page in a room: 40 hexadecimal digits. */
export type PeerId = string

/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

/** A value that can be sent. Bytes arrive as an ArrayBuffer. Any other value is sent as JSON, and arrives as JSON.parse() returns it. */
export type Sendable = Json | ArrayBuffer | ArrayBufferView

/** An object with events. */
export interface Events<E extends { [K in keyof E]: unknown[] }> {
  /** Calls `listener` at each event of this name, until the returned function is called. */
  on<K extends keyof E> (name: K, listener: (...args: E[K]) => void): Off
  /** Resolves with the next event of this name. */
  once<K extends keyof E> (name: K): Promise<E[K]>
}

/** Options of join(), all optional. */
export interface Options<D extends object = Record<string, Json>> {
  /** Data that the other members see, as JSON: a name, a colour. At most 16 KiB. */
  data?: D
  /** The hub's AUTH_TOKEN, or a JWT. A function is called for each connection, and shortly before a JWT expires, so that the page stays connected. */
  token?: string | (() => string | Promise<string>)
  /** Your id: 40 hexadecimal digits, or an empty string to use the id in the JWT's `sub`. If another page takes this id, the room is closed with 'id-in-use'. Default: a random id, which stays the same when the page is reloaded. */
  id?: PeerId
  /** STUN and TURN servers. A function is called for each new link and each ICE restart, so that it can return fresh credentials. Default: the servers that the hub sends, if any. */
  iceServers?: RTCIceServer[] | (() => RTCIceServer[] | Promise<RTCIceServer[]>)
  /** Further configuration of each RTCPeerConnection, such as `iceTransportPolicy: 'relay'`. */
  rtc?: Omit<RTCConfiguration, 'iceServers'>
  /** Peers to which this page connects: all (default), or only those on which you call `peer.connect()`. In both cases, other peers may connect to this page. */
  link?: 'all' | 'on-demand'
  /** Maximum number of links that this page opens by itself. Further peers stay 'seen'. Other peers can open more links to this page, until it has twice this number of links. Default 32. */
  maxLinks?: number
  /** For large rooms: discover only this number of members (those with the ids closest to yours) and a few random members. Call `more()` to discover others. */
  discover?: { closest: number }
  /** Maximum size of a message, sent or received, in bytes. Default 16 MiB. */
  maxMessageBytes?: number
  /** Maximum number of bytes queued for one peer on one channel. At the limit, send() fails with 'queue-full'. Default 32 MiB. */
  maxQueueBytes?: number
  /** Bounds of the pauses between attempts to reach the hub. The pauses grow from `minMs` (default 500) to `maxMs` (default 15,000). */
  retry?: { minMs?: number, maxMs?: number }
  /** Encrypts the signals that the hub relays, so that the hub cannot read or change them: see `passphrase` of extras. */
  seal?: (network: string) => Sealer
  /** Aborting this signal calls leave(). */
  signal?: AbortSignal
  /** A WebSocket implementation to use instead of the runtime's own. */
  WebSocket?: typeof WebSocket
  RTCPeerConnection?: typeof RTCPeerConnection
}

/** Encrypts (seals) and decrypts (opens) signals, so that only peers that can open each other's signals can connect. `context` contains the type, the sender and the target of a signal, as the hub reports them. A signal that was sealed with another context cannot be opened. */
export interface Sealer {
  seal (signal: object, context: string): Promise<{ sealed: string }>
  /** Decrypts a signal. The promise rejects if the signal was sealed with another key or another context. */
  open (data: any, context: string): Promise<object>
}

/** The connection to the hub. Links to peers do not depend on it. */
export type HubState =
  | { readonly is: 'connecting' }
  | { readonly is: 'online' }
  /** Not connected. The next attempt is at the time `retryAt`, in milliseconds like Date.now(). */
  | { readonly is: 'waiting', readonly retryAt: number, readonly because: PigeonError }
  /** Closed for good: you have left the room (the code of `because` is 'left'), or the hub has refused the page with a final error. */
  | { readonly is: 'closed', readonly because: PigeonError }

/**
 * The state of the link to a peer. 'seen': the peer is in the room, without a link. 'interrupted': the link was open and
 * is being restored; messages sent meanwhile wait. 'gone': the peer has left.
 */
export type LinkState = 'seen' | 'connecting' | 'open' | 'interrupted' | 'gone'

/**
 * Why a peer is gone. 'left': it left the room or closed its page. 'lost': its connection was lost. 'replaced': another
 * page has its id, for example after a reload. 'kicked': an operator removed it.
 */
export type GoneReason = 'left' | 'lost' | 'replaced' | 'kicked'

/** The recipients of a message. */
export type Target<D extends object> = Peer<D> | Iterable<Peer<D>>

/** The result of send(). `to` has the peers whose transport has accepted the message, and `failed` the other recipients. */
export interface Sent<D extends object> {
  readonly to: readonly Peer<D>[]
  readonly failed: ReadonlyMap<Peer<D>, PigeonError>
}

export type RoomEvents<D extends object> = {
  /** Emitted at each change of `room.hub`. */
  hub: [state: HubState]
  /** For each peer, `join` and `leave` alternate. */
  join: [peer: Peer<D>]
  leave: [peer: Peer<D>, reason: GoneReason]
  /** A peer has new data. */
  change: [peer: Peer<D>, before: D]
  /** Emitted at each change of `peer.state`, except to 'gone'. */
  link: [peer: Peer<D>, state: LinkState]
  message: [value: any, from: Peer<D>]
  /** Emitted for each new RTCPeerConnection to a peer, before its negotiation. A listener can add tracks or channels to each connection, as `publish` of extras does. */
  connection: [pc: RTCPeerConnection, peer: Peer<D>]
  /** An error that no promise reports. Without a listener, it is logged to the console. */
  error: [error: PigeonError]
}

/** A room of peers. */
export interface Room<D extends object = Record<string, Json>> extends Events<RoomEvents<D>> {
  /** Your id. The id changes only if another page takes it over. */
  readonly id: PeerId
  readonly network: string
  readonly hub: HubState
  /** The other members. The members remain in this map while the hub is unreachable. */
  readonly peers: ReadonlyMap<PeerId, Peer<D>>
  /** Your data, which the other members see. */
  readonly data: D
  /** Resolves when `peers` has all members that were in the room when you joined. Rejects if you cannot join. */
  readonly ready: Promise<void>
  /** Changes your data. Of several calls within 100 ms, only the last data is sent. */
  update (data: D): void
  /**
   * Sends a message to all peers, or to the peers in `to`. Each peer receives its messages in order. A message can have
   * any size up to `maxMessageBytes`. It waits while a link is not open. Resolves when each transport has accepted the
   * message, or the message has failed. So a page that awaits the promise sends no faster than the network.
   */
  send (value: Sendable, to?: Target<D>): Promise<Sent<D>>
  /** A separate stream of messages: a large message on one channel does not delay another channel. Both sides use the same name. */
  channel (name: string, options?: ChannelOptions): Channel<D>
  /**
   * Discovers further members, if the option `discover` or the hub bounds discovery: at most `limit` (1 to 64), by default
   * as many as at the join. Each is a `join` event. Resolves after these events, with whether there are still more
   * members. Waits while the hub is unreachable. Rejects if the hub refuses, for example because you know 1,024 members.
   */
  more (limit?: number): Promise<boolean>
  /** Connects to the hub at once, instead of at `retryAt`. */
  retry (): void
  /** Leaves the room and closes all connections. No events follow. */
  leave (): void
}

/** Another page in the room. A peer is the same object until it leaves, also when its link or connection is restored. */
export interface Peer<D extends object = any> {
  readonly id: PeerId
  readonly data: D
  readonly state: LinkState
  /** Opens the link, unless it is open already. Resolves when the link is open. */
  connect (): Promise<void>
  /** Closes the link. The peer stays in the room as 'seen'. */
  disconnect (): void
  send (value: Sendable): Promise<void>
  /** The current connection, for features that this API lacks. Do not call its methods for offers and answers. */
  readonly pc: RTCPeerConnection | undefined
}

export interface ChannelOptions {
  /** Whether messages arrive in the order in which they were sent. Default true. */
  ordered?: boolean
  /** Maximum number of retransmissions of a lost packet. Default: no maximum. With this option, messages are at most 16 KiB. */
  maxRetransmits?: number
}

/** A channel: a separate stream of messages. */
export interface Channel<D extends object> extends Events<{ message: [value: any, from: Peer<D>] }> {
  readonly name: string
  send (value: Sendable, to?: Target<D>): Promise<Sent<D>>
}

/** A message from or to the hub: see docs/protocol.md. */
export interface HubMessage {
  type: string
  data?: any
  fromPeerId?: string
  targetPeerId?: string
  networkName?: string
  id?: string
  ack?: boolean
}
