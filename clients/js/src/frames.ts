// The format of messages on a data channel.
//
// A short JSON value is one text frame. Any other message is one or more binary frames of at most 16 KiB, the size that
// every browser and SCTP stack accepts. The first byte of a binary frame is its type.
import { PigeonError } from './errors.js'
import type { Sendable } from './api.js'

/** Maximum size of a frame, in bytes. */
export const FRAME_BYTES = 16 * 1024
/** Maximum size of all unfinished messages of a connection, as a multiple of the maximum size of one message. */
export const HELD = 4

const PART = 0 // The message continues in the next frame.
const TEXT = 1 // The last part of a JSON text.
const BYTES = 2 // The last part of bytes.
// PING and PONG are frames of one byte. PING asks whether the other side still answers; PONG is the answer.
export const PING = 3
export const PONG = 4
/** The sender closes the link on purpose. */
export const BYE = 5

/** A message that can be sent. */
export interface Packed {
  /** The content of the text frame, if the message is sent as one text frame. */
  readonly line: string | undefined
  readonly bytes: Uint8Array
  readonly mark: number
}

/** Makes a message from a value. Throws a PigeonError if it cannot be sent. */
export function pack (value: Sendable, maxBytes: number): Packed {
  const packed = value instanceof ArrayBuffer || ArrayBuffer.isView(value) ? packBytes(value) : packJson(value)
  check(packed.bytes.length, maxBytes)
  return packed
}

function check (bytes: number, maxBytes: number): void {
  if (bytes > maxBytes) throw new PigeonError('too-large', `${bytes} of ${maxBytes} bytes`)
}

function packBytes (value: ArrayBuffer | ArrayBufferView): Packed {
  const { buffer = value, byteOffset, byteLength } = value as ArrayBufferView & { buffer?: ArrayBuffer }
  // The bytes are copied, because the page may change its own bytes while the message waits.
  return { line: undefined, bytes: new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength).slice(), mark: BYTES }
}

function packJson (value: Sendable): Packed {
  let text: string | undefined
  let cause: unknown
  try { text = JSON.stringify(value) } catch (error) { cause = error }
  if (!text) throw new PigeonError('not-serializable', 'not JSON', { cause })
  const bytes = new TextEncoder().encode(text)
  return { line: bytes.length <= FRAME_BYTES ? text : undefined, bytes, mark: TEXT }
}

/** The frame of a message that starts at `offset`. */
export function frame ({ bytes, mark }: Packed, offset: number): Uint8Array<ArrayBuffer> {
  const part = bytes.subarray(offset, offset + FRAME_BYTES - 1)
  const made = new Uint8Array(part.length + 1)
  made[0] = offset + part.length < bytes.length ? PART : mark
  made.set(part, 1)
  return made
}

/**
 * Returns a function that takes the frames of one data channel, one after another. For the last frame of a message, it
 * returns an object with the message's `value`. The function throws if a frame is invalid or a message is too long.
 *
 * `held` counts the bytes of unfinished messages on all channels of a connection. If there are more than HELD times
 * `maxBytes`, the message that exceeds this number is dropped, like one that is too long.
 */
export function unpacker (maxBytes: number, held: { bytes: number }): (data: unknown) => { value: unknown } | undefined {
  /** The message so far, followed by free space, or `undefined` if the message is dropped. Frames are copied, because a short frame occupies much more memory than its length. */
  let whole: Uint8Array | undefined = new Uint8Array()
  let size = 0
  return data => {
    if (typeof data === 'string') {
      check(data.length, maxBytes)
      return { value: JSON.parse(data) }
    }
    const bytes = new Uint8Array(data as ArrayBuffer)
    const [kind] = bytes
    const part = bytes.subarray(1)
    const at = size
    size += part.length
    held.bytes += part.length
    // The remaining frames of a message that is too long are read and dropped.
    if (size > maxBytes || held.bytes > HELD * maxBytes) whole = undefined
    if (whole) {
      if (size > whole.length) {
        const last: Uint8Array = whole
        whole = new Uint8Array(2 * size)
        whole.set(last)
      }
      whole.set(part, at)
    }
    if (kind === PART) return undefined
    const joined = whole?.slice(0, size)
    const length = size
    held.bytes -= size
    size = 0
    whole = new Uint8Array()
    if (!joined) throw new PigeonError('too-large', length)
    if (kind === TEXT) return { value: JSON.parse(new TextDecoder().decode(joined)) }
    if (kind === BYTES) return { value: joined.buffer }
    throw new PigeonError('protocol', kind!)
  }
}
