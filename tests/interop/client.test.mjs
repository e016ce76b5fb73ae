// Tests of this repository's client in Chromium, with hubs that restart, drain or disappear.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { blackHole } from './blackhole.mjs'
import { awayAndBack, launch, launchStoppable } from './browser.mjs'
import { HUBS_AT, freePort, hubTest, startHub, urlOf, within } from './hub.mjs'
import { Client } from './client.mjs'
import { Tab, site } from './client-pages.mjs'
import { vectors } from './qr.mjs'
import { JWT_SECRET, renewals } from './renewals.mjs'
import { findTurn } from './turn.mjs'
import { chances, late } from './late.mjs'
import { examples } from './examples.mjs'
import { hasFirefox, launchFirefox } from './firefox.mjs'
import { byKeyboard, diagram, playground, printed, serversFound, strangers, takenHome } from './playground.mjs'

let browser, web
const turn = findTurn()
before(async () => { [browser, web] = [await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] }), await site()] })
after(async () => { await browser?.close(); web?.close() })

/** Defines a test with its own hub and browser context. The test fails if one of its pages has had an error. */
function tabs (name, options, body) {
  hubTest(name, { timeout: 90_000, skip: HUBS_AT && 'starts its own hubs', ...options }, async (...hubs) => {
    const context = await browser.newContext()
    const [opened, proxies] = [[], []]
    const cleanup = proxy => { proxies.push(proxy); return proxy }
    const open = async (query = {}, at = hubs.filter(hub => hub.ws).map(hub => hub.ws)) => {
      const tab = await Tab.open(context, web, at, query)
      opened.push(tab)
      return tab
    }
    try {
      await body({ open, hubs, context, tabs: opened, cleanup })
      for (const { errors } of opened) assert.deepEqual(errors, [])
    } finally {
      proxies.forEach(proxy => proxy.end())
      await context.close()
    }
  })
}

/** The events of these kinds in the log of a tab. */
const of = (log, ...kinds) => log.filter(([kind]) => kinds.includes(kind))

tabs('two tabs discover each other and exchange a message', {}, async ({ open }) => {
  const ann = await open({ name: 'ann' })
  const bob = await open({ name: 'bob' })
  await Promise.all([ann.linked(1), bob.linked(1)])
  assert.deepEqual(await ann.run(() => room.send({ text: 'hello' }).then(({ to }) => to.map(({ data }) => data.name))), ['bob'])
  await bob.until('messages.length === 1')
  assert.deepEqual(await bob.run(() => messages), [[await ann.id(), { text: 'hello' }]])
  assert.deepEqual(of(await ann.log(), 'error', 'leave'), [])
})

tabs('twelve tabs form one mesh, and each message arrives once', {}, async ({ open }) => {
  const all = await Promise.all(Array.from({ length: 12 }, (_, index) => open({ name: `${index}` })))
  await Promise.all(all.map(tab => tab.linked(11, 60_000)))
  await Promise.all(all.map(tab => tab.run(() => room.send(room.data.name))))
  await Promise.all(all.map(tab => tab.until('messages.length === 11')))
  for (const tab of all) {
    const got = await tab.run(() => messages.map(([, value]) => Number(value)).concat(Number(room.data.name)).sort((a, b) => a - b))
    assert.deepEqual(got, all.map((_, index) => index))
  }
})

tabs('a megabyte arrives as text and as bytes, and small messages on another channel do not wait for it', {}, async ({ open }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  await Promise.all([ann.linked(1), bob.linked(1)])
  await bob.run(() => { globalThis.ticks = []; room.channel('tick').on('message', sent => { ticks.push(Date.now() - sent) }) })
  await ann.run(async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(65_536))
    const large = new Uint8Array(8 * 1_048_576)
    for (let at = 0; at < large.length; at += bytes.length) large.set(bytes, at)
    globalThis.digest = async data => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', data))).join()
    const sending = room.send(large)
    for (let count = 0; count < 20; count++) await room.channel('tick').send(Date.now())
    await sending
    await room.send('ü'.repeat(500_000))
    globalThis.large = large
  })
  await bob.until('messages.length === 2', 'both messages', 60_000)
  const digest = async data => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', data))).join()
  assert.equal(await bob.page.evaluate(`(${digest})(messages[0][1])`), await ann.page.evaluate(`(${digest})(large)`))
  assert.equal(await bob.run(() => messages[1][1] === 'ü'.repeat(500_000)), true)
  const ticks = await bob.run(() => ticks)
  assert.equal(ticks.length, 20)
})

tabs('a hub that crashes does not close links, and when it runs again, a new peer connects to all others', { timeout: 120_000 }, async ({ open, hubs: [hub] }) => {
  const all = await Promise.all(Array.from({ length: 4 }, (_, index) => open({ name: `${index}` })))
  await Promise.all(all.map(tab => tab.linked(3)))
  const made = await Promise.all(all.map(tab => tab.run(() => rtc.made)))
  await hub.kill()
  await Promise.all(all.map(tab => tab.until('room.hub.is === "waiting"')))
  await Promise.all(all.map(tab => tab.run(() => room.send('while the hub is down'))))
  await Promise.all(all.map(tab => tab.until('messages.length === 3')))
  const late = await open({ name: 'late' }, [hub.ws])
  const again = await startHub({ port: hub.port })
  try {
    await Promise.all([...all, late].map(tab => tab.linked(4, 30_000)))
    for (const [index, tab] of all.entries()) {
      assert.deepEqual(of(await tab.log(), 'leave'), [])
      assert.equal(await tab.run(() => rtc.made), made[index] + 1, 'only the new peer may cause a new connection')
    }
  } finally {
    await again.kill()
  }
})

