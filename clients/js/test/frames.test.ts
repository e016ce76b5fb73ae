import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FRAME_BYTES, frame, pack, unpacker } from '../src/frames.js'
import { Lane } from '../src/lane.js'
import { FakeChannel } from './fakes.js'

const MAX = 1_000_000

/** All frames of a message. */
function frames (value: any): (string | Uint8Array)[] {
  const packed = pack(value, MAX)
  if (packed.line !== undefined) return [packed.line]
  const made = [frame(packed, 0)]
  for (let at = made[0]!.length - 1; at < packed.bytes.length; at += made.at(-1)!.length - 1) made.push(frame(packed, at))
  return made
}

function through (value: any, unpack = unpacker(MAX, { bytes: 0 })): unknown {
  const taken = frames(value).map(part => unpack(typeof part === 'string' ? part : part.slice().buffer))
  assert.equal(taken.filter(Boolean).length, 1)
  return taken.at(-1)?.value
}

test('values of every kind and size arrive unchanged', () => {
  const unpack = unpacker(MAX, { bytes: 0 })
  for (const size of [0, 1, FRAME_BYTES - 3, FRAME_BYTES - 2, FRAME_BYTES - 1, FRAME_BYTES, 100_000]) {
    assert.equal(through('x'.repeat(size), unpack), 'x'.repeat(size))
    assert.deepEqual(new Uint8Array(through(new Uint8Array(size).fill(7), unpack) as ArrayBuffer), new Uint8Array(size).fill(7))
  }
  for (const value of [null, 0, false, '', [], { a: [{ b: 'ü€😀' }] }, '€'.repeat(10_000)]) assert.deepEqual(through(value, unpack), value)
})

test('no frame exceeds 16 KiB', () => {
  for (const part of frames('€'.repeat(50_000))) assert.ok(part.length <= FRAME_BYTES)
})

test('a message is a copy of the sent value', () => {
  const bytes = new Uint8Array([1, 2, 3])
  const packed = pack(bytes.subarray(1), MAX)
  bytes.fill(0)
  assert.deepEqual([...packed.bytes], [2, 3])
})

test('a value that cannot be sent is refused with a code', () => {
  const circle: any = {}
  circle.self = circle
  for (const value of [undefined, () => {}, circle, 1n]) {
    assert.throws(() => pack(value as any, MAX), { code: 'not-serializable' })
  }
  assert.throws(() => pack('x'.repeat(100), 50), { code: 'too-large' })
})

test('a message that is too long is dropped, and the next one is accepted', () => {
  const unpack = unpacker(20_000, { bytes: 0 })
  const parts = frames(new Uint8Array(100_000)) as Uint8Array<ArrayBuffer>[]
  for (const part of parts.slice(0, -1)) assert.equal(unpack(part.buffer), undefined)
  assert.throws(() => unpack(parts.at(-1)!.buffer), { code: 'too-large' })
  assert.equal(through('next', unpack), 'next')
})

test('a text frame that is too long is refused', () => {
  assert.throws(() => unpacker(10, { bytes: 0 })('"0123456789"'), { code: 'too-large' })
})

test('a short frame of a long message is copied, so that it does not occupy more memory than its length', () => {
  const unpack = unpacker(MAX, { bytes: 0 })
  const part = new Uint8Array([0, 1])
  unpack(part.buffer)
  part.fill(9)
  const last = new Uint8Array([2, 2])
  assert.deepEqual(new Uint8Array(unpack(last.buffer)?.value as ArrayBuffer), new Uint8Array([1, 2]))
})

test('a frame may be a view of a buffer, as it is in werift', () => {
  const unpack = unpacker(MAX, { bytes: 0 })
  const [part, last] = [Buffer.from([9, 0, 1]).subarray(1), Buffer.from([9, 2, 2]).subarray(1)]
  unpack(part)
  assert.deepEqual(new Uint8Array(unpack(last)?.value as ArrayBuffer), new Uint8Array([1, 2]))
})

test('unfinished messages on all channels of a connection are bounded together', () => {
  const held = { bytes: 0 }
  const channels = Array.from({ length: 5 }, () => unpacker(1_000, held))
  const part = (kind: number, size = 1_001) => { const bytes = new Uint8Array(size); bytes[0] = kind; return bytes.buffer }
  for (const unpack of channels) assert.equal(unpack(part(0)), undefined)
  assert.throws(() => channels[4]!(part(2, 1)), { code: 'too-large' })
  for (const unpack of channels.slice(0, 4)) assert.equal((unpack(part(2, 1))?.value as ArrayBuffer).byteLength, 1_000)
  assert.equal(held.bytes, 0)
  assert.equal((channels[4]!(part(2))?.value as ArrayBuffer).byteLength, 1_000)
})

test('an invalid frame is an error, and later frames are accepted', () => {
  const unpack = unpacker(MAX, { bytes: 0 })
  assert.throws(() => unpack('{'))
  assert.throws(() => unpack(new Uint8Array([9, 1]).buffer))
  assert.throws(() => unpack(new ArrayBuffer(0)))
  assert.equal(through('next', unpack), 'next')
})

function channel (): any {
  const [one, other] = [new FakeChannel('', true), new FakeChannel('', true)]
  one.open(other)
  other.open(one)
  return one
}

test('a lane pauses while the transport is full, then continues', async () => {
  const lane = new Lane(10_000_000)
  const pipe = channel()
  FakeChannel.stuck = true
  lane.attach(pipe)
  let sent = false
  const sending = lane.send(pack(new Uint8Array(3_000_000), 1e7)).then(() => { sent = true })
  await new Promise(resolve => setImmediate(resolve))
  assert.ok(!sent && pipe.bufferedAmount < 1_100_000, `${pipe.bufferedAmount}`)
  FakeChannel.stuck = false
  pipe.bufferedAmount = 0
  pipe.onbufferedamountlow()
  await sending
})

test('a full lane refuses messages, and releases sent ones', async () => {
  const lane = new Lane(100)
  const first = lane.send(pack('x'.repeat(80), MAX))
  await assert.rejects(lane.send(pack('x'.repeat(80), MAX)), { code: 'queue-full' })
  lane.attach(channel())
  await first
  await lane.send(pack('x'.repeat(80), MAX))
})

test('a message that was sent in part is repeated on the next channel', async () => {
  const lane = new Lane(10_000_000)
  const [first, second] = [channel(), channel()]
  FakeChannel.stuck = true
  lane.attach(first)
  const sending = lane.send(pack(new Uint8Array(2_000_000).fill(5), 1e7))
  FakeChannel.stuck = false
  const unpack = unpacker(1e7, { bytes: 0 })
  let got: any
  second.other.onmessage = ({ data }: any) => { got ??= unpack(data) }
  lane.attach(second)
  await sending
  await new Promise(resolve => setImmediate(resolve))
  assert.equal(got?.value.byteLength, 2_000_000)
})
