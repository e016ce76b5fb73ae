type ErrorCode = "hub-unreachable" | "hub-full" | "hub-leaving" | "unauthorized" | "forbidden" | "kicked" | "bad-url" | "id-in-use" | "protocol" | "unsupported" | "peer-gone" | "ice-failed" | "negotiation" | "passphrase" | "too-large" | "queue-full" | "not-serializable" | "refused" | "timeout" | "left";
declare class PigeonError extends Error {
	readonly name = "PigeonError";
	/** For programs; see {@link ErrorCode}. */
	readonly code: ErrorCode;
	/** Whether the error is final, so that the client makes no further attempt. */
	readonly final: boolean;
	/** URL of an explanation of the error, which says what to do. */
	readonly hint: string;
	/** The peer that the error concerns, if any. */
	readonly peer?: Peer;
	constructor(code: ErrorCode, detail: string | number, more?: {
		final?: boolean;
		cause?: unknown;
	});
}
type Off = () => void;
type PeerId = string;
type Json = null | boolean | number | string | readonly Json[] | {
	readonly [key: string]: Json | undefined;
};
type Sendable = Json | ArrayBuffer | ArrayBufferView;
interface Events<E extends {
	[K in keyof E]: unknown[];
}> {
	/** Calls `listener` at each event of this name, until the returned function is called. */
	on<K extends keyof E>(name: K, listener: (...args: E[K]) => void): Off;
	/** Resolves with the next event of this name. */
	once<K extends keyof E>(name: K): Promise<E[K]>;
}
interface Sealer {
	seal(signal: object, context: string): Promise<{
		sealed: string;
	}>;
	/** Decrypts a signal. The promise rejects if the signal was sealed with another key or another context. */
	open(data: any, context: string): Promise<object>;
}
type HubState = {
	readonly is: "connecting";
} | {
	readonly is: "online";
}
/** Not connected. The next attempt is at the time `retryAt`, in milliseconds like Date.now(). */
 | {
	readonly is: "waiting";
	readonly retryAt: number;
	readonly because: PigeonError;
}
/** Closed for good: you have left the room (the code of `because` is 'left'), or the hub has refused the page with a final error. */
 | {
	readonly is: "closed";
	readonly because: PigeonError;
};
type LinkState = "seen" | "connecting" | "open" | "interrupted" | "gone";
type GoneReason = "left" | "lost" | "replaced" | "kicked";
type Target<D extends object> = Peer<D> | Iterable<Peer<D>>;
interface Sent<D extends object> {
	readonly to: readonly Peer<D>[];
	readonly failed: ReadonlyMap<Peer<D>, PigeonError>;
}
type RoomEvents<D extends object> = {
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
	/** Emitted for each new RTCPeerConnection to a peer, before its negotiation. A listener can add tracks or channels to each connection, as `publish` of extras does. */
	connection: [
		pc: RTCPeerConnection,
		peer: Peer<D>
	];
	/** An error that no promise reports. Without a listener, it is logged to the console. */
	error: [
		error: PigeonError
	];
};
interface Room<D extends object = Record<string, Json>> extends Events<RoomEvents<D>> {
	/** Your id. The id changes only if another page takes it over. */
	readonly id: PeerId;
	readonly network: string;
	readonly hub: HubState;
	/** The other members. The members remain in this map while the hub is unreachable. */
	readonly peers: ReadonlyMap<PeerId, Peer<D>>;
	/** Your data, which the other members see. */
	readonly data: D;
	/** Resolves when `peers` has all members that were in the room when you joined. Rejects if you cannot join. */
	readonly ready: Promise<void>;
	/** Changes your data. Of several calls within 100 ms, only the last data is sent. */
	update(data: D): void;
	/**
	 * Sends a message to all peers, or to the peers in `to`. Each peer receives its messages in order. A message can have
	 * any size up to `maxMessageBytes`. It waits while a link is not open. Resolves when each transport has accepted the
	 * message, or the message has failed. So a page that awaits the promise sends no faster than the network.
	 */
	send(value: Sendable, to?: Target<D>): Promise<Sent<D>>;
	/** A separate stream of messages: a large message on one channel does not delay another channel. Both sides use the same name. */
	channel(name: string, options?: ChannelOptions): Channel<D>;
	/**
	 * Discovers further members, if the option `discover` or the hub bounds discovery: at most `limit` (1 to 64), by default
	 * as many as at the join. Each is a `join` event. Resolves after these events, with whether there are still more
	 * members. Waits while the hub is unreachable. Rejects if the hub refuses, for example because you know 1,024 members.
	 */
	more(limit?: number): Promise<boolean>;
	/** Connects to the hub at once, instead of at `retryAt`. */
	retry(): void;
	/** Leaves the room and closes all connections. No events follow. */
	leave(): void;
}
interface Peer<D extends object = any> {
	readonly id: PeerId;
	readonly data: D;
	readonly state: LinkState;
	/** Opens the link, unless it is open already. Resolves when the link is open. */
	connect(): Promise<void>;
	/** Closes the link. The peer stays in the room as 'seen'. */
	disconnect(): void;
	send(value: Sendable): Promise<void>;
	/** The current connection, for features that this API lacks. Do not call its methods for offers and answers. */
	readonly pc: RTCPeerConnection | undefined;
}
interface ChannelOptions {
	/** Whether messages arrive in the order in which they were sent. Default true. */
	ordered?: boolean;
	/** Maximum number of retransmissions of a lost packet. Default: no maximum. With this option, messages are at most 16 KiB. */
	maxRetransmits?: number;
}
interface Channel<D extends object> extends Events<{
	message: [
		value: any,
		from: Peer<D>
	];
}> {
	readonly name: string;
	send(value: Sendable, to?: Target<D>): Promise<Sent<D>>;
}
export interface PublishOptions<D extends object> {
	/** Returns whether a peer receives the media. Called for each new connection. Default: all peers receive it. */
	to?: (peer: Peer<D>) => boolean;
	/** Maximum bitrate of the video to each peer, in bits per second. Default: no maximum. */
	maxBitrate?: number;
}
export interface Publication {
	readonly stream: MediaStream;
	/** Replaces the track of the same kind, for example by the track of another camera. Needs no negotiation. */
	replace(track: MediaStreamTrack): Promise<void>;
	/** Stops sending to all peers. The tracks themselves continue. */
	stop(): void;
}
/** Sends media to all peers, including peers that connect later, until stop() is called. */
export declare function publish<D extends object>(room: Room<D>, media: MediaStream | MediaStreamTrack, { to, maxBitrate }?: PublishOptions<D>): Publication;
export type StreamEvents<D extends object> = {
	/** A peer publishes a stream. Later changes of its tracks appear in the stream object. */
	stream: [
		stream: MediaStream,
		from: Peer<D>
	];
	streamend: [
		stream: MediaStream,
		from: Peer<D>
	];
};
/** The streams that peers publish. */
export interface Streams<D extends object> extends Events<StreamEvents<D>> {
	/** Returns the streams that a peer publishes now. */
	of(peer: Peer<D>): MediaStream[];
}
/** Returns the streams that peers of a room publish. Call this function before peers connect, best right after join(). */
export declare function streams<D extends object>(room: Room<D>): Streams<D>;
/**
 * Returns a value for the option `seal`. With it, only peers with the same passphrase can connect, and the hub cannot
 * read or change their signals.
 *
 * The hub still sees the room's name, its members and their data. A peer with another passphrase causes an error with
 * the code 'passphrase'. The page needs a secure context (HTTPS, or localhost).
 */
export declare function passphrase(secret: string): (network: string) => Sealer;
export interface Route {
	/** 'host': directly in one network. 'nat': directly, through NATs. 'relay': over a TURN server. */
	path: "host" | "nat" | "relay";
	/** The round-trip time in milliseconds, once it has been measured. */
	rttMs: number | undefined;
}
/** Returns the current path to a peer, or undefined while there is no path. */
export declare function route(peer: Peer): Promise<Route | undefined>;
type Port = Pick<MessagePort, "postMessage" | "addEventListener">;
/**
 * Returns a class for the option `WebSocket` of join(). Its WebSockets run in this worker. For a SharedWorker, give its
 * `port`. The worker must call {@link serveSockets}.
 */
export declare function workerSocket(port: Worker | MessagePort): typeof WebSocket;
/**
 * Runs the WebSockets of {@link workerSocket} in this worker: `serveSockets(self)` in a Worker, or
 * `onconnect = ({ ports: [port] }) => serveSockets(port)` in a SharedWorker.
 */
export declare function serveSockets(port: Port): void;

export {};
