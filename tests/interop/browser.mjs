// Headless Chromium, a small web server for its pages, and a recording of their WebSockets' messages.
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { chromium } from 'playwright-core'
import { within } from './hub.mjs'

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium'

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-proxy-server',
  // Chromium's background services need hosts that a test machine may not reach.
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // A test machine may have no network. Without a network, loopback is the only address, and the mDNS names of local
  // addresses cannot be resolved.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
  '--allow-loopback-in-peer-connection',
  // npm peerpigeon requests a microphone when its page is on localhost.
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  // All tabs of a test except one are in the background. The timers of background tabs must not be slowed down.
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding'
]

// With TLS, the hub has a certificate of an authority that the browser does not know.
if (process.env.TLS_CERT) FLAGS.push('--ignore-certificate-errors')

export const launch = options => chromium.launch({ executablePath: EXECUTABLE, args: FLAGS, ...options })

/** A browser whose processes can be stopped and continued together, like a machine that sleeps. */
export async function launchStoppable () {
  const server = await chromium.launchServer({ executablePath: EXECUTABLE, args: FLAGS })
  const browser = await chromium.connect(server.wsEndpoint())
  let stopped = []
  const signal = (pids, name) => pids.forEach(pid => { try { process.kill(pid, name) } catch {} })
  return {
    browser,
    stop () { signal(stopped = family(server.process().pid), 'SIGSTOP') },
    goOn () { signal(stopped, 'SIGCONT') },
    async close () { this.goOn(); await browser.close(); await server.close() }
  }
}

/**
 * Leaves a page for the page at `url`, calls `meanwhile`, and goes back to the first page. Returns whether the browser
 * has kept the first page in its cache. If the browser has not kept the page, it loads the page again, which is
 * allowed, because a browser may discard a page at any time. Fails if the browser discarded the page because of open
 * connections.
 */
export async function awayAndBack (page, url, meanwhile) {
  const { kept, reasons } = await leaveAndReturn(page, url, meanwhile)
  assert.ok(!reasons.some(reason => /^web(socket|rtc)/.test(reason)), `not kept because of ${reasons}`)
  return kept
}

/**
 * Like `awayAndBack`, for a page that may have open connections. `reasons` are Chromium's reasons for not keeping the
 * page.
 */
export async function leaveAndReturn (page, url, meanwhile) {
  await page.evaluate(() => { globalThis.before = true })
  await page.goto(url)
  await meanwhile()
  await page.goBack({ waitUntil: 'commit' })
  return page.evaluate(() => {
    const [{ notRestoredReasons }] = performance.getEntriesByType('navigation')
    return { kept: globalThis.before === true, reasons: notRestoredReasons?.reasons?.map(({ reason }) => reason) ?? [] }
  })
}

/** A process and all its descendants. */
function family (pid) {
  const parents = new Map(readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(name => [Number(name), parentOf(name)]))
  const found = [pid]
  for (const parent of found) for (const [child, its] of parents) if (its === parent) found.push(child)
  return found
}

function parentOf (pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    // The process has ended meanwhile.
    return 0
  }
}

/** Serves pages on loopback, and returns the origin. `pages` maps each path to a text or to the URL of a file. */
export async function serve (pages) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost')
    const page = pages[pathname]
    if (page === undefined) return response.writeHead(404).end()
    const type = pathname.endsWith('.js') ? 'text/javascript' : 'text/html'
    response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8` }).end(page instanceof URL ? await readFile(page) : page)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close() } }
}

const SIGNALS = new Set(['offer', 'answer', 'ice-candidate'])

/** All messages that a page's WebSockets to the hub have sent and received, in order. */
export class Wire {
  constructor (page) {
    this.sent = []
    this.received = []
    this.waiting = []
    page.on('websocket', socket => {
      socket.on('framesent', ({ payload }) => this.#add(this.sent, payload))
      socket.on('framereceived', ({ payload }) => this.#add(this.received, payload))
      socket.on('close', () => this.#wake())
    })
  }

  /** Waits until `look` returns a true value, and returns it. Calls `look` after each frame. */
  async until (look, what, ms = 10_000) {
    const deadline = Date.now() + ms
    for (;;) {
      const found = look(this)
      if (found) return found
      const woken = new Promise(resolve => this.waiting.push(resolve))
      await within(Math.max(1, deadline - Date.now()), what, woken)
    }
  }

  toString () {
    const line = (arrow, { type, fromPeerId, targetPeerId, networkName, data }) =>
      `${arrow} ${type} ${(arrow === '>' ? targetPeerId : data?.peerId ?? fromPeerId)?.slice(0, 8) ?? ''} ${networkName ?? ''}`
    return [...this.sent.map(frame => ['>', frame]), ...this.received.map(frame => ['<', frame])]
      .sort(([, one], [, other]) => one.at - other.at).map(([arrow, { message }]) => line(arrow, message)).join('\n')
  }

  /** The received messages of this type. */
  heard (type) { return this.received.filter(({ message }) => message.type === type) }

  #add (frames, payload) {
    frames.push({ at: Date.now(), message: JSON.parse(payload) })
    this.#wake()
  }

  #wake () { this.waiting.splice(0).forEach(wake => wake()) }
}

/**
 * Waits until `to` has received each signal of `from`. Throws if one is missing, repeated, changed or out of order.
 */
export async function checkSignals (from, to) {
  const sent = () => from.wire.sent.map(({ message }) => message)
    .filter(({ type, targetPeerId }) => SIGNALS.has(type) && targetPeerId === to.id).map(fingerprint)
  const received = () => to.wire.received.map(({ message }) => message)
    .filter(({ type, fromPeerId }) => SIGNALS.has(type) && fromPeerId === from.id).map(fingerprint)
  // A page may send another signal at any time, so the lists of both sides are read at the same moment.
  const match = () => {
    const [said, heard] = [sent(), received()]
    const differs = heard.findIndex((signal, index) => signal !== said[index])
    if (differs >= 0 && said.length > differs) {
      throw new Error(`signal ${differs} of ${from.id} to ${to.id}: sent ${said[differs].slice(0, 200)}, received ${heard[differs].slice(0, 200)}`)
    }
    return heard.length === said.length && { count: said.length }
  }
  const { count } = await to.wire.until(match, () => `${sent().length} signals of ${from.id} to ${to.id}; ${received().length} arrived`)
  return count
}

const fingerprint = ({ type, data, networkName }) => JSON.stringify([type, networkName ?? 'global', data ?? null])
