// Tests of existing clients: unmodified browser bundles of npm peerpigeon run in tabs of a real browser.
//
// For a long run, set PAIRS=100 and TABS=16.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { Wire, checkSignals, launch, serve } from './browser.mjs'
import { hubTest, peerId, startHub } from './hub.mjs'

const PAIRS = Number(process.env.PAIRS ?? 6)
const TABS = Number(process.env.TABS ?? 5)

// Number of pairs that connect at the same time. Each tab computes keys and gathers candidates. With many more tabs
// than cores, the clients would exceed their own time limits.
const PAIRS_AT_ONCE = 3

// Maximum time until a leave arrives. The hub notices a closed tab at once, so this is a reserve for busy machines.
const NOTICED_MS = 5_000

const VERSIONS = ['1.1.3', '1.0.6']

const bundle = version => `<!doctype html><script src="/${version}/peerpigeon-browser.js"></script>`

const pages = Object.fromEntries(VERSIONS.flatMap(version => [
  [`/${version}/`, bundle(version)],
  [`/${version}/peerpigeon-browser.js`, new URL(`node_modules/peerpigeon-${version.replaceAll('.', '-')}/dist/peerpigeon-browser.js`, import.meta.url)]
]))

// Some links fail because of races in the clients, or because the browser runs out of sockets. However, the messages of
// the hub must be correct in all cases.
const enough = (count, of) => count >= (of >= 25 ? of * 0.92 : of - 1)

let browser, web
before(async () => { [browser, web] = await Promise.all([launch(), serve(pages)]) })
after(async () => { await browser?.close(); web?.close() })

let tabs = []

/**
 * Defines a test with its own hub. Closes all tabs at the end. If the test fails, the messages of the open tabs are
 * shown.
 */
function tabTest (name, options, body) {
  hubTest(name, options, async (...hubs) => {
    tabs = []
    try {
      await body(...hubs)
    } catch (error) {
      show(tabs.filter(each => each.isOpen))
      throw error
    } finally {
      await closeAll(tabs)
    }
  })
}

const show = tabs => tabs.forEach(({ id, wire }) => console.error(`--- tab ${id}\n${wire}`))

const closeAll = tabs => Promise.all(tabs.map(each => each.vanish()))

/** Opens a tab with a `PeerPigeonMesh` that is not connected yet. */
async function tab (version, options) {
  const page = await browser.newPage()
  const wire = new Wire(page)
  await page.goto(`${web.origin}/${version}/`)
  const id = await page.evaluate(async options => {
    // The client is used as its README shows.
    const mesh = new window.PeerPigeonMesh(options)
    window.mesh = mesh
    window.events = []
    for (const type of ['peerDiscovered', 'peerConnected', 'peerDisconnected', 'messageReceived']) {
      mesh.addEventListener(type, event => window.events.push({ type, peerId: event.peerId ?? event.from, content: event.content }))
    }
    await mesh.init()
    return mesh.peerId
  }, options)
  tabs.push(new Tab(page, wire, id))
  return tabs.at(-1)
}

class Tab {
  constructor (page, wire, id) { Object.assign(this, { page, wire, id }) }

  get isOpen () { return !this.page.isClosed() }

  async connect (hub, query = '') {
    await this.page.evaluate(url => window.mesh.connect(url), `${hub.ws}/${query}`)
    await this.wire.until(wire => wire.heard('connected').length, 'connected')
    return this
  }

  /** Waits for an event of the mesh. */
  async sees (type, peerId, content, ms = 20_000) {
    const matches = ([type, peerId, content]) => window.events.some(event => event.type === type &&
      (!peerId || event.peerId === peerId) && (!content || event.content === content))
    await this.page.waitForFunction(matches, [type, peerId, content], { timeout: ms, polling: 50 })
      .catch(error => { throw new Error(`${this.id.slice(0, 8)} waited for ${type} of ${peerId}: ${error.message}`) })
  }

  async say (content) { await this.page.evaluate(content => window.mesh.sendMessage(content), content) }