tabs('a hub that drains makes its tabs connect to the other hub, and no peer leaves', { timeout: 120_000 }, async ({ open }) => {
  const port = await freePort()
  const stays = await startHub({ port, env: { IS_HUB: 'true', MESH_TOKEN: 't', PUBLIC_URL: urlOf(port) } })
  const drained = await startHub({ env: { MESH_TOKEN: 't', BOOTSTRAP_HUBS: stays.ws, DRAIN_SECS: '3' } })
  try {
    const all = [await open({}, [drained.ws]), await open({}, [drained.ws]), await open({}, [stays.ws])]
    await Promise.all(all.map(tab => tab.linked(2, 30_000)))
    drained.child.kill('SIGTERM')
    assert.equal((await drained.exited).code, 0)
    await Promise.all(all.map(tab => tab.until('room.hub.is === "online"')))
    const late = await open({}, [stays.ws])
    await Promise.all([...all, late].map(tab => tab.linked(3, 30_000)))
    for (const tab of all) {
      assert.deepEqual(of(await tab.log(), 'leave'), [])
      assert.equal(await tab.run(() => rtc.made), 3)
    }
  } finally {
    await Promise.all([stays.kill(), drained.kill()])
  }
})

tabs('when the only hub drains, its pages wait as long as the hub asks, make few attempts, and return', { env: { DRAIN_SECS: '1' }, timeout: 60_000 }, async ({ open, hubs: [hub] }) => {
  const [ann, bob] = [await open({ later: '' }), await open({ later: '' })]
  for (const tab of [ann, bob]) {
    await tab.run(() => {
      globalThis.attempts = []
      start({ WebSocket: class extends WebSocket { constructor (...args) { super(...args); attempts.push(Date.now()) } } })
    })
  }
  await Promise.all([ann.linked(1), bob.linked(1)])
  const stops = Date.now()
  hub.child.kill('SIGTERM')
  assert.equal((await hub.exited).code, 0)
  // Each page has tried at least three times before a hub listens again.
  await Promise.all([ann, bob].map(tab => tab.until('attempts.length > 3')))
  const again = await startHub({ port: hub.port })
  try {
    await Promise.all([ann, bob].map(tab => tab.until('room.hub.is === "online"')))
    for (const tab of [ann, bob]) {
      const [, ...attempts] = await tab.run(() => attempts)
      // The hub asks for a pause of one second after its end.
      assert.ok(attempts[0] - stops >= 1_000, `${attempts[0] - stops} ms`)
      for (const [index, at] of attempts.entries()) if (index > 0) assert.ok(at - attempts[index - 1] >= 490, `${attempts}`)
      assert.deepEqual(of(await tab.log(), 'leave'), [])
      assert.ok((await tab.log()).some(([, , code]) => code === 'hub-leaving'))
    }
  } finally {
    await again.kill()
  }
})

tabs('a page with two hubs of one mesh connects to the second hub when the first hub crashes', { hubs: 2 }, async ({ open, hubs: [first, second] }) => {
  const [ann, bob] = [await open({ name: 'ann' }, [first.ws, second.ws]), await open({ name: 'bob' }, [second.ws])]
  await Promise.all([ann.linked(1), bob.linked(1)])
  await first.kill()
  await ann.until('log.filter(([kind, state]) => kind === "hub" && state === "online").length === 2', 'the second hub')
  const carl = await open({ name: 'carl' }, [second.ws])
  await Promise.all([ann, bob, carl].map(tab => tab.linked(2)))
  for (const tab of [ann, bob]) {
    assert.deepEqual(of(await tab.log(), 'leave'), [])
    assert.equal(await tab.run(() => rtc.made), 2)
  }
})

tabs('a link whose answer was lost with the hub opens soon after the hub is back', { timeout: 60_000 }, async ({ open, hubs: [hub], cleanup }) => {
  let holds = true
  let held = 0
  const proxy = cleanup(await late(hub.port, ({ type }) => {
    if (type !== 'answer' || !holds) return 0
    held++
    return 1e9
  }))
  const [ann, bob] = [await open({ name: 'ann' }, [proxy.ws]), await open({ name: 'bob' }, [proxy.ws])]
  for (const tab of [ann, bob]) await tab.until('room.peers.size === 1')
  const deadline = Date.now() + 10_000
  while (held === 0) if (await new Promise(resolve => setImmediate(resolve, Date.now() > deadline))) throw new Error('no answer')
  holds = false
  await hub.kill()
  const again = await startHub({ port: hub.port })
  try {
    await Promise.all([ann.linked(1, 15_000), bob.linked(1, 15_000)])
    await ann.run(() => room.send('hello'))
    await bob.until('messages.length === 1')
    for (const tab of [ann, bob]) assert.deepEqual(of(await tab.log(), 'error', 'leave'), [])
  } finally {
    await again.kill()
  }
})

const BLOCKED_SECS = process.env.SLOW ? 300 : 20
tabs(`when the scripts of a page are blocked for ${BLOCKED_SECS} s, no peer leaves`, { timeout: (BLOCKED_SECS + 100) * 1_000 }, async ({ open, context }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  await Promise.all([ann.linked(1), bob.linked(1)])
  const [before, made] = [await bob.log(), await ann.run(() => rtc.made)]
  const debug = await context.newCDPSession(ann.page)
  await debug.send('Debugger.enable')
  const paused = new Promise(resolve => debug.once('Debugger.paused', resolve))
  await debug.send('Debugger.pause')
  const waits = ann.run(() => { globalThis.woken = true })
  await paused
  await setTimeout(BLOCKED_SECS * 1_000)
  await debug.send('Debugger.resume')
  await waits
  await bob.run(() => room.send('awake?'))
  await ann.until('messages.length === 1')
  assert.deepEqual(of(await ann.log(), 'leave', 'hub', 'link').map(([kind]) => kind), ['hub', 'link'])
  assert.deepEqual(await bob.log(), before)
  assert.equal(await ann.run(() => rtc.made), made)
})

