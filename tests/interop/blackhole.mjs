// A way to a hub that can swallow everything without a word, as a network does that is gone.
import { connect, createServer } from 'node:net'
import { once } from 'node:events'

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
    ws: `ws://127.0.0.1:${server.address().port}`,
    /** What is on its way from now on does not arrive, in either direction. New connections find nobody who answers. */
    open () { swallowing = true },
    /** New connections go through again. Those that were swallowed stay so, as the other end does not know. */
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
