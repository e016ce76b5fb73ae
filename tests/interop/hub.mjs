// Starts a hub process for each test, with its own port. If the test fails, the hub's stderr is shown.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'

const BINARY = process.env.HUB_BIN

/** Hubs that already run and form one mesh. If set, tests use these and start none. */
export const HUBS_AT = process.env.HUBS_AT?.split(',')
if (!BINARY && !HUBS_AT) throw new Error('set HUB_BIN to the path of the hub binary, as run.sh does')

/** Whether hubs use TLS: run.sh sets the certificate and makes node trust its authority. */
const SECURE = Boolean(process.env.TLS_CERT)

const READY_MS = 10_000
const STDERR_KEPT = 16 * 1024

/** The URL of a hub, or of its proxy, at this port. */
export const urlOf = port => `${SECURE ? 'wss' : 'ws'}://127.0.0.1:${port}`

/** Disables the limits per address, because all clients of a test have the same address. */
const UNLIMITED = { MAX_CONNECTIONS_PER_ADDRESS: '0', MAX_UNFINISHED_PER_ADDRESS: '0', CONNECT_RATE_PER_ADDRESS: '0', CONNECT_RATE: '0' }

const running = new Set()
process.on('exit', () => running.forEach(child => child.kill('SIGKILL')))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

/** Starts a hub and waits until it answers. With `port` it reuses the port of an earlier hub. */
export async function startHub ({ env = {}, args = ['serve'], port } = {}) {
  port ??= await freePort()
  const child = spawn(BINARY, args, {
    env: { ...process.env, ...UNLIMITED, HOST: '127.0.0.1', PORT: String(port), ...env },
    stdio: ['ignore', 'ignore', 'pipe']
  })
  running.add(child)
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', text => { stderr = (stderr + text).slice(-STDERR_KEPT) })
  const exited = new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => { running.delete(child); resolve({ code, signal }) })
  })
  exited.catch(() => {})
  const hub = {
    child,
    exited,
    port,
    url: `${SECURE ? 'https' : 'http'}://127.0.0.1:${port}`,
    ws: urlOf(port),
    stderr: () => stderr,
    /** Kills this hub, like a crash. */
    kill () { child.kill('SIGKILL'); return exited }
  }
  try {
    await ready(hub)
  } catch (error) {
    await hub.kill()
    throw new Error(`${error.message}\n${stderr}`)
  }
  return hub
}

const MESH_TOKEN = 'of-the-mesh'

/** Starts hubs that form one mesh, and waits until each hub knows all other hubs. */
export async function startMesh (count, options = {}) {
  const hubs = []
  try {
    while (hubs.length < count) {
      const env = { ...options.env, IS_HUB: 'true', MESH_TOKEN, BOOTSTRAP_HUBS: hubs.map(hub => hub.ws).join(',') }
      hubs.push(await startHub({ ...options, env }))
    }
    await Promise.all(hubs.map(hub => linked(hub, count - 1, options.env?.ADMIN_TOKEN)))
    return hubs
  } catch (error) {
    const said = hubs.map(hub => hub.stderr()).join('---\n')
    await Promise.all(hubs.map(hub => hub.kill()))
    throw new Error(`${error.message}\n${said}`)
  }
}

/**
 * Waits until a hub knows this number of other hubs. If the hub has an ADMIN_TOKEN, it shows the number only with this
 * token.
 */
async function linked (hub, others, token = '') {
  const deadline = Date.now() + READY_MS
  for (;;) {
    const { hubs } = await (await fetch(`${hub.url}/health`, { headers: { Authorization: `Bearer ${token}` } })).json()
    if (hubs === others) return
    if (Date.now() > deadline) throw new Error(`a hub knows ${hubs} of ${others} other hubs after ${READY_MS} ms`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

const elsewhere = ws => ({ ws, stderr: () => '', kill: async () => {} })

/** Defines a test with its own hub, or with a mesh if the option `hubs` is greater than 1. */
export function hubTest (name, options, body) {
  test(name, { timeout: options.timeout ?? 30_000, skip: options.skip }, async t => {
    const hubs = HUBS_AT?.map(elsewhere) ?? (options.hubs > 1 ? await startMesh(options.hubs, options) : [await startHub(options)])
    try {
      await body(...hubs, t)
    } catch (error) {
      hubs.forEach((hub, at) => console.error(`--- stderr of hub ${at} in "${name}":\n${hub.stderr()}---`))
      throw error
    } finally {
      await Promise.all(hubs.map(hub => hub.kill()))
    }
  })
}

/** A random peer id that begins with `prefix`. */
export const peerId = (prefix = '') => prefix + randomBytes(20).toString('hex').slice(prefix.length)

/** Returns the result of `promise`. Throws an error that contains `what` if the promise does not settle within `ms`. */
export function within (ms, what, promise) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${typeof what === 'function' ? what() : what}`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

async function ready (hub) {
  const deadline = Date.now() + READY_MS
  const dead = hub.exited.then(({ code, signal }) => { throw new Error(`the hub ended (${code ?? signal}) before it answered`) })
  dead.catch(() => {})
  while (Date.now() < deadline) {
    const answer = await Promise.race([fetch(`${hub.url}/health`).catch(() => null), dead])
    if (answer?.ok) return
    await Promise.race([new Promise(resolve => setTimeout(resolve, 10)), dead])
  }
  throw new Error(`no answer from GET /health within ${READY_MS} ms`)
}

/**
 * Finds a port at which no program listens. The kernel takes the ports of outgoing connections from 32768 on, so no
 * connection of another test occupies one of these ports before the hub listens.
 */
export async function freePort () {
  for (;;) {
    const port = 8000 + nextPort++ % 8000
    const server = createServer()
    const listens = await new Promise(resolve => server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true)))
    if (!listens) continue
    server.close()
    await once(server, 'close')
    return port
  }
}
/** Test files run in separate processes, which begin at different ports. */
let nextPort = process.pid * 641