const STOPPED_SECS = process.env.SLOW ? 75 : 20
for (const greater of [true, false]) {
  tabs(`a browser that is stopped for ${STOPPED_SECS} s reconnects at once, if its peer has the ${greater ? 'smaller' : 'greater'} id`, { timeout: (STOPPED_SECS + 100) * 1_000 }, async ({ open, hubs: [hub] }) => {
    const other = await launchStoppable()
    try {
      const bob = await Tab.open(await other.browser.newContext(), web, hub.ws, { name: 'bob' })
      let ann = await open({ name: 'ann' })
      while ((await ann.id() > await bob.id()) !== greater) {
        await ann.page.close()
        ann = await open({ name: 'ann' })
      }
      await bob.until("[...room.peers.values()].map(peer => peer.state).join() === 'open'")
      await ann.linked(1)
      other.stop()
      await ann.until("[...room.peers.values()][0].state === 'interrupted'")
      await setTimeout(STOPPED_SECS * 1_000)
      other.goOn()
      await ann.linked(1, 40_000)
      await bob.linked(1, 40_000)
      await ann.run(() => room.send('awake?'))
      await bob.until('messages.length === 1')
      for (const tab of [ann, bob]) assert.equal(await tab.run(() => [...rtc.open].filter(({ connectionState }) => connectionState === 'connected').length), 1)
      if (!process.env.SLOW) assert.deepEqual(of(await ann.log(), 'join', 'leave').map(([kind]) => kind), ['join'])
    } finally {
      await other.close()
    }
  })
}

tabs('a reloaded page replaces its peer in the room', {}, async ({ open }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  await Promise.all([ann.linked(1), bob.linked(1)])
  for (let time = 1; time <= 3; time++) {
    await bob.page.reload()
    await ann.until(`log.filter(([kind]) => kind === 'join').length === ${time + 1} && [...room.peers.values()].every(peer => peer.state === 'open')`)
    await bob.linked(1)
    assert.equal(await ann.run(() => room.peers.size), 1)
    assert.deepEqual(of(await ann.log(), 'join', 'leave').map(([kind]) => kind), [...Array(time).fill(['join', 'leave']).flat(), 'join'])
  }
})

tabs('a reloaded page keeps its id, and a duplicated tab gets another id', {}, async ({ open, tabs }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  await Promise.all([ann.linked(1), bob.linked(1)])
  const id = await bob.id()
  for (let time = 0; time < 3; time++) {
    await bob.page.reload()
    await bob.linked(1)
    assert.equal(await bob.id(), id)
  }
  // A window that a page opens gets a copy of its session storage, as a duplicated tab does.
  const [copy] = await Promise.all([bob.page.waitForEvent('popup'), bob.run(() => { open(location.href) })])
  const carl = Tab.of(copy)
  tabs.push(carl)
  await carl.page.waitForFunction('globalThis.loaded')
  await Promise.all([ann, bob, carl].map(tab => tab.linked(2)))
  assert.notEqual(await carl.id(), id)
  assert.equal(await bob.id(), id)
  assert.deepEqual(of(await bob.log(), 'hub').map(([, state]) => state), ['online'])
})

tabs('a page in the back/forward cache leaves, and joins again when it returns', {}, async ({ open, context }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  await Promise.all([ann.linked(1), bob.linked(1)])
  const kept = await awayAndBack(bob.page, web.origin + '/client.js', async () => {
    await ann.until('room.peers.size === 0')
    assert.deepEqual(of(await ann.log(), 'leave').map(([, , reason]) => reason), ['left'])
  })
  await bob.page.waitForFunction('globalThis.loaded')
  await bob.linked(1)
  await ann.linked(1)
  if (kept) assert.deepEqual(of(await bob.log(), 'join', 'leave').map(([kind]) => kind), ['join', 'leave', 'join'])
})

tabs('when both sides publish and stop streams a hundred times, the last streams work, and no old transceiver remains', { timeout: 240_000 }, async ({ open, hubs: [hub], cleanup }) => {
  // Signals keep their order, but each has another delay, so that offers collide in many different states.
  const chance = chances(3)
  const order = new Map()
  const proxy = cleanup(await late(hub.port, ({ type, targetPeerId }) => {
    if (!['offer', 'answer', 'ice-candidate'].includes(type)) return 0
    const due = Math.max((order.get(targetPeerId) ?? 0) + 2, Date.now() + chance() * 60)
    order.set(targetPeerId, due)
    return due - Date.now()
  }))
  const [ann, bob] = [await open({ name: 'ann' }, [proxy.ws]), await open({ name: 'bob' }, [proxy.ws])]
  await Promise.all([ann.linked(1), bob.linked(1)])
  const churn = async seed => {
    let state = seed
    const chance = () => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648
    const picture = () => {
      // The video is small and slow, because this test is about negotiation, and encoders would take most of the time.
      const canvas = Object.assign(document.createElement('canvas'), { width: 16, height: 16 })
      const draw = canvas.getContext('2d')
      setInterval(() => draw.fillRect(0, 0, Math.random() * 16, 16), 250)
      return canvas.captureStream(4)
    }
    extras.streams(room)
    const { pc } = [...room.peers.values()][0]
    globalThis.collisions = 0
    pc.setRemoteDescription = description => {
      if (description.type === 'offer' && pc.signalingState !== 'stable') collisions++
      return RTCPeerConnection.prototype.setRemoteDescription.call(pc, description)
    }
    // The streams have sound, because its sections in a description are five times shorter than those of video.
    const sound = () => new AudioContext().createMediaStreamDestination().stream
    const streams = [sound(), sound()]
    for (let time = 0; time < 100; time++) {
      const publications = streams.filter(() => chance() < 0.7).map(stream => extras.publish(room, stream))
      if (chance() < 0.2) pc.restartIce()
      await new Promise(resolve => setTimeout(resolve, chance() * 60))
      publications.forEach(publication => publication.stop())
      // Negotiations take longer than the pauses. Without this wait, transceivers would accumulate, and each
      // negotiation would take a second, with descriptions of 200 KB.
      while (pc.signalingState !== 'stable' || pc.getTransceivers().length > 12) {
        await new Promise(resolve => pc.addEventListener('signalingstatechange', resolve, { once: true }))
      }
    }
    globalThis.last = extras.publish(room, picture())
  }
  await Promise.all([ann.page.evaluate(`(${churn})(1)`), bob.page.evaluate(`(${churn})(2)`)])
  assert.ok(await ann.run(() => collisions) + await bob.run(() => collisions) > 0, 'both sides must have offered at the same time')
  for (const tab of [ann, bob]) {
    await tab.page.waitForFunction(() => {
      const [peer] = room.peers.values()
      const live = peer.pc.getTransceivers().filter(({ direction }) => direction !== 'stopped')
      return extras.streams(room).of(peer).length === 1 && live.length === 2 && peer.pc.signalingState === 'stable'
    }, null, { timeout: 90_000 })
    await tab.run(() => new Promise(resolve => {
      const video = document.createElement('video')
      video.muted = true
      video.srcObject = extras.streams(room).of([...room.peers.values()][0])[0]
      video.requestVideoFrameCallback(resolve)
      video.play()
    }))
    assert.equal(await tab.run(() => rtc.made), 1, 'the connection must not be replaced')
    const sections = await tab.run(() => [...room.peers.values()][0].pc.localDescription.sdp.split('\nm=').length - 1)
    assert.ok(sections <= 40, `${sections} sections: sections of ended tracks must be used again`)
    assert.deepEqual(of(await tab.log(), 'error', 'leave'), [])
  }
})

