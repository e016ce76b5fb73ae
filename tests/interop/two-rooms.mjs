// Joins a room twice with the client in one process without a browser, as docs/client.md shows. One member sends
// messages to the other.
//
//   node two-rooms.mjs ws://127.0.0.1:8080 rtc/werift.mjs        or with bun, or with deno run -A
import assert from 'node:assert/strict'
import ws from 'ws'
import { join } from '../../clients/js/dist/client.js'

const [hub, library] = process.argv.slice(2)
const { RTCPeerConnection } = await import(new URL(library, import.meta.url))
const { WebSocket = ws } = globalThis
const enter = name => join(hub, 'without a browser', { data: { name }, WebSocket, RTCPeerConnection })
const [ann, bob] = [enter('ann'), enter('bob')]
for (const room of [ann, bob]) room.on('error', error => { throw error })
const messages = []
const all = new Promise(resolve => bob.on('message', (value, peer) => { if (messages.push([value, peer.data.name]) === 2) resolve() }))
const [peer] = await ann.once('join')
await peer.send('hello')
await peer.send(new Uint8Array(1_000_000).fill(7))
await all
assert.deepEqual(messages[0], ['hello', 'ann'])
assert.ok(new Uint8Array(messages[1][0]).every(byte => byte === 7) && messages[1][0].byteLength === 1_000_000)
ann.leave()
await bob.once('leave')
assert.equal(bob.peers.size, 0)
bob.leave()
process.exit()
