/** The kinds of errors, for programs. */
export type ErrorCode = "hub-unreachable" | "hub-full" | "hub-leaving" | "unauthorized" | "forbidden" | "kicked" | "bad-url" | "id-in-use" | "protocol" | "unsupported" | "peer-gone" | "ice-failed" | "negotiation" | "passphrase" | "too-large" | "queue-full" | "not-serializable" | "refused" | "timeout" | "left";
/** Every error of this client. `message` has the code and what happened. `hint` is the URL of the section that says what to do. */
export declare class PigeonError extends Error {
	readonly name = "PigeonError";
	/** For programs; see {@link ErrorCode}. */
	readonly code: ErrorCode;
	/** Whether the error is final: the client makes no further attempt. */
	readonly final: boolean;
	/** URL of the section that says what to do. */
	readonly hint: string;
	/** The peer that the error concerns, if any. */
	readonly peer?: Peer;
	constructor(code: ErrorCode, detail: string | number, more?: {
		final?: boolean;
		cause?: unknown;
	});
}
/** Ends a subscription. */
export type Off = () => void;
/** 40 hexadecimal digits: one page in one room. */
export type PeerId = string;
/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | {
	readonly [key: string]: Json | undefined;
};
/** A value that can be sent. Bytes arrive as an ArrayBuffer, every other value as JSON preserves it. */
export type Sendable = Json | ArrayBuffer | ArrayBufferView;
/** An object with events. */
export interface Events<E extends {
	[K in keyof E]: unknown[];
}> {
	/** Calls `listener` at each event of this name, until the returned function is called. */
	on<K extends keyof E>(name: K, listener: (...args: E[K]) => void): Off;
	/** Resolves with the next event of this name. */
	once<K extends keyof E>(name: K): Promise<E[K]>;
}
/** Options of join(), all optional. */
export interface Options<D extends object = Record<string, Json>> {
	/** Data that the other members see, as JSON: a name, a colour. At most 16 KiB. */
	data?: D;
	/** The hub's AUTH_TOKEN, or a JWT. A function is called for each connection, and shortly before a JWT expires, so that the page stays connected. */
	token?: string | (() => string | Promise<string>);
	/** Your id: 40 hexadecimal digits, or empty for that of the JWT's `sub`. Default: a random id, kept over a reload. */
	id?: PeerId;
	/** STUN and TURN servers. A function is called for each new link and each ICE restart, so that credentials can expire. Default: the hub's servers, if it names any. */
	iceServers?: RTCIceServer[] | (() => RTCIceServer[] | Promise<RTCIceServer[]>);
	/** Further configuration of each RTCPeerConnection, such as `iceTransportPolicy: 'relay'`. */
	rtc?: Omit<RTCConfiguration, "iceServers">;
	/** Peers to connect to: all (default), or those on which `peer.connect()` is called. Others may connect to you in either case. */
	link?: "all" | "on-demand";
	/** Maximum number of links that this page opens. Further peers stay 'seen'. Other peers may open links to this page, up to twice as many in all. Default 32. */
	maxLinks?: number;
	/** In large rooms: discover the K members whose ids are closest, and a few at random. */
	discover?: {
		closest: number;
	};
	/** Maximum size of a message, sent or received, in bytes. Default 16 MiB. */
	maxMessageBytes?: number;
	/** Maximum number of bytes queued for one peer on one channel. At the limit, send() fails with 'queue-full'. Default 32 MiB. */
	maxQueueBytes?: number;
	/** Pauses between attempts to reach the hub grow from `minMs` (default 500) to `maxMs` (default 15,000). */
	retry?: {
		minMs?: number;
		maxMs?: number;
	};
	/** Encrypts the signals that the hub relays, so that the hub cannot read or change them: see `passphrase` of extras. */
	seal?: (network: string) => Sealer;
	/** Aborting this signal calls leave(). */
	signal?: AbortSignal;
	/** A WebSocket implementation, if the runtime has none or to replace its own. */
	WebSocket?: typeof WebSocket;
	RTCPeerConnection?: typeof RTCPeerConnection;
}
/** Encrypts (seals) signals, so that only peers that can open them can connect. `context` is the hub's description of a signal: a signal sealed in another context does not open. */
export interface Sealer {
	seal(signal: object, context: string): Promise<{
		sealed: string;
	}>;
	/** Rejects a signal that was not sealed by an equal sealer. */
	open(data: any, context: string): Promise<object>;
}
/** The connection to the hub. Links to peers do not depend on it. */
export type HubState = {
	readonly is: "connecting";
} | {
	readonly is: "online";
}
/** Not connected; the next attempt is at `retryAt` (as Date.now()). */
 | {
	readonly is: "waiting";
	readonly retryAt: number;
	readonly because: PigeonError;
}
/** Closed for good: the room was left, or the hub refused the page finally. */
 | {
	readonly is: "closed";
	readonly because?: PigeonError;
};
/**
 * The link to a peer. 'seen': in the room, not connected. 'interrupted': the open link was lost and is being restored;
 * messages sent meanwhile wait. 'gone': the peer has left.
 */