  /** Closes the tab as its user would. The page's handlers for leaving run. */
  async leave () {
    const closed = this.page.waitForEvent('close')
    await this.page.close({ runBeforeUnload: true })
    await closed
  }

  /** Ends the tab like a crash. No handlers of the page run. */
  async vanish () { await this.page.close() }

  /** The leaves of this peer that this tab received from the hub. */
  leavesOf (id) {
    return this.wire.received.filter(({ message }) => (message.type === 'goodbye' && message.fromPeerId === id) ||
      (message.type === 'peer-disconnected' && message.data.peerId === id))
  }

  discoveriesOf (id) { return this.wire.heard('peer-discovered').filter(({ message }) => message.data.peerId === id) }
}

/** Waits until the link between two tabs is open, and sends a message in each direction. */
async function checkLink (a, b) {
  await Promise.all([a.sees('peerConnected', b.id), b.sees('peerConnected', a.id)])
  const [toB, toA] = [`to ${b.id}`, `to ${a.id}`]
  await a.say(toB)
  await b.sees('messageReceived', a.id, toB)
  await b.say(toA)
  await a.sees('messageReceived', b.id, toA)
}

/** Checks the hub's messages to two tabs. The messages must be correct even if the link between the tabs has not opened. */
async function checkWire (a, b) {
  for (const [one, other] of [[a, b], [b, a]]) {
    assert.ok(await checkSignals(one, other) >= 1, 'an offer or an answer must have arrived')
    assert.equal(one.discoveriesOf(other.id).length, 1, 'each tab must discover the other exactly once')
    assert.equal(one.discoveriesOf(one.id).length, 0, 'a tab must not discover itself')
  }
}

/**
 * Opens two tabs and waits for the link between them. On a busy machine, about one tab in a hundred gathers no
 * candidates, and its client does not recover. So the test makes up to three attempts. The hub's messages must be
 * correct in each attempt.
 */
async function linkedPair (hub, [first, second], networkName, query) {
  for (let tries = 1; ; tries++) {
    const [a, b] = [await tab(first, { networkName }), await tab(second, { networkName })]
    await a.connect(hub, query)
    await b.connect(hub, query)
    const failure = await checkLink(a, b).catch(error => error)
    await checkWire(a, b)
    if (!failure) return [a, b]
    if (tries === 3) throw failure
    console.error(`# one more attempt, because: ${failure.message.split('\n')[0]}`)
    await closeAll([a, b])
  }
}

for (const [first, second] of [['1.1.3', '1.1.3'], ['1.0.6', '1.0.6'], ['1.0.6', '1.1.3']]) {
  for (const networkName of ['global', 'lobby']) {
    tabTest(`${first} and ${second} meet in ${networkName}`, { timeout: 120_000 }, async hub => {
      const [a, b] = await linkedPair(hub, [first, second], networkName)
      await b.leave()
      const left = await a.wire.until(() => a.leavesOf(b.id)[0], 'the leave', NOTICED_MS)
      assert.equal(left.message.networkName, networkName)
      // When `a` discovers the next tab, all earlier leaves have arrived.
      await (await tab(second, { networkName, peerId: b.id })).connect(hub)
      await a.wire.until(() => a.discoveriesOf(b.id).length === 2, 'its successor')
      assert.equal(a.leavesOf(b.id).length, 1, 'there must be one leave, even if the tab sent several goodbyes')
    })
  }
}

tabTest('a crash of a tab is noticed at once', { timeout: 90_000 }, async hub => {
  const [a, b] = [await tab('1.1.3', { networkName: 'lobby' }), await tab('1.1.3', { networkName: 'lobby' })]
  await a.connect(hub)
  await b.connect(hub)
  await a.wire.until(() => a.discoveriesOf(b.id).length, 'discovery')
  await b.vanish()
  const { message } = await a.wire.until(() => a.leavesOf(b.id)[0], 'the leave', NOTICED_MS)
  assert.equal(message.networkName, 'lobby')
})

