// Tests of the live view: its findings, and the page in Chromium.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { readFile } from 'node:fs/promises'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join as path } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import WebSocket from 'ws'
import { launch } from './browser.mjs'
import { HUBS_AT, hubTest, peerId, within } from './hub.mjs'

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js')
const TOKEN = 'token-of-the-live-view'
const skip = HUBS_AT && 'needs a single hub'

let browser
before(async () => { browser = await launch() })
after(() => browser.close())

// ---- findings

// The hub serves these files under other names than they have in the source directory.
const source = name => readFile(new URL(`../../src/dashboard/${name}.js`, import.meta.url), 'utf8')
const module = text => `data:text/javascript;base64,${Buffer.from(text).toString('base64')}`
const charts = module(await source('charts'))
const { findings } = await import(module((await source('findings')).replace('./dashboard-charts.js', charts)))

const sample = (changes = {}) => ({ at: 0, over: 1000, peers: 10, busy: [100, 100], meshBusy: 0, cpu: 200, ...changes })
const minute = changes => Array.from({ length: 60 }, () => sample(changes))
const calm = (changes = {}) => ({
  stage: 'ready',
  full: false,
  oldestTurn: ['shard-0', 100],
  bugs: 0,
  log: { dropped: 0, stalledMs: 0 },
  budgets: [{ name: 'connections', used: 10, max: 1000, setting: 'MAX_CONNECTIONS' }],
  shards: [{ sessions: 5 }, { sessions: 5 }],
  mesh: { hubs: [], links: [], dials: [], redis: null, lagMs: 0 },
  tls: { certificates: [{ file: 'a.pem', names: ['a.example'], daysLeft: 60 }], stale: false, missing: 0, problem: null },
  ...changes
})
const link = { hub: 'ab'.repeat(20), address: '192.0.2.1:5', rttMs: 2, ready: true, saturated: false }

const figures = { version: '2.1.0', connections: 1, maxConnections: 100, cpu: 10, busiestShard: 10, signals: 0, memory: 1 }
/** The state of a hub without problems that has received these figures of another hub. */
const elsewhere = changes => calm({ status: figures, mesh: { ...calm().mesh, hubs: [{ id: link.hub, state: 'live', status: { ...figures, ...changes } }] } })

test('a hub without problems has no findings', () => {
  assert.deepEqual(findings(minute(), calm()), [])
  assert.deepEqual(findings(minute(), elsewhere({})), [])
})

