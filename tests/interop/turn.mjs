// Runs a TURN server on loopback: coturn, if it is installed.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { once } from 'node:events'
import { createSocket } from 'node:dgram'
import { freePort } from './hub.mjs'

const COTURN = process.env.TURNSERVER ?? '/usr/bin/turnserver'

/** Returns a function that starts a server, or undefined if coturn is not installed. */
export const findTurn = () => existsSync(COTURN) ? start : undefined

/**
 * Starts a server. With `secret`, it accepts temporary credentials of a hub with this secret. Without `secret`, the
 * server has one user.
 */
async function start ({ secret } = {}) {
  const port = await freePort()
  const url = `turn:127.0.0.1:${port}`
  const users = secret ? ['--use-auth-secret', `--static-auth-secret=${secret}`] : ['--user=ann:secret', '--lt-cred-mech']
  let child, exited
  const server = {
    url,
    iceServers: [{ urls: url, username: 'ann', credential: 'secret' }],
    async run () {
      child = spawn(COTURN, [
        '-n', '--listening-ip=127.0.0.1', '--relay-ip=127.0.0.1', `--listening-port=${port}`, '--realm=test', ...users,
        '--allow-loopback-peers', '--no-tls', '--no-dtls', '--no-cli', '--no-stdout-log', '--log-file=/dev/null', '--pidfile=/dev/null'
      ], { stdio: 'ignore' })
      exited = once(child, 'exit')
      await answers(port)
    },
    async end () { child.kill('SIGKILL'); await exited }
  }
  await server.run()
  return server
}

/** Sends binding requests (RFC 8489) until the server answers. */
async function answers (port) {
  const socket = createSocket('udp4')
  const request = Buffer.from('000100002112a442' + '00'.repeat(12), 'hex')
  const asking = setInterval(() => socket.send(request, port, '127.0.0.1'), 50)
  try {
    await once(socket, 'message', { signal: AbortSignal.timeout(10_000) })
  } finally {
    clearInterval(asking)
    socket.close()
  }
}
