// Measures the time from the navigation of a tab to the first message that it receives from another tab. Prints the
// median and the 95th percentile of 50 runs, in milliseconds.
//
//   HUB_BIN=../../target/release/peerpigeon node first-message.mjs
//
// After `npm install --no-save peer@1.0.2 peerjs@1.5.5` in this directory, PeerJS with its own server is also measured,
// in alternating runs.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { launch, serve } from './browser.mjs'
import { Tab, site } from './client-pages.mjs'
import { freePort, startHub } from './hub.mjs'

const RUNS = Number(process.env.RUNS ?? 50)
/** The first runs warm up the browser and are not counted. */
const FIRST = 2

/** A tab that has received no message after this time counts as failed. */
const LATE_MS = 20_000

/** Runs in each tab before the page's own scripts, and records the time of the first message. */
const CLOCK = () => {
  addEventListener('noted', () => { if (globalThis.messages?.length) globalThis.took ??= performance.now() })
}

async function ours () {
  const [hub, web] = await Promise.all([startHub(), site()])
  let ann
  return {
    name: 'this client',
    async start (context) {
      ann = await Tab.open(context, web, hub.ws)
      await ann.run(() => { room.on('link', (peer, state) => { if (state === 'open') peer.send('hello') }) })
    },
    open: page => Tab.open(page.context(), web, hub.ws, {}, page),
    alone: () => ann.until('room.peers.size === 0'),
    end () { web.close(); return hub.kill() }
  }
}

/** PeerJS, if it is installed. The first tab has a fixed id, to which the other tabs connect. */
async function peerjs () {
  const require = createRequire(import.meta.url)
  let bundle
  try {
    bundle = require.resolve('peerjs').replace(/[^/]*$/, 'peerjs.min.js')
  } catch {
    return undefined
  }
  const port = await freePort()
  const { server } = await new Promise(done => require('peer').PeerServer({ port, host: '127.0.0.1', path: '/' }, server => done({ server })))
  const script = `
    globalThis.messages = []
    const options = { host: '127.0.0.1', port: ${port}, path: '/', config: { iceServers: [] } }
    const peer = location.hash ? new Peer(location.hash.slice(1), options) : new Peer(options)
    if (location.hash) peer.on('connection', connection => connection.on('open', () => connection.send('hello')))
    else peer.on('open', () => peer.connect('ann').on('data', data => { messages.push(data); dispatchEvent(new Event('noted')) }))
    peer.on('open', () => { globalThis.loaded = true })`
  const page = '<!doctype html><meta charset="utf-8"><title>test</title><script src="/peerjs.js"></script><script src="/test.js"></script>'
  const web = await serve({ '/': page, '/test.js': script, '/peerjs.js': pathToFileURL(bundle) })
  return {
    name: 'PeerJS',
    async start (context) {
      const ann = await context.newPage()
      await ann.goto(`${web.origin}/#ann`)
      await ann.waitForFunction('globalThis.loaded')
    },
    open: page => page.goto(web.origin),
    alone () {},
    end () { web.close(); server.close() }
  }
}

const browser = await launch()
const contestants = [await ours(), await peerjs()].filter(Boolean)
try {
  const times = new Map(contestants.map(contestant => [contestant, []]))
  const context = await browser.newContext()
  for (const contestant of contestants) await contestant.start(context)
  for (let run = 0; run < FIRST + RUNS; run++) {
    for (const contestant of contestants) {
      const page = await context.newPage()
      await page.addInitScript(CLOCK)
      await contestant.open(page)
      const took = await page.waitForFunction('globalThis.took', null, { timeout: LATE_MS }).then(() => page.evaluate('took'), () => Infinity)
      if (run >= FIRST) times.get(contestant).push(took)
      await page.close()
      await contestant.alone()
    }
  }
  for (const [{ name }, all] of times) {
    const sorted = all.sort((one, other) => one - other)
    console.log(`${name}: p50 ${Math.round(sorted[Math.floor(RUNS / 2)])} ms, p95 ${Math.round(sorted[Math.ceil(RUNS * 0.95) - 1])} ms of ${RUNS}, ${sorted.filter(took => took === Infinity).length} without a message`)
  }
} finally {
  await browser.close()
  for (const contestant of contestants) await contestant.end()
}
process.exit()
