/**
 * Rooms of peers: presence, links and messages.
 *
 * @module client
 */
import { RoomImpl } from './room.js'
import type { Json, Options, Room } from './api.js'

export { PigeonError, type ErrorCode } from './errors.js'
export type { Off } from './emitter.js'
export type {
  Channel, ChannelOptions, Events, GoneReason, HubState, Json, LinkState, Options, Peer, PeerId, Room,
  RoomEvents, Sealer, Sendable, Sent, Target
} from './api.js'

/**
 * Joins a network at a hub, and connects to the other members.
 *
 * `hub` is `wss://host`, or an array of hubs of one mesh. Returns immediately, before the connection to the hub is open.
 * Network errors do not throw: `room.hub` is the state of the connection, and `room.ready` resolves when all members are
 * known.
 */
export function join<D extends object = Record<string, Json>> (hub: string | readonly string[], network: string, options: Options<D> = {}): Room<D> {
  return new RoomImpl<D>([hub].flat(), network, options)
}