tabs('when the network to the hub drops all data, links stay open, and the client reconnects', { timeout: 120_000 }, async ({ open, hubs: [hub] }) => {
  const hole = await blackHole(hub.port)
  try {
    const [ann, bob] = [await open({ name: 'ann' }, [hole.ws]), await open({ name: 'bob' })]
    await Promise.all([ann.linked(1), bob.linked(1)])
    hole.open()
    // After the event `online`, the client sends a ping, and considers the hub lost if no pong arrives within one tick
    // of five seconds. Without the event, it would wait for eight ticks, which is longer than until() waits.
    await ann.run(() => { dispatchEvent(new Event('online')) })
    await ann.until('room.hub.is === "waiting"')
    await ann.run(() => room.send('by the link'))
    await bob.until('messages.length === 1')
    hole.close()
    await ann.run(() => room.retry())
    // The hub pings the previous connection, which does not answer, and then admits the new connection.
    await ann.until('room.hub.is === "online"')
    await ann.run(() => room.send('through the same connection'))
    await bob.until('messages.length === 2')
    for (const tab of [ann, bob]) {
      assert.deepEqual(of(await tab.log(), 'leave', 'error'), [])
      assert.equal(await tab.run(() => rtc.made), 1)
    }
  } finally {
    hole.end()
  }
})

tabs('a peer that the hub considers dead stays in the room while its link answers', { env: { PEER_TIMEOUT_MS: '6000' }, timeout: 120_000 }, async ({ open, hubs: [hub] }) => {
  const hole = await blackHole(hub.port)
  try {
    const [ann, bob] = [await open({ name: 'ann' }, [hole.ws]), await open({ name: 'bob' })]
    await Promise.all([ann.linked(1), bob.linked(1)])
    hole.open()
    const dead = async () => {
      const { connections } = await (await fetch(`${hub.url}/health`)).json()
      return connections === 1
    }
    const deadline = Date.now() + 60_000
    while (!await dead()) if (Date.now() > deadline) throw new Error('the hub has not closed the dead connection')
    // The other page's client checks the link with a ping, which may take three seconds. Wait until this check is over.
    await bob.run(() => new Promise(resolve => setTimeout(resolve, 4_000)))
    await bob.run(() => room.send('are you there?'))
    await ann.until('messages.length === 1')
    hole.close()
    await ann.run(() => dispatchEvent(new Event('online')))
    await ann.until('room.hub.is === "online" && log.filter(([kind, state]) => kind === "hub" && state === "online").length === 2', 'the hub again', 30_000)
    for (const tab of [ann, bob]) {
      assert.deepEqual(of(await tab.log(), 'leave', 'error'), [])
      assert.equal(await tab.run(() => rtc.made), 1)
    }
  } finally {
    hole.end()
  }
})

tabs('each side replaces a connection that was closed from outside the client', { timeout: 120_000 }, async ({ open }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  for (const tab of [ann, bob]) {
    await Promise.all([ann.linked(1), bob.linked(1)])
    const other = tab === ann ? bob : ann
    const { length } = await other.log()
    await tab.run(() => { [...room.peers.values()][0].pc.close() })
    await other.until(`log.slice(${length}).some(([, , state]) => state === 'interrupted')`)
    await Promise.all([ann.linked(1, 60_000), bob.linked(1, 60_000)])
    await ann.run(() => room.send('again'))
  }
  await bob.until('messages.length === 2')
  for (const tab of [ann, bob]) {
    assert.deepEqual(of(await tab.log(), 'leave'), [])
    assert.equal(await tab.run(() => rtc.open.size), 1)
  }
})

tabs('late answers and candidates of an earlier connection have no effect', { timeout: 120_000 }, async ({ open, hubs: [hub] }) => {
  const chance = chances(7)
  let overtaken = 0
  // Offers are not delayed, so they overtake the answers and candidates of earlier offers.
  const proxy = await late(hub.port, ({ type }) => {
    if (type !== 'answer' && type !== 'ice-candidate') return 0
    overtaken++
    return chance() * 4_000
  })
  try {
    const [ann, bob] = [await open({ name: 'ann' }, [proxy.ws]), await open({ name: 'bob' }, [proxy.ws])]
    await Promise.all([ann.linked(1, 60_000), bob.linked(1, 60_000)])
    for (let time = 0; time < 4; time++) {
      const [tab, other] = time % 2 ? [ann, bob] : [bob, ann]
      const { length } = await other.log()
      await tab.run(() => { [...room.peers.values()][0].pc.close() })
      await other.until(`log.slice(${length}).some(([, , state]) => state === 'interrupted')`)
      await Promise.all([ann.linked(1, 60_000), bob.linked(1, 60_000)])
      await tab.run(() => room.send('again'))
      await other.until(`messages.length === ${Math.floor(time / 2) + 1}`)
    }
    assert.ok(overtaken > 8, `${overtaken} delayed signals`)
    for (const tab of [ann, bob]) {
      // On a busy machine, candidates that are 4 s late can make ICE fail. The client then tries again, as checked above.
      const errors = of(await tab.log(), 'leave', 'error').filter(([, code]) => code !== 'ice-failed')
      assert.deepEqual(errors, [])
      assert.equal(await tab.run(() => rtc.open.size), 1)
    }
  } finally {
    proxy.end()
  }
})

