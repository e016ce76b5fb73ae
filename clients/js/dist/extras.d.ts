type ErrorCode = "hub-unreachable" | "hub-full" | "hub-leaving" | "unauthorized" | "bad-url" | "id-in-use" | "protocol" | "unsupported" | "peer-gone" | "ice-failed" | "negotiation" | "passphrase" | "too-large" | "queue-full" | "not-serializable" | "refused" | "timeout" | "left";
declare class PigeonError extends Error {
	readonly name = "PigeonError";
	/** For programs; see {@link ErrorCode}. */
	readonly code: ErrorCode;
	/** Whether nothing more will be tried. */
	readonly final: boolean;
	/** Address of what to do about it. */
	readonly hint: string;
	/** The peer it is about, if it is about one. */
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
	/** Calls `listener` at each event of this name, until the function that is returned is called. */
	on<K extends keyof E>(name: K, listener: (...args: E[K]) => void): Off;
	/** The next event of this name. */
	once<K extends keyof E>(name: K): Promise<E[K]>;
}
interface Sealer {
	seal(signal: object, context: string): Promise<{
		sealed: string;
	}>;
	/** Rejects what was not sealed by one's equal. */
	open(data: any, context: string): Promise<object>;
}
type HubState = {
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
/** Over: left, or refused for good. */
 | {
	readonly is: "closed";
	readonly because?: PigeonError;
};
type LinkState = "seen" | "connecting" | "open" | "interrupted" | "gone";
type GoneReason = "left" | "lost" | "replaced";
type Target<D extends object> = Peer<D> | Iterable<Peer<D>>;
interface Sent<D extends object> {
	readonly to: readonly Peer<D>[];
	readonly failed: ReadonlyMap<Peer<D>, PigeonError>;
}
type RoomEvents<D extends object> = {
	/** Each change of `room.hub`. */
	hub: [
		state: HubState
	];
	/** For each peer strictly in turns: join, leave, join. */
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
	/** Each change of `peer.state`, but for 'gone'. */
	link: [
		peer: Peer<D>,
		state: LinkState
	];
	message: [
		value: any,
		from: Peer<D>
	];
	/** A new RTCPeerConnection to a peer, before it is negotiated: what is to travel on each is added here. `publish` of extras does. */
	connection: [
		pc: RTCPeerConnection,
		peer: Peer<D>
	];
	/** What no promise could say. Without a listener it goes to the console. */
	error: [
		error: PigeonError
	];
};
interface Room<D extends object = Record<string, Json>> extends Events<RoomEvents<D>> {
	/** Who you are. Another id only where this one was taken by somebody else. */
	readonly id: PeerId;
	readonly network: string;
	readonly hub: HubState;
	/** The others. It does not shrink while the hub is away. */
	readonly peers: ReadonlyMap<PeerId, Peer<D>>;
	/** What others see of you. */
	readonly data: D;
	/** When everybody who was there is in `peers`. Rejects when that can never be. */
	readonly ready: Promise<void>;
	/** Changes what others see of you. Calls within 100 ms are one. */
	update(data: D): void;
	/**
	 * Sends to all peers, or to some. In order for each peer, any size up to `maxMessageBytes`; waits for links that are being made.
	 * Resolves when every transport has taken it, so `await` it to send no faster than the network.
	 */
	send(value: Sendable, to?: Target<D>): Promise<Sent<D>>;
	/** A stream of messages of its own: what is large on one does not hold up another. Names are equal on both sides. */
	channel(name: string, options?: ChannelOptions): Channel<D>;
	/** Tries at once to reach the hub, if it is waiting. */
	retry(): void;
	/** Says goodbye and closes everything. No event afterwards. */
	leave(): void;
}
interface Peer<D extends object = any> {
	readonly id: PeerId;
	readonly data: D;
	readonly state: LinkState;
	/** Connects, if that is not so yet. Resolves when it is open. */
	connect(): Promise<void>;
	/** Closes the link. The peer stays in the room as 'seen'. */
	disconnect(): void;
	send(value: Sendable): Promise<void>;
	/** The connection as it is now, for what is not here. Its negotiation is not yours. */
	readonly pc: RTCPeerConnection | undefined;
}
interface ChannelOptions {
	/** Whether messages arrive in the order in which they were sent. Default true. */
	ordered?: boolean;
	/** How often a lost packet is sent again. Default: until it arrives. With it messages are at most 16 KiB. */
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
	/** Who gets it. Default: everybody. Asked at each new connection. */
	to?: (peer: Peer<D>) => boolean;
	/** Bits a second of video, at most, to each peer. */
	maxBitrate?: number;
}
export interface Publication {
	readonly stream: MediaStream;
	/** Puts a track in the place of that of the same kind: another camera. Nothing is negotiated. */
	replace(track: MediaStreamTrack): Promise<void>;
	/** Ends it for all. The tracks themselves go on. */
	stop(): void;
}
/** Shows media to all peers, also to those who come later, until stop(). */
export declare function publish<D extends object>(room: Room<D>, media: MediaStream | MediaStreamTrack, { to, maxBitrate }?: PublishOptions<D>): Publication;
export type StreamEvents<D extends object> = {
	/** A peer publishes a stream. Further tracks of it come and go in the stream itself. */
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
	/** Those of now. */
	of(peer: Peer<D>): MediaStream[];
}
/** The streams that peers of a room publish: ask before they come, at best right after join(). */
export declare function streams<D extends object>(room: Room<D>): Streams<D>;
/**
 * For the option `seal`: only peers with the same passphrase can connect, and the hub cannot put itself between them.
 *
 * The room's name, its members and their data stay visible to the hub. A peer with another passphrase is an error with the code
 * 'passphrase'. Needs a secure context (HTTPS, or localhost).
 */
export declare function passphrase(secret: string): (network: string) => Sealer;
export interface Route {
	/** Directly in one network, through NATs, or by a TURN server. */
	path: "host" | "nat" | "relay";
	/** The round trip in milliseconds, once it was measured. */
	rttMs: number | undefined;
}
/** How a peer is reached now. Nothing while there is no path. */
export declare function route(peer: Peer): Promise<Route | undefined>;

export {};
