// A proxy in front of a hub. The proxy delays the hub's messages.
import { once } from 'node:events'
import { WebSocket, WebSocketServer } from 'ws'
import { urlOf } from './hub.mjs'

/**
 * `delay` gets each message of the hub and returns its delay in milliseconds. A message can overtake an earlier message
 * with a longer delay. Messages of clients are not delayed.
 */
export async function late (port, delay) {
  // A client that offers subprotocols expects the server to select one. Like the hub, this proxy selects the first.
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: offered => [...offered][0] })
  server.on('connection', (near, { url }) => {
    const far = new WebSocket(new URL(url, urlOf(port)), near.protocol ? [near.protocol] : [])
    const opened = once(far, 'open')
    opened.catch(() => near.terminate())
    near.on('message', text => opened.then(() => far.send(String(text)), () => {}))
    far.on('message', text => {
      const message = String(text)
      const ms = delay(JSON.parse(message))
      const pass = () => { if (near.readyState === WebSocket.OPEN) near.send(message) }
      if (ms > 0) setTimeout(pass, ms).unref()
      else pass()
    })
    near.on('close', () => far.terminate())
    far.on('close', (code, reason) => (code === 1005 || code === 1006 ? near.terminate() : near.close(code, reason)))
    for (const socket of [near, far]) socket.on('error', () => {})
  })
  await once(server, 'listening')
  return {
    ws: `ws://127.0.0.1:${server.address().port}`,
    end () {
      server.clients.forEach(client => client.terminate())
      server.close()
    }
  }
}

/** Returns a function that generates random numbers from 0 to 1. The same seed gives the same numbers. */
export function chances (seed) {
  let state = seed
  return () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648
}