tabs('a wrong token causes a final error', { env: { AUTH_TOKEN: 'secret' } }, async ({ open }) => {
  const tab = await open({ later: '' })
  const error = await tab.run(() => start({ token: 'wrong' }).ready.catch(({ code, final, hint }) => ({ code, final, hint })))
  assert.deepEqual([error.code, error.final, error.hint.endsWith('#unauthorized')], ['unauthorized', true, true])
  await tab.run(() => start({ token: async () => 'secret' }).ready)
})

tabs('when a token becomes invalid while the hub is down, the token function is called again', { env: { AUTH_TOKEN: 'monday' }, timeout: 60_000 }, async ({ open, hubs: [hub] }) => {
  const tab = await open({ later: '' })
  await tab.run(async () => {
    globalThis.tokens = ['monday', 'monday', 'tuesday']
    globalThis.asked = 0
    await start({ token: async () => tokens[Math.min(asked++, tokens.length - 1)] }).ready
  })
  await hub.kill()
  const again = await startHub({ port: hub.port, env: { AUTH_TOKEN: 'tuesday' } })
  try {
    await tab.until('log.filter(([kind, state]) => kind === "hub" && state === "online").length === 2')
    assert.ok((await tab.log()).some(([kind, state, code]) => kind === 'hub' && state === 'waiting' && code === 'unauthorized'))
    assert.ok(await tab.run(() => asked) >= 3)
  } finally {
    await again.kill()
  }
})

for (const [title, body] of renewals) tabs(title, { env: { JWT_SECRET }, timeout: 60_000 }, body)

tabs('tabs with the same passphrase connect, and different passphrases cause an error on both sides and no link', {}, async ({ open, hubs: [hub] }) => {
  const [ann, bob, eve] = [await open({ later: '' }), await open({ later: '' }), await open({ later: '' })]
  const join = secret => { start({ seal: extras.passphrase(secret), data: { name: secret } }) }
  await Promise.all([ann.run(join, 'our secret'), bob.run(join, 'our secret'), eve.run(join, 'a guess')])
  await Promise.all([ann.linked(1), bob.linked(1), ...[ann, bob].map(tab => tab.until('log.some(([kind]) => kind === "error")'))])
  await eve.until('log.filter(([kind]) => kind === "error").length === 2')
  await ann.run(() => room.send('hello'))
  await bob.until('messages.length === 1')
  for (const tab of [ann, bob, eve]) {
    assert.deepEqual(new Set(of(await tab.log(), 'error').map(([, code]) => code)), new Set(['passphrase']))
    assert.equal(await tab.run(() => room.peers.size), 2, 'all pages must discover each other, because presence is not encrypted')
  }
  assert.equal(await eve.run(() => [...room.peers.values()].every(({ state }) => state === 'seen')), true)
})

tabs('a page that allows only relayed connections gets an error without a TURN server', { timeout: 60_000 }, async ({ open }) => {
  const [ann, bob] = [await open({ later: '' }), await open({ later: '' })]
  for (const tab of [ann, bob]) await tab.run(() => { start({ rtc: { iceTransportPolicy: 'relay' } }) })
  await Promise.all([ann, bob].map(tab => tab.until('log.some(([kind, code]) => kind === "error" && code === "ice-failed")', 'ice-failed', 40_000)))
})

tabs('a page that allows only relayed connections uses a TURN server with requested credentials', { timeout: 60_000, skip: !turn && 'coturn is not installed' }, async ({ open }) => {
  const server = await turn()
  try {
    const [ann, bob] = [await open({ later: '' }), await open({ later: '' })]
    for (const tab of [ann, bob]) {
      await tab.run(servers => {
        globalThis.asked = 0
        start({ rtc: { iceTransportPolicy: 'relay' }, iceServers: async () => { asked++; return servers } })
      }, server.iceServers)
    }
    await Promise.all([ann.linked(1, 30_000), bob.linked(1, 30_000)])
    await ann.run(() => room.send('relayed'))
    await bob.until('messages.length === 1')
    for (const tab of [ann, bob]) {
      assert.equal((await routeOf(tab)).path, 'relay')
      assert.ok(await tab.run(() => asked) >= 1)
    }
  } finally {
    await server.end()
  }
})

/**
 * The route of the only link of a tab. The route is polled, because the browser's statistics show it only after a
 * while, without an event.
 */