for (const [what, alert, says, samples, state] of [
  ['a slow link', 'PeerPigeonSignalsSlow', /hub abababab is slow: a round trip takes 300 ms/, minute(), calm({ mesh: { ...calm().mesh, links: [{ ...link, rttMs: 300 }] } })],
  ['a hub that gets too little processor time', 'PeerPigeonTurnsLong', /awake for 180 % of a core, and ran for 50 %/, minute({ busy: [900, 900], cpu: 500 }), calm()],
  ['another hub that is nearly full', 'PeerPigeonNearlyFull', /Hub abababab has 90 of 100 connections/, minute(), elsewhere({ connections: 90 })],
  ['another hub that is busy', 'PeerPigeonShardBusy', /shard of hub abababab was busy for 95 %/, minute(), elsewhere({ busiestShard: 950 })],
  ['a hub of another version', 'PeerPigeonMixedVersions', /Hub abababab has version 2\.2\.0, and this hub 2\.1\.0/, minute(), elsewhere({ version: '2.2.0' })],
  ['a busy shard', 'PeerPigeonShardBusy', /Shard 1 is busy for 95 %/, minute({ busy: [100, 950], cpu: 1000 }), calm()],
  ['a flood', 'PeerPigeonRateLimited', /600 messages above MESSAGE_RATE refused and 0 peers disconnected/, minute({ exceeded: { messages: 10, errors: 10 } }), calm()],
  ['a flood of a peer', 'PeerPigeonRateLimited', /1.2k messages above MESSAGE_RATE_BYTES and EVENT_RATE_BYTES refused .* The worst is peer abab, with 7 refused messages\.$/, minute({ exceeded: { bytes: 15, events: 5 } }), calm({ flooder: { peer: 'abab', refused: 7 } })],
  ['a flood of invalid messages', 'PeerPigeonRateLimited', /600 invalid messages and 60 peers disconnected in the last minute \(a flooder that returns with a new id counts each time\)/, minute({ exceeded: { errors: 10 }, closes: { 'rate-limited': 1 } }), calm()],
  ['a Redis replica', 'PeerPigeonRedisDown', /127\.0\.0\.1:6379 is not connected: it is a replica/, minute(), calm({ mesh: { ...calm().mesh, redis: { connected: false, address: '127.0.0.1:6379', lastError: 'it is a replica', oneWay: [] } } })],
  ['an expiring certificate', 'PeerPigeonCertificateExpires', /of a\.example in a\.pem expires in 5 days/, minute(), calm({ tls: { ...calm().tls, certificates: [{ file: 'a.pem', names: ['a.example'], daysLeft: 5.5 }] } })],
  ['an expired certificate', 'PeerPigeonCertificateExpiresNow', /has expired/, minute(), calm({ tls: { ...calm().tls, certificates: [{ file: 'a.pem', names: [], daysLeft: -1 }] } })],
  ['a proxy that cuts connections', 'PeerPigeonPeersLost', /60 connections ended, and 60 of them without a close frame/, minute({ closes: { 'connection-lost': 1 } }), calm()],
  ['a limit that is nearly reached', 'PeerPigeonNearlyFull', /Connections: 900 of 1k \(MAX_CONNECTIONS\)/, minute(), calm({ budgets: [{ name: 'connections', used: 900, max: 1000, setting: 'MAX_CONNECTIONS' }] })],
  ['a lost hub', 'PeerPigeonHubLost', /Hub abababab is lost/, minute(), calm({ mesh: { ...calm().mesh, hubs: [{ id: link.hub, state: 'lost' }] } })],
  ['a thread that hangs', 'PeerPigeonThreadStuck', /shard-0 has made no progress for 12 s/, minute(), calm({ oldestTurn: ['shard-0', 12_000] })],
  ['lost signals', 'PeerPigeonSignalsLost', /50 % of the signals/, minute({ outcomes: { delivered: 5, 'slow-peer': 5 } }), calm()]
]) {
  test(`${what} is found`, () => {
    const found = findings(samples, state)
    assert.equal(found.length, 1, JSON.stringify(found))
    assert.match(found[0].text, says)
    assert.equal(found[0].alert, alert)
    assert.ok(found[0].link.endsWith(`#${alert.toLowerCase()}`))
  })
}

// ---- the page

/** Connects a peer and announces it in the network `n`. */
async function join (hub, id) {
  const socket = new WebSocket(`${hub.ws}/ws?peerId=${id}`)
  await within(5000, 'a connection', new Promise((resolve, reject) => { socket.once('open', resolve); socket.once('error', reject) }))
  socket.send(JSON.stringify({ type: 'announce', networkName: 'n' }))
  return socket
}

function watch (page) {
  const errors = []
  page.on('pageerror', error => errors.push(error.message))
  page.on('console', message => { if (message.type() === 'error') errors.push(message.text()) })
  return errors
}

/** Opens the live view, logs in if there is a token, and waits until the first figures are drawn. */
async function open (context, hub, token = TOKEN) {
  const page = await context.newPage()
  const errors = watch(page)
  await page.goto(`${hub.url}/dashboard`)
  if (token) {
    await page.fill('input[name=token]', token)
    await page.click('button')
    errors.length = 0
  }
  await page.waitForFunction(() => globalThis.isDrawn?.())
  return { page, errors }
}

const still = () => [...document.querySelectorAll('*')].map(element => getComputedStyle(element))
  .every(({ animationName, transitionProperty, transitionDuration }) => animationName === 'none' && (transitionProperty === 'none' || /^0s(, 0s)*$/.test(transitionDuration)))