tabTest('peers of two networks do not discover each other', { timeout: 120_000 }, async hub => {
  const stranger = await (await tab('1.1.3', { networkName: 'y' })).connect(hub)
  const [a, b] = await linkedPair(hub, ['1.1.3', '1.0.6'], 'x')
  // When the stranger discovers this tab, all earlier events have arrived.
  await (await tab('1.1.3', { networkName: 'y' })).connect(hub)
  await stranger.wire.until(wire => wire.heard('peer-discovered').length, 'company')
  for (const each of [a, b]) assert.equal(stranger.discoveriesOf(each.id).length + each.discoveriesOf(stranger.id).length, 0)
})

tabTest('a token in the URL admits the clients', { timeout: 120_000, env: { AUTH_TOKEN: 'sesame' } }, async hub => {
  await linkedPair(hub, ['1.1.3', '1.0.6'], 'n', '?token=sesame')
})

tabTest('links stay open without the hub, and clients reconnect to its successor', { timeout: 150_000 }, async hub => {
  const [a, b] = await linkedPair(hub, ['1.1.3', '1.1.3'], 'n')
  await hub.kill()
  await a.say('without a hub')
  await b.sees('messageReceived', a.id, 'without a hub')
  const next = await startHub({ port: hub.port })
  try {
    // While a link works, the clients retry after 3 s and after another 6 s.
    for (const each of [a, b]) await each.wire.until(wire => wire.heard('connected').length === 2, 'a second connected', 30_000)
    for (const [one, other] of [[a, b], [b, a]]) await one.wire.until(() => one.discoveriesOf(other.id).length === 2, 'a second discovery of the other tab', 10_000)
    await b.say('still')
    await a.sees('messageReceived', b.id, 'still')
  } finally {
    await next.kill()
  }
})

