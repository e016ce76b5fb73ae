// Milliseconds from a tab's navigation to its first message of another tab: the median and the 95th percentile of 50.
//
//   HUB_BIN=target/release/peerpigeon node tests/interop/first-message.mjs
import { launch } from './browser.mjs'
import { Tab, site } from './client-pages.mjs'
import { startHub } from './hub.mjs'

const RUNS = 50
/** Of these the browser still warms up. */
const FIRST = 2

const [hub, web, browser] = await Promise.all([startHub(), site(), launch()])
try {
  const context = await browser.newContext()
  const ann = await Tab.open(context, web, hub.ws)
  await ann.run(() => { room.on('link', (peer, state) => { if (state === 'open') peer.send('hello') }) })
  const times = []
  while (times.length < FIRST + RUNS) {
    const page = await context.newPage()
    await page.addInitScript(() => addEventListener('noted', () => { if (globalThis.messages?.length) globalThis.took ??= performance.now() }))
    const bob = await Tab.open(context, web, hub.ws, {}, page)
    await page.waitForFunction('globalThis.took')
    times.push(await bob.run(() => took))
    await page.close()
    await ann.until('room.peers.size === 0')
  }
  const sorted = times.slice(FIRST).sort((one, other) => one - other)
  console.log(`p50 ${Math.round(sorted[RUNS / 2])} ms, p95 ${Math.round(sorted[Math.ceil(RUNS * 0.95) - 1])} ms of ${RUNS}`)
} finally {
  await browser.close()
  web.close()
  await hub.kill()
}
