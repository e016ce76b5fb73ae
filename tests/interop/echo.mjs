// Joins a room in a process without a browser, and sends each message back to its sender. Ends when the last peer has
// left.
//
//   node echo.mjs ws://127.0.0.1:8080 rtc/werift.mjs        or with bun, or with deno run -A
import ws from 'ws'
import { join } from '../../clients/js/dist/client.js'

const [hub, library] = process.argv.slice(2)
const { RTCPeerConnection } = await import(new URL(library, import.meta.url))
const { WebSocket = ws } = globalThis
const room = join(hub, 'lobby', { data: { name: 'echo' }, WebSocket, RTCPeerConnection })
room.on('message', (value, peer) => peer.send(value))
// The client makes a new connection after an error of a link.
room.on('error', error => console.error(error.message))
await room.once('leave')
room.leave()
process.exit()