hubTest('the live view works on small and large screens, light and dark, without a violation of accessibility', { timeout: 90_000, skip, hubs: 2, env: { ADMIN_TOKEN: TOKEN } }, async hub => {
  const sockets = [await join(hub, peerId()), await join(hub, peerId())]
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [360, 1280]) {
      // The page's own policy would forbid the script of axe that the test injects.
      const context = await browser.newContext({ colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce', bypassCSP: true })
      const { page, errors } = await open(context, hub)
      await page.locator('#tiles', { hasText: 'Peers2' }).waitFor()
      await page.locator('#links', { hasText: 'ready' }).waitFor()
      await page.locator('[data-chart=peers] summary').click()
      await page.locator('[data-chart=peers] tbody tr').first().waitFor()
      assert.ok(await page.evaluate(still), 'with reduced motion, nothing may move')
      await page.getByRole('button', { name: 'Show' }).click()
      await page.getByRole('button', { name: 'Members of n', exact: true }).click()
      await page.locator('#members tbody tr').nth(1).waitFor()
      await page.addScriptTag({ path: AXE })
      const { violations } = await page.evaluate(() => globalThis.axe.run())
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), [])
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no element may be wider than the screen')
      assert.deepEqual(errors, [])
      await context.close()
    }
  }
  sockets.forEach(socket => socket.close())
})

hubTest('the live view shows earlier events, obeys its policy, and sends requests only to the hub', { timeout: 60_000, skip, env: { ADMIN_TOKEN: TOKEN } }, async hub => {
  const ids = [peerId(), peerId()]
  const sockets = [await join(hub, ids[0]), await join(hub, ids[1])]
  sockets[0].send(JSON.stringify({ type: 'offer', networkName: 'n', targetPeerId: ids[1], data: '<img src=x onerror=alert(1)> very-secret' }))
  const context = await browser.newContext()
  const asked = new Set()
  context.on('request', request => asked.add(new URL(request.url()).host))
  const { page, errors } = await open(context, hub)
  await page.waitForFunction(() => document.querySelector('[data-chart=signals] .legend')?.textContent.includes('Delivered'))
  await page.locator('#tiles', { hasText: '100 % delivered' }).waitFor()
  const points = () => page.evaluate(() => document.querySelector('[data-chart=peers] path.line').getAttribute('d').match(/[ML]/g).length)
  await page.waitForFunction(() => document.querySelector('[data-chart=peers] path.line').getAttribute('d').match(/[ML]/g).length >= 4)
  // After a reload, the page begins with the same history.
  await page.reload()
  await page.waitForFunction(() => globalThis.isDrawn?.())
  assert.ok(await points() >= 4)
  assert.equal(await page.evaluate(() => document.documentElement.outerHTML.includes('very-secret')), false)
  assert.deepEqual(errors, [])
  assert.deepEqual([...asked], [new URL(hub.url).host])
  await context.close()
  sockets.forEach(socket => socket.close())
})

const ALONE = { ADMIN_TOKEN: TOKEN, IS_HUB: 'true', REDIS_URL: 'redis://127.0.0.1:1' }
hubTest('a hub without other hubs says so in a sentence', { timeout: 60_000, skip, env: ALONE }, async hub => {
  const context = await browser.newContext()
  const { page } = await open(context, hub)
  const note = 'This hub has no link to another hub, and knows no other hub. Redis is not connected: hubs cannot see each other\'s peers.'
  await page.locator('#mesh-note', { hasText: note }).waitFor()
  assert.equal(await page.locator('#graph').isVisible() || await page.locator('#links').isVisible(), false)
  await page.locator('#tiles', { hasText: 'Redis is not connected' }).waitFor()
  const redis = await page.locator('#redis').textContent()
  assert.ok(redis.includes('not connected') && !redis.includes('reconnects') && !redis.includes('none'), redis)
  await context.close()
})