const routeOf = tab => within(20_000, 'the route', tab.run(async () => {
  for (;;) {
    const route = await extras.route([...room.peers.values()][0])
    if (route) return route
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}))

for (const [title, secrets] of [
  ['credentials from a hub that shares its secret with coturn', { TURN_SECRET: 'shared' }],
  ['the credential made with TURN_SECRET_ALSO while the secret is being replaced', { TURN_SECRET: 'new', TURN_SECRET_ALSO: 'shared' }]
]) {
  test(`a page that allows only relayed connections uses ${title}`, { timeout: 60_000, skip: (HUBS_AT && 'starts its own hub') || (!turn && 'coturn is not installed') }, async () => {
    const server = await turn({ secret: 'shared' })
    // Chromium can use two credentials for one server only over TCP.
    const transport = secrets.TURN_SECRET_ALSO ? 'tcp' : 'udp'
    const hub = await startHub({ env: { TURN_URLS: `${server.url}?transport=${transport}`, ICE_SERVERS: '[{"urls":"stun:127.0.0.1:9"}]', ...secrets } })
    const context = await browser.newContext()
    try {
      const [ann, bob] = await Promise.all(['ann', 'bob'].map(name => Tab.open(context, web, hub.ws, { later: '', name })))
      for (const tab of [ann, bob]) await tab.run(() => { start({ rtc: { iceTransportPolicy: 'relay' } }) })
      await Promise.all([ann.linked(1, 30_000), bob.linked(1, 30_000)])
      await ann.run(() => room.send('relayed'))
      await bob.until('messages.length === 1')
      for (const tab of [ann, bob]) {
        assert.equal((await routeOf(tab)).path, 'relay')
        const servers = await tab.run(() => [...room.peers.values()][0].pc.getConfiguration().iceServers)
        assert.equal(servers.length, 1 + Object.keys(secrets).length)
        const [expiry, peer] = servers[1].username.split(':')
        assert.equal(peer, await tab.id())
        assert.ok(Math.abs(Number(expiry) - Date.now() / 1000 - 3600) < 60, expiry)
      }
      assert.match(await (await fetch(`${hub.url}/metrics`)).text(), /^peerpigeon_turn_credentials_total 2$/m)
    } finally {
      await context.close()
      await Promise.all([hub.kill(), server.end()])
    }
  })
}

test('an open page gets new TURN credentials before the old ones expire, and uses them for the next connection', { timeout: 400_000, skip: (HUBS_AT && 'starts its own hub') || (!turn && 'coturn is not installed') || (!process.env.SLOW && 'takes four minutes: SLOW=1') }, async () => {
  const server = await turn({ secret: 'shared' })
  const hub = await startHub({ env: { TURN_URLS: server.url, TURN_SECRET: 'shared', TURN_TTL: '300' } })
  const context = await browser.newContext()
  try {
    const [ann, bob] = await Promise.all(['ann', 'bob'].map(name => Tab.open(context, web, hub.ws, { later: '', name })))
    for (const tab of [ann, bob]) await tab.run(() => { start({ rtc: { iceTransportPolicy: 'relay' } }) })
    await Promise.all([ann.linked(1, 30_000), bob.linked(1, 30_000)])
    const expiry = tab => tab.run(() => Number([...room.peers.values()][0].pc.getConfiguration().iceServers[0].username.split(':')[0]))
    const before = await Promise.all([ann, bob].map(expiry))
    // The hub sends new credentials, without a request, when three quarters of the validity are over.
    await setTimeout(240_000)
    await ann.run(() => { [...room.peers.values()][0].pc.close() })
    await bob.until('log.some(([, , state]) => state === "interrupted")')
    await Promise.all([ann.linked(1, 60_000), bob.linked(1, 60_000)])
    for (const [index, tab] of [ann, bob].entries()) {
      assert.equal((await routeOf(tab)).path, 'relay')
      const later = await expiry(tab) - before[index]
      assert.ok(later >= 220 && later <= 245, `${later} s later`)
      assert.deepEqual(of(await tab.log(), 'leave', 'error'), [])
    }
  } finally {
    await context.close()
    await Promise.all([hub.kill(), server.end()])
  }
})

tabs('when the path between two pages drops all data and the hub works, the link is restored, and no peer leaves', { timeout: 120_000, skip: !turn && 'coturn is not installed' }, async ({ open }) => {
  const server = await turn()
  try {
    const [ann, bob] = [await open({ later: '' }), await open({ later: '' })]
    for (const tab of [ann, bob]) await tab.run(servers => { start({ rtc: { iceTransportPolicy: 'relay' }, iceServers: servers }) }, server.iceServers)
    await Promise.all([ann.linked(1, 30_000), bob.linked(1, 30_000)])
    // All data between the two pages goes through this TURN server, so its end cuts the path.
    await server.end()
    await Promise.all([ann, bob].map(tab => tab.until("[...room.peers.values()][0].state === 'interrupted'", 'interrupted', 30_000)))
    const sending = ann.run(() => room.send('while the path is lost').then(({ to }) => to.length))
    await server.run()
    await Promise.all([ann.linked(1, 60_000), bob.linked(1, 60_000)])
    assert.equal(await sending, 1)
    await bob.until('messages.length === 1')
    for (const tab of [ann, bob]) {
      assert.deepEqual(of(await tab.log(), 'join', 'leave', 'hub').map(([kind]) => kind).sort(), ['hub', 'join'])
    }
  } finally {
    await server.end()
  }
})

tabs('when a page changes its data fifty times in a second, other pages receive few changes, and no link is replaced', {}, async ({ open }) => {
  const all = [await open({ name: 'ann' }), await open({ name: 'bob' }), await open({ name: 'carl' })]
  await Promise.all(all.map(tab => tab.linked(2)))
  const [ann, ...others] = all
  const before = await Promise.all(others.map(tab => tab.log()))
  await ann.run(async () => {
    for (let count = 1; count <= 50; count++) {
      room.update({ name: `ann ${count}` })
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  })
  for (const [index, tab] of others.entries()) {
    await tab.until("[...room.peers.values()].some(({ data }) => data.name === 'ann 50')")
    const news = (await tab.log()).slice(before[index].length)
    assert.deepEqual([...new Set(news.map(([kind]) => kind))], ['change'])
    assert.ok(news.length <= 15, `${news.length} changes`)
    assert.equal(await tab.run(() => rtc.made), 2)
  }
})

tabs('under bounded discovery, repeated calls of more() discover all members, and the page can connect to each of them', { env: { DISCOVERY: 'closest:2' } }, async ({ open, hubs: [hub] }) => {
  const bob = await open({ name: 'bob' })
  await bob.run(() => room.ready)
  const members = await Promise.all(Array.from({ length: 29 }, () => Client.join(hub, 'lobby', {})))
  const ann = await open({ later: '' })
  const { known, sizes } = await ann.run(async () => {
    start({ link: 'on-demand' })
    await room.ready
    const known = room.peers.size
    const sizes = []
    while (await room.more(5)) sizes.push(room.peers.size)
    return { known, sizes }
  })
  assert.ok(known <= 6, `${known} members at the join`)
  for (const [index, size] of sizes.entries()) assert.ok(size <= known + 5 * (index + 1), `${sizes}`)
  assert.equal(await ann.run(() => room.peers.size), 30)
  assert.equal(of(await ann.log(), 'join').length, 30)
  await ann.run(async id => {
    await room.peers.get(id).connect()
    await room.peers.get(id).send('found')
  }, await bob.id())
  await bob.until('messages.length === 1')
  assert.equal(await ann.run(() => room.more()), false)
  await Promise.all(members.map(member => member.close()))
  await ann.until('room.peers.size === 1')
})

tabs('a page of a forbidden origin gets a final error', { env: { ALLOWED_ORIGINS: 'https://other.example' } }, async ({ open }) => {
  const tab = await open({ later: '' })
  const error = await tab.run(() => start().ready.catch(({ code, final, message }) => ({ code, final, message })))
  assert.deepEqual([error.code, error.final, error.message.includes('ALLOWED_ORIGINS')], ['forbidden', true, true])
})

tabs('a kicked page does not reconnect, and the other pages receive the reason kicked', { env: { ADMIN_TOKEN: 'of-operators' } }, async ({ open, hubs: [hub] }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ name: 'bob' })]
  await Promise.all([ann.linked(1), bob.linked(1)])
  const order = await fetch(`${hub.url}/admin/kick`, { method: 'POST', headers: { authorization: 'Bearer of-operators' }, body: new URLSearchParams({ peer: await bob.id() }) })
  assert.equal(order.status, 200)
  await bob.until('room.hub.is === "closed"')
  assert.deepEqual(of(await bob.log(), 'hub').at(-1), ['hub', 'closed', 'kicked'])
  await ann.until('room.peers.size === 0')
  assert.deepEqual(of(await ann.log(), 'leave').map(([, , reason]) => reason), ['kicked'])
})

