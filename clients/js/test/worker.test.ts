import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import { MessageChannel } from 'node:worker_threads'
import { serveSockets, workerSocket } from '../src/extras/index.js'
import { FakeSocket, settle, still } from './fakes.js'

beforeEach(() => {
  still()
  FakeSocket.opened = () => {}
  globalThis.WebSocket = FakeSocket as any
})

/** Returns a WebSocket class whose connections run at the other end of a message channel. */
function remote (): typeof WebSocket {
  const { port1, port2 } = new MessageChannel()
  serveSockets(port2 as any)
  const Remote = workerSocket(port1 as any)
  for (const port of [port1, port2]) port.unref()
  return Remote
}

test('a WebSocket in a worker behaves like one in the page', async () => {
  const socket = new (remote())('ws://hub/ws?peerId=a', 'peerpigeon')
  const log: unknown[] = []
  socket.onopen = () => log.push('open')
  socket.onmessage = ({ data }) => log.push(JSON.parse(data).type)
  socket.onclose = ({ code, reason }) => log.push([code, reason, socket.readyState])
  await settle()
  const real = FakeSocket.last
  assert.deepEqual([real.url.href, real.protocols, socket.readyState], ['ws://hub/ws?peerId=a', 'peerpigeon', 0])
  real.welcome()
  await settle()
  assert.equal(socket.readyState, 1)
  socket.send('{"type":"ping"}')
  await settle()
  assert.deepEqual(real.sent, [{ type: 'ping' }])
  real.end(4011, 'kicked')
  await settle()
  assert.deepEqual(log, ['open', 'connected', [4011, 'kicked', 3]])
})

test('several WebSockets share a worker, and closing one does not affect the others', async () => {
  const Remote = remote()
  const [one, other] = [new Remote('ws://hub/ws?peerId=a'), new Remote('ws://hub/ws?peerId=b')]
  await settle()
  FakeSocket.all.forEach(socket => socket.welcome())
  await settle()
  one.close(1000)
  await settle()
  assert.deepEqual([one.readyState, other.readyState], [3, 1])
  assert.deepEqual(FakeSocket.all.map(({ readyState }) => readyState), [3, 1])
})
