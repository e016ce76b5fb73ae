// Sends media over the connections of a room.
//
// Each track has its own send-only transceiver in each connection. Therefore a change on one side never affects the
// tracks of the other side. Session descriptions do not grow without end, because they reuse the sections of stopped
// transceivers.
import { Emitter } from '../emitter.js'
import type { Events, Peer, Room } from '../api.js'

export interface PublishOptions<D extends object> {
  /** Returns whether a peer receives the media. Called for each new connection. Default: all peers receive it. */
  to?: (peer: Peer<D>) => boolean
  /** Maximum bitrate of the video to each peer, in bits per second. Default: no maximum. */
  maxBitrate?: number
}

export interface Publication {
  readonly stream: MediaStream
  /** Replaces the track of the same kind, for example by the track of another camera. Needs no negotiation. */
  replace (track: MediaStreamTrack): Promise<void>
  /** Stops sending to all peers. The tracks themselves continue. */
  stop (): void
}

/** Sends media to all peers, including peers that connect later, until stop() is called. */
export function publish<D extends object> (
  room: Room<D>, media: MediaStream | MediaStreamTrack, { to = () => true, maxBitrate }: PublishOptions<D> = {}
): Publication {
  const tracks = 'getTracks' in media ? media.getTracks() : [media]
  const stream = 'getTracks' in media ? media : new MediaStream([media])
  /** The transceivers of all tracks, by connection. */
  const sent = new Map<RTCPeerConnection, RTCRtpTransceiver[]>()
  const add = (pc: RTCPeerConnection, peer: Peer<D>) => {
    for (const old of sent.keys()) if (old.connectionState === 'closed') sent.delete(old)
    if (!to(peer)) return
    sent.set(pc, tracks.map(track => {
      const sendEncodings = track.kind === 'video' && maxBitrate ? [{ maxBitrate }] : []
      return pc.addTransceiver(track, { direction: 'sendonly', streams: [stream], sendEncodings })
    }))
  }
  const off = room.on('connection', add)
  for (const peer of room.peers.values()) if (peer.pc) add(peer.pc, peer)
  return {
    stream,
    async replace (track) {
      const index = tracks.findIndex(({ kind }) => kind === track.kind)
      if (index < 0) throw new TypeError(`there is no ${track.kind} track to replace`)
      tracks[index] = track
      await Promise.all([...sent.values()].map(transceivers => transceivers[index]!.sender.replaceTrack(track).catch(() => {})))
    },
    stop () {
      off()
      for (const [pc, transceivers] of sent) transceivers.forEach(transceiver => retire(pc, transceiver))
      sent.clear()
    }
  }
}

/**
 * Stops a transceiver after its negotiation. If a transceiver is stopped earlier, no description ever contains it, and
 * Chromium sends one offer after another. (Keeping a transceiver for the next track, by a change of its direction, would
 * be simpler. But Chromium 148 crashes if both sides change a direction at the same time.)
 */
function retire (pc: RTCPeerConnection, transceiver: RTCRtpTransceiver): void {
  if (pc.signalingState === 'closed') return
  if (transceiver.currentDirection !== null) return transceiver.stop()
  transceiver.direction = 'inactive'
  pc.addEventListener('signalingstatechange', () => retire(pc, transceiver), { once: true })
}

export type StreamEvents<D extends object> = {
  /** A peer publishes a stream. Later changes of its tracks appear in the stream object. */
  stream: [stream: MediaStream, from: Peer<D>]
  streamend: [stream: MediaStream, from: Peer<D>]
}

/** The streams that peers publish. */
export interface Streams<D extends object> extends Events<StreamEvents<D>> {
  /** Returns the streams that a peer publishes now. */
  of (peer: Peer<D>): MediaStream[]
}

const known = new WeakMap<Room<any>, Streams<any>>()

/** Returns the streams that peers of a room publish. Call this function before peers connect, best right after join(). */
export function streams<D extends object> (room: Room<D>): Streams<D> {
  let found = known.get(room) as Streams<D> | undefined
  if (!found) known.set(room, found = watch(room))
  return found
}

function watch<D extends object> (room: Room<D>): Streams<D> {
  const emitter = new Emitter<StreamEvents<D>>()
  /** Each stream with its peer and its connection. */
  const live = new Map<MediaStream, { peer: Peer<D>, pc: RTCPeerConnection }>()
  const end = (stream: MediaStream, peer: Peer<D>) => { if (live.delete(stream)) emitter.emit('streamend', stream, peer) }
  const listen = (pc: RTCPeerConnection, peer: Peer<D>) => {
    // The streams of the peer's previous connection ended with that connection.
    for (const [stream, from] of live) if (from.peer === peer && from.pc !== pc) end(stream, peer)
    pc.addEventListener('track', ({ track, streams: [stream] }) => {
      if (!stream) return
      const look = () => { if (stream.getTracks().every(({ readyState }) => readyState === 'ended')) end(stream, peer) }
      track.addEventListener('ended', look)
      stream.addEventListener('removetrack', look)
      if (live.has(stream)) return
      live.set(stream, { peer, pc })
      emitter.emit('stream', stream, peer)
    })
  }
  room.on('connection', listen)
  room.on('leave', peer => { for (const [stream, from] of live) if (from.peer === peer) end(stream, peer) })
  for (const peer of room.peers.values()) if (peer.pc) listen(peer.pc, peer)
  return Object.assign(emitter as Events<StreamEvents<D>> & { on: any, once: any }, {
    of: (peer: Peer<D>) => [...live].filter(([, from]) => from.peer === peer).map(([stream]) => stream)
  })
}