for (const kind of ['Worker', 'SharedWorker']) {
  tabs(`the WebSocket runs in a ${kind}, and ends with its page`, {}, async ({ open, hubs: [hub] }) => {
    const [ann, bob] = [await open({ name: 'ann' }), await open({ later: '' })]
    await bob.run(kind => {
      globalThis.plain = 0
      const Plain = WebSocket
      globalThis.WebSocket = class extends Plain { constructor (...args) { super(...args); plain++ } }
      const worker = kind === 'Worker' ? new Worker('/worker.js', { type: 'module' }) : new SharedWorker('/shared.js', { type: 'module' }).port
      start({ WebSocket: extras.workerSocket(worker), data: { name: 'bob' } })
    }, kind)
    await Promise.all([ann.linked(1), bob.linked(1)])
    await bob.run(() => room.send('from a worker'))
    await ann.until('messages.length === 1')
    assert.equal(await bob.run(() => plain), 0)
    // The page crashes, which causes no event. The worker must still notice it and close the WebSocket.
    const debug = await bob.page.context().newCDPSession(bob.page)
    debug.send('Page.crash').catch(() => {})
    await ann.until('room.peers.size === 0', 'the leave')
    const deadline = Date.now() + 10_000
    for (let connections; connections !== 1;) {
      ({ connections } = await (await fetch(`${hub.url}/health`)).json())
      if (Date.now() > deadline) throw new Error(`${connections} connections are left`)
    }
  })
}

tabs('while a tab sends much data to three others, one leaves and one reloads, and the third receives all data and chat messages', { timeout: 120_000 }, async ({ open }) => {
  const [ann, ...others] = [await open({ name: 'ann' }), await open({ name: 'stays' }), await open({ name: 'leaves' }), await open({ name: 'reloads' })]
  await Promise.all([ann, ...others].map(tab => tab.linked(3)))
  const [stays, leaves, reloads] = others
  await stays.run(() => {
    globalThis.sizes = []
    room.channel('file').on('message', part => { sizes.push(part.byteLength); dispatchEvent(new Event('noted')) })
    globalThis.late = []
    room.channel('chat').on('message', sent => { late.push(Date.now() - sent); dispatchEvent(new Event('noted')) })
  })
  await ann.run(() => {
    const part = new Uint8Array(1_048_576)
    globalThis.failed = new Set()
    globalThis.sent = 0
    globalThis.sending = (async () => {
      const peers = [...room.peers.values()]
      for (let count = 0; count < 40; count++) {
        const result = await room.channel('file').send(part, peers.filter(peer => !failed.has(peer.data.name)))
        for (const peer of result.failed.keys()) failed.add(peer.data.name)
        sent++
        await room.channel('chat').send(Date.now(), peers.filter(peer => peer.data.name === 'stays'))
        dispatchEvent(new Event('noted'))
      }
    })()
  })
  await ann.until('sent >= 5')
  await leaves.run(() => room.leave())
  await reloads.page.reload()
  await ann.until('sent === 40', 'all is sent', 60_000)
  await stays.until('sizes.length === 40 && late.length === 40', 'all has arrived', 60_000)
  assert.equal(await stays.run(() => sizes.every(size => size === 1_048_576)), true)
  assert.deepEqual(await ann.run(() => [...failed].sort()), ['leaves', 'reloads'])
})

tabs('after a hundred joins and leaves, no connection of them remains', {}, async ({ open, hubs: [hub] }) => {
  const [ann, bob] = [await open({ name: 'ann' }), await open({ later: '' })]
  await bob.run(async () => {
    for (let time = 0; time < 100; time++) {
      start({ data: { name: `${time}` } })
      if (time % 4 === 0) await room.ready
      if (time % 8 === 0) await until(() => [...room.peers.values()].some(peer => peer.state === 'open'))
      room.leave()
    }
  })
  await ann.until('room.peers.size === 0')
  await bob.page.waitForFunction(() => rtc.open.size === 0)
  await ann.page.waitForFunction(() => rtc.open.size === 0)
  const deadline = Date.now() + 10_000
  for (let connections; connections !== 1;) {
    ({ connections } = await (await fetch(`${hub.url}/health`)).json())
    if (Date.now() > deadline) throw new Error(`${connections} connections are left`)
  }
})