export type LinkState = "seen" | "connecting" | "open" | "interrupted" | "gone";
/**
 * Why a peer is gone: it said goodbye or closed its page, it was lost, another page has taken its id (a reload), or an
 * operator removed it.
 */
export type GoneReason = "left" | "lost" | "replaced" | "kicked";
/** The recipients of a message. */
export type Target<D extends object> = Peer<D> | Iterable<Peer<D>>;
/** The result of a message: it was handed to the transport of each peer in `to`, and not to those in `failed`. */
export interface Sent<D extends object> {
	readonly to: readonly Peer<D>[];
	readonly failed: ReadonlyMap<Peer<D>, PigeonError>;
}
export type RoomEvents<D extends object> = {
	/** Emitted at each change of `room.hub`. */
	hub: [
		state: HubState
	];
	/** For each peer, `join` and `leave` alternate. */
	join: [
		peer: Peer<D>
	];
	leave: [
		peer: Peer<D>,
		reason: GoneReason
	];
	/** A peer has new data. */
	change: [
		peer: Peer<D>,
		before: D
	];
	/** Emitted at each change of `peer.state`, except to 'gone'. */
	link: [
		peer: Peer<D>,
		state: LinkState
	];
	message: [
		value: any,
		from: Peer<D>
	];
	/** A new RTCPeerConnection to a peer, before it is negotiated: add tracks or channels for every connection here, as `publish` of extras does. */
	connection: [
		pc: RTCPeerConnection,
		peer: Peer<D>
	];
	/** An error that no promise reports. Without a listener, it is logged to the console. */
	error: [
		error: PigeonError
	];
};
/** A room of peers. */
export interface Room<D extends object = Record<string, Json>> extends Events<RoomEvents<D>> {
	/** Your id, which changes only if another page takes it. */
	readonly id: PeerId;
	readonly network: string;
	readonly hub: HubState;
	/** The other members. They stay while the hub is unreachable. */
	readonly peers: ReadonlyMap<PeerId, Peer<D>>;
	/** Your data, which the other members see. */
	readonly data: D;
	/** Resolves when `peers` has all members that were in the room when you joined. Rejects if that is impossible. */
	readonly ready: Promise<void>;
	/** Changes your data. Calls within 100 ms are sent as one. */
	update(data: D): void;
	/**
	 * Sends to all peers, or to some. Each peer receives its messages in order. A message can have any size up to
	 * `maxMessageBytes`. It waits while a link is not open. Resolves when every transport has accepted the message:
	 * `await` it to send no faster than the network.
	 */
	send(value: Sendable, to?: Target<D>): Promise<Sent<D>>;
	/** A separate stream of messages: a large message on one channel does not delay another channel. Both sides use the same name. */
	channel(name: string, options?: ChannelOptions): Channel<D>;
	/** Connects to the hub at once, instead of at `retryAt`. */
	retry(): void;
	/** Says goodbye and closes everything. No events follow. */
	leave(): void;
}
/** Another page in the room. It stays the same object over all reconnects, until the peer leaves. */
export interface Peer<D extends object = any> {
	readonly id: PeerId;
	readonly data: D;
	readonly state: LinkState;
	/** Connects, unless the link is open. Resolves when it is open. */
	connect(): Promise<void>;
	/** Closes the link. The peer stays in the room as 'seen'. */
	disconnect(): void;
	send(value: Sendable): Promise<void>;
	/** The current connection, for functions that this API lacks. Do not negotiate on it yourself. */
	readonly pc: RTCPeerConnection | undefined;
}
export interface ChannelOptions {
	/** Whether messages arrive in the order in which they were sent. Default true. */
	ordered?: boolean;
	/** Maximum number of retransmissions of a lost packet. Default: no maximum. With this option, messages are at most 16 KiB. */
	maxRetransmits?: number;
}
/** A channel: a separate stream of messages. */
export interface Channel<D extends object> extends Events<{
	message: [
		value: any,
		from: Peer<D>
	];
}> {
	readonly name: string;
	send(value: Sendable, to?: Target<D>): Promise<Sent<D>>;
}
/**
 * Joins a network at a hub, and connects to the others there.
 *
 * `hub` is `wss://host`, or an array of hubs of one mesh. Returns at once, and does not throw for errors of the
 * network: `room.hub` is the state of the connection, and `room.ready` resolves when all members are known.
 */
export declare function join<D extends object = Record<string, Json>>(hub: string | readonly string[], network: string, options?: Options<D>): Room<D>;

export {};