hubTest('an operator kicks a peer with the keyboard, and must confirm it', { timeout: 60_000, skip, env: { ADMIN_TOKEN: TOKEN } }, async hub => {
  const id = peerId()
  const socket = await join(hub, id)
  const closed = new Promise(resolve => socket.once('close', resolve))
  const context = await browser.newContext()
  const { page, errors } = await open(context, hub)
  await page.locator('form[data-act=kick] [name=peer]').fill(id)
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').getByText(`Remove peer ${id} from this hub?`).waitFor()
  // In the dialog, the button for cancelling has the focus.
  await page.keyboard.press('Enter')
  await page.getByRole('dialog').waitFor({ state: 'hidden' })
  assert.equal(socket.readyState, WebSocket.OPEN)
  // The lists of networks and members open the same dialog.
  await page.getByRole('button', { name: 'Show' }).click()
  await page.getByRole('button', { name: 'Members of n', exact: true }).click()
  await page.getByRole('button', { name: `Kick ${id}` }).click()
  await page.getByRole('dialog').getByText(`Remove peer ${id} from this hub?`).waitFor()
  await page.locator('#confirm-no').click()
  await page.locator('form[data-act=kick] button').click()
  await page.getByRole('button', { name: 'Remove the peer' }).click()
  assert.equal(await within(5000, 'the kick', closed), 4011)
  await page.locator('#toast', { hasText: 'the peer was disconnected' }).waitFor()
  await page.locator('#ends', { hasText: 'kicked' }).waitFor()
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.locator('input[name=token]').waitFor()
  assert.deepEqual(errors.filter(text => !text.includes('401')), [])
  await context.close()
})

hubTest('without ADMIN_TOKEN the live view shows no orders and no log', { timeout: 60_000, skip }, async hub => {
  const context = await browser.newContext()
  const { page, errors } = await open(context, hub, null)
  await page.locator('#strangers').waitFor()
  for (const part of ['#orders', '#log-part', '#logout']) assert.equal(await page.locator(part).isVisible(), false)
  assert.deepEqual(errors, [])
  // When the hub has ended, the page shows that it has lost the hub.
  await hub.kill()
  await page.locator('#stream[data-is=lost]').waitFor()
  await context.close()
})

// The pairs of peers send as fast as they can. On a fast machine, that would exceed the default budgets.
const unlimited = { MESSAGE_RATE: '1000000', MESSAGE_RATE_BYTES: '1000000000', NETWORK_BUDGETS: '0' }
hubTest('the report of a load test is drawn under its own policy, without a violation of accessibility', { timeout: 90_000, skip, env: unlimited }, async hub => {
  const folder = await mkdtemp(path(tmpdir(), 'report-'))
  const file = path(folder, 'report.html')
  await promisify(execFile)(process.env.HUB_BIN, ['load-test', '--hub', hub.ws, '--peers', '40', '--duration', '2', '--scenario', 'relay', '--report', file])
  for (const width of [360, 1280]) {
    for (const bypassCSP of [false, true]) {
      const context = await browser.newContext({ viewport: { width, height: 800 }, bypassCSP })
      const page = await context.newPage()
      const errors = watch(page)
      const asked = []
      page.on('request', request => asked.push(request.url()))
      await page.goto(`file://${file}`)
      await page.locator('#verdict[data-is=live]', { hasText: 'Passed' }).waitFor()
      assert.ok(await page.evaluate(() => document.querySelectorAll('#histogram .bar').length > 0 && document.querySelectorAll('#heat .cell').length > 3))
      assert.ok(await page.evaluate(() => document.querySelector('#signals path.line').getAttribute('d').match(/[ML]/g).length >= 6))
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no element may be wider than the screen')
      assert.deepEqual(errors, [])
      assert.deepEqual(asked, [`file://${file}`])
      if (bypassCSP) {
        await page.addScriptTag({ path: AXE })
        const { violations } = await page.evaluate(() => globalThis.axe.run())
        assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), [])
      }
      await context.close()
    }
  }
  await rm(folder, { recursive: true })
})