for (const [name, body] of [
  ['the playground works on small and large screens, light and dark, and is accessible', playground],
  ['the playground works by keyboard, under its policy, and sends requests only to the hub', byKeyboard],
  ['the playground shows the signaling of a link in the right order', diagram],
  ['the playground shows members that have no usable name', strangers],
  ['the code that the playground offers to copy works', takenHome],
  ['the examples work', examples],
  ['the page of README.md works', (...with_) => printed(...with_, 'README.md')],
  ['the page of README.zh-CN.md works', (...with_) => printed(...with_, 'README.zh-CN.md')]
]) {
  hubTest(name, { timeout: 90_000, skip: HUBS_AT && 'needs a single hub' }, hub => body(browser, hub))
}

for (const [title, answers, findings] of [
  ['answers', true, [['ok', 'TURN answers']]],
  ['does not answer', false, [['warn', 'STUN does not answer'], ['bad', 'TURN does not answer']]]
]) {
  test(`the self-test of the playground reports that TURN ${title}`, { timeout: 60_000, skip: (HUBS_AT && 'starts its own hub') || (!turn && 'coturn is not installed') }, async () => {
    const server = await turn({ secret: 'shared' })
    const hub = await startHub({ env: { TURN_URLS: server.url, TURN_SECRET: 'shared' } })
    try {
      if (!answers) await server.end()
      await serversFound(browser, hub, findings)
    } finally {
      await Promise.all([hub.kill(), server.end()])
    }
  })
}

tabs('two tabs of Firefox and one of Chromium form one mesh', { timeout: 120_000, skip: !hasFirefox && 'Firefox is not installed' }, async ({ open, hubs: [hub] }) => {
  const firefox = await launchFirefox()
  try {
    const foreign = async name => {
      const page = await firefox.open(`${web.origin}/?hub=${encodeURIComponent(hub.ws)}&name=${name}`)
      return Tab.of(page)
    }
    const [ann, bob, carl] = [await open({ name: 'ann' }), await foreign('bob'), await foreign('carl')]
    const all = [ann, bob, carl]
    await Promise.all(all.map(tab => tab.linked(2, 40_000)))
    for (const tab of all) await tab.run(() => room.send({ from: room.data.name, large: 'x'.repeat(100_000) }))
    for (const tab of all) {
      await tab.until('messages.length === 2')
      assert.deepEqual(of(await tab.log(), 'error', 'leave'), [])
    }
    // A lost connection is replaced, whether Firefox or Chromium sends the offer.
    await bob.run(() => { [...room.peers.values()].forEach(peer => peer.pc.close()) })
    await ann.until('log.some(([kind, , state]) => kind === "link" && state === "interrupted")')
    await Promise.all(all.map(tab => tab.linked(2, 60_000)))
    await carl.run(() => room.leave())
    await Promise.all([ann, bob].map(tab => tab.until('room.peers.size === 1')))
  } finally {
    await firefox.close()
  }
})

// In these runtimes, an npm package provides WebRTC. Bun and Deno are tested only if they are installed.
for (const [command, ...flags] of [['node'], ['bun'], ['deno', 'run', '--allow-all']]) {
  const missing = spawnSync(command, ['--version']).error && `${command} is not installed`
  const run = (script, hub, library) => {
    const child = spawn(command, [...flags, new URL(script, import.meta.url).pathname, hub.ws, `rtc/${library}.mjs`], { stdio: ['ignore', 'inherit', 'inherit'] })
    return { child, exit: once(child, 'exit').then(([code]) => code) }
  }
  for (const library of ['node-datachannel', 'wrtc', 'werift']) {
    hubTest(`the client runs in ${command} with ${library}`, { timeout: 60_000, skip: (HUBS_AT && 'needs a single hub') || missing }, async hub => {
      assert.equal(await run('two-rooms.mjs', hub, library).exit, 0)
    })

    const throws = command === 'bun' && library === 'werift' && 'in Bun, sockets of werift throw when a peer disappears'
    tabs(`a page and a process of ${command} with ${library} talk, also after a lost connection`, { skip: (HUBS_AT && 'needs a single hub') || missing || throws }, async ({ open, hubs: [hub] }) => {
      const { child, exit } = run('echo.mjs', hub, library)
      try {
        const tab = await open({ name: 'tab' })
        await tab.linked(1)
        await tab.run(() => room.send(new Uint8Array(100_000).fill(7)))
        await tab.until('messages.length === 1')
        assert.ok(await tab.run(() => messages[0][1].byteLength === 100_000 && new Uint8Array(messages[0][1]).every(byte => byte === 7)))
        await tab.run(() => { [...room.peers.values()][0].pc.close() })
        await tab.until("log.some(([, , state]) => state === 'interrupted')", 'interrupted')
        await tab.linked(1, 40_000)
        await tab.run(() => room.send({ again: 'ü' }))
        await tab.until('messages.length === 2')
        assert.deepEqual(await tab.run(() => messages[1][1]), { again: 'ü' })
        await tab.run(() => room.leave())
        assert.equal(await exit, 0)
      } finally {
        child.kill('SIGKILL')
      }
    })
  }
}

test('docs/client.md shows how these packages are used', async () => {
  const docs = await readFile(new URL('../../docs/client.md', import.meta.url), 'utf8')
  for (const library of ['node-datachannel', 'wrtc']) {
    const code = await readFile(new URL(`rtc/${library}.mjs`, import.meta.url), 'utf8')
    assert.ok(docs.includes(code.replaceAll('export class', 'class').trim()), `the code of rtc/${library}.mjs`)
  }
})

test('QR codes of every version equal the codes of another encoder', vectors)
