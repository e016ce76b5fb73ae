// A proxy in front of a hub, which can silently drop all data, like a network that has failed.
import { connect, createServer } from 'node:net'
import { once } from 'node:events'
import { urlOf } from './hub.mjs'

export async function blackHole (port) {
  const pairs = new Set()
  let swallowing = false
  const server = createServer(near => {
    const far = connect(port, '127.0.0.1')
    pairs.add([near, far])
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('data', data => { if (!swallowing) to.write(data) })
      from.on('error', () => {})
      from.on('close', () => { if (!swallowing) to.destroy() })
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    ws: urlOf(server.address().port),
    /** Drops all data in both directions from now on. New connections get no answer. */
    open () { swallowing = true },
    /** Forwards the data of new connections again. Earlier connections stay dead, as after the failure of a network. */
    close () {
      for (const sockets of pairs) sockets.forEach(socket => { socket.removeAllListeners('data'); socket.resume() })
      pairs.clear()
      swallowing = false
    },
    end () {
      for (const sockets of pairs) sockets.forEach(socket => socket.destroy())
      server.close()
    }
  }
}
