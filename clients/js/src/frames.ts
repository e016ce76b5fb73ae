// The format of messages on a data channel.
//
// A short JSON value is one text frame. Any other message is one or more binary frames of at most 16 KiB, the size that
// every browser and SCTP stack accepts. The first byte of a binary frame is its type.
import { PigeonError } from './errors.js'
import type { Sendable } from './api.js'

/** Maximum size of a frame, in bytes. */
export const FRAME_BYTES = 16 * 1024

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
 * returns an object with the message's `value`. It throws if a frame is invalid or a message is too long.
 */
export function unpacker (maxBytes: number): (data: unknown) => { value: unknown } | undefined {
  let parts: Uint8Array[] = []
  let size = 0
  return data => {
    if (typeof data === 'string') return { value: JSON.parse(data) }
    const bytes = new Uint8Array(data as ArrayBuffer)
    const [kind] = bytes
    size += bytes.length - 1
    // The remaining frames of a message that is too long are read and dropped.
    if (size > maxBytes) parts = []
    else parts.push(bytes.subarray(1))
    if (kind === PART) return undefined
    const whole = parts
    const length = size
    size = 0
    parts = []
    check(length, maxBytes)
    const joined = new Uint8Array(length)
    let at = 0
    for (const part of whole) {
      joined.set(part, at)
      at += part.length
    }
    if (kind === TEXT) return { value: JSON.parse(new TextDecoder().decode(joined)) }
    if (kind === BYTES) return { value: joined.buffer }
    throw new Error(`kind ${kind}`)
  }
}