for (const [version, hubs] of [...VERSIONS.map(version => [version, 1]), ['1.1.3', 2]]) {
  const where = hubs > 1 ? `, on ${hubs} hubs` : ''
  tabTest(`${PAIRS} pairs of tabs of ${version} connect, each pair in its own network${where}`, { hubs, timeout: 60_000 + PAIRS * 20_000, env: { MAX_CONNECTIONS: '2000' } }, async (...all) => {
    const [hub, other] = hubs > 1 ? all : [all[0], all[0]]
    const failures = []
    const waiting = Array.from({ length: PAIRS }, (_, index) => `pair-${index}`)
    const worker = async () => {
      for (let networkName = waiting.pop(); networkName; networkName = waiting.pop()) {
        const [a, b] = [await tab(version, { networkName }), await tab(version, { networkName })]
        // Both tabs connect at the same time, as after a restart of the hub. In either order, the client with the
        // greater id must discover the client with the smaller id.
        await Promise.all([a.connect(hub), b.connect(other)])
        await checkLink(a, b).catch(error => {
          failures.push(`${networkName}: ${error.message.split('\n')[0]}`)
          show([a, b])
        })
        await checkWire(a, b)
        await closeAll([a, b])
      }
    }
    await Promise.all(Array.from({ length: PAIRS_AT_ONCE }, worker))
    const connected = PAIRS - failures.length
    console.error(`# ${version}${where}: connected ${connected} of ${PAIRS}${failures.map(failure => `\n#   ${failure}`).join('')}`)
    assert.ok(enough(connected, PAIRS), `connected ${connected} of ${PAIRS}`)
  })
}

for (const [version, hubs] of [...VERSIONS.map(version => [version, 1]), ['1.1.3', 3]]) {
  const where = hubs > 1 ? ` over ${hubs} hubs` : ''
  tabTest(`${TABS} tabs of ${version}${where} become one mesh`, { hubs, timeout: 60_000 + TABS * 20_000 }, async (...all) => {
    const hubOf = index => all[index % hubs]
    const networkName = 'mesh'
    // With the default maxPeers of 3, four tabs could all be linked with each other, and the fifth would stay alone.
    for (let count = 0; count < TABS; count++) await tab(version, { networkName, maxPeers: TABS })
    const first = [...tabs]
    await Promise.all(first.map((each, index) => each.connect(hubOf(index))))
    await Promise.all(first.map(each => each.wire.until(wire => wire.heard('peer-discovered').length >= TABS - 1, 'the others')))
    const linked = await those(first, each => each.sees('peerConnected', undefined, undefined, 60_000))
    // A gossip message reaches all tabs of the mesh, even if some links are missing.
    const heard = await gossip(linked)
    console.error(`# ${version}${where}: linked ${linked.length} of ${TABS}, ${heard} heard the gossip of one`)
    const [leaver, ...rest] = first
    await leaver.leave()
    await Promise.all(rest.map(each => each.wire.until(() => each.leavesOf(leaver.id).length, 'the leave', NOTICED_MS)))
    // When the other tabs have discovered this new tab, all earlier events have arrived.
    const late = await (await tab(version, { networkName, maxPeers: TABS })).connect(hubOf(1))
    await Promise.all(rest.map(each => each.wire.until(() => each.discoveriesOf(late.id).length, 'the newcomer')))
    await late.wire.until(wire => wire.heard('peer-discovered').length >= rest.length, 'the remaining tabs')
    const told = each => each.wire.heard('peer-discovered').map(({ message }) => message.data.peerId).sort()
    const others = (all, each) => all.filter(other => other !== each).map(other => other.id).sort()
    for (const each of rest) {
      assert.deepEqual(told(each), others([...first, late], each), 'a tab must discover each other tab exactly once, and never itself')
      assert.equal(each.leavesOf(leaver.id).length, 1)
      for (const other of [...rest, late]) assert.equal(each.leavesOf(other.id).length, 0, 'no other tab has left')
    }
    assert.deepEqual(told(late), others(rest, late), 'a new tab must not discover a tab that has left')
    for (const from of rest) for (const to of rest) if (from !== to) await checkSignals(from, to)
    assert.ok(enough(linked.length, TABS), `linked ${linked.length} of ${TABS}`)
    assert.ok(enough(heard + 1, TABS), `${heard} of ${TABS - 1} heard the gossip`)
  })
}

/** The tabs for which the condition becomes true. */
async function those (tabs, comesTrue) {
  const outcomes = await Promise.allSettled(tabs.map(comesTrue))
  return tabs.filter((_, index) => outcomes[index].status === 'fulfilled')
}

/**
 * Lets one tab repeat a message until all other tabs have received it. Returns the number of tabs that have received
 * it. A mesh that is still forming may lose messages.
 */
async function gossip ([speaker, ...listeners]) {
  const content = `gossip ${peerId()}`
  const deadline = Date.now() + 60_000
  let deaf = listeners
  while (deaf.length && Date.now() < deadline) {
    await speaker.say(content)
    const heard = await those(deaf, each => each.sees('messageReceived', undefined, content, 2_000))
    deaf = deaf.filter(each => !heard.includes(each))
  }
  return listeners.length - deaf.length
}

tabTest('a new peer does not discover peers that have left another hub', { hubs: 2, timeout: 120_000 }, async (hub, other) => {
  const networkName = 'lobby'
  const watcher = await (await tab('1.1.3', { networkName })).connect(other)
  for (let round = 0; round < 4; round++) {
    const guests = await Promise.all(Array.from({ length: 10 }, () => tab('1.1.3', { networkName })))
    await Promise.all(guests.map(each => each.connect(hub)))
    await Promise.all(guests.map(each => watcher.wire.until(() => watcher.discoveriesOf(each.id).length, 'a guest')))
    await Promise.all(guests.map((each, index) => index % 2 ? each.leave() : each.vanish()))
    await Promise.all(guests.map(each => watcher.wire.until(() => watcher.leavesOf(each.id).length, 'its leave')))
  }
  const late = await (await tab('1.1.3', { networkName })).connect(other)
  await late.wire.until(() => late.discoveriesOf(watcher.id).length, 'the watcher')
  // When `late` discovers the last member, all earlier events have arrived.
  const last = await (await tab('1.1.3', { networkName })).connect(hub)
  await late.wire.until(() => late.discoveriesOf(last.id).length, 'the last')
  assert.equal(late.wire.heard('peer-discovered').length, 2, 'a new tab must not discover tabs that have left')
})
