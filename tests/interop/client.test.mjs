// The client of this repository, in Chromium, with hubs that are restarted, drained and lost.
import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { launch } from './browser.mjs'
import { Tab, site } from './client-pages.mjs'
import { HUBS_AT, freePort, hubTest, startHub } from './hub.mjs'

let browser, web
before(async () => { [browser, web] = [await launch(), await site()] })
after(async () => { await browser?.close(); web?.close() })

/** A test with a hub, in a browser context of its own. Pages must not have had an error. */
function tabs (name, options, body) {
  hubTest(name, { timeout: 90_000, skip: HUBS_AT && 'starts hubs of its own', ...options }, async (...hubs) => {
    const context = await browser.newContext()
    const opened = []
    const open = async (query = {}, at = hubs.filter(hub => hub.ws).map(hub => hub.ws)) => {
      const tab = await Tab.open(context, web, at, query)
      opened.push(tab)
      return tab
    }
    try {
      await body({ open, hubs, context, tabs: opened })
      for (const { errors } of opened) assert.deepEqual(errors, [])
    } finally {
      await context.close()
    }
  })
}

/** Events of a kind in the log of a tab. */
const of = (log, ...kinds) => log.filter(([kind]) => kinds.includes(kind))

tabs('two tabs meet and chat', {}, async ({ open }) => {
  const ann = await open({ name: 'ann' })
  const bob = await open({ name: 'bob' })
  await Promise.all([ann.linked(1), bob.linked(1)])
  assert.deepEqual(await ann.run(() => room.send({ text: 'hello' }).then(({ to }) => to.map(({ data }) => data.name))), ['bob'])
  await bob.until('messages.length === 1')
  assert.deepEqual(await bob.run(() => messages), [[await ann.id(), { text: 'hello' }]])
  assert.deepEqual(of(await ann.log(), 'error', 'leave'), [])
})

tabs('twelve tabs are one mesh, and each message comes once', {}, async ({ open }) => {
  const all = await Promise.all(Array.from({ length: 12 }, (_, index) => open({ name: `${index}` })))
  await Promise.all(all.map(tab => tab.linked(11, 60_000)))
  await Promise.all(all.map(tab => tab.run(() => room.send(room.data.name))))
  await Promise.all(all.map(tab => tab.until('messages.length === 11')))
  for (const tab of all) {
    const got = await tab.run(() => messages.map(([, value]) => Number(value)).concat(Number(room.data.name)).sort((a, b) => a - b))
    assert.deepEqual(got, all.map((_, index) => index))
  }
})

tabs('a megabyte, as text and as bytes, and small ones on another channel meanwhile', {}, async ({ open }) => {
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

tabs('a hub that crashes: links go on, nobody leaves, and a newcomer meets all when it is back', { timeout: 120_000 }, async ({ open, hubs: [hub] }) => {
  const all = await Promise.all(Array.from({ length: 4 }, (_, index) => open({ name: `${index}` })))
  await Promise.all(all.map(tab => tab.linked(3)))
  const made = await Promise.all(all.map(tab => tab.run(() => rtc.made)))
  await hub.kill()
  await Promise.all(all.map(tab => tab.until('room.hub.is === "waiting"')))
  await Promise.all(all.map(tab => tab.run(() => room.send('while it is away'))))
  await Promise.all(all.map(tab => tab.until('messages.length === 3')))
  const late = await open({ name: 'late' }, [hub.ws])
  const again = await startHub({ port: hub.port })
  try {
    await Promise.all([...all, late].map(tab => tab.linked(4, 30_000)))
    for (const [index, tab] of all.entries()) {
      assert.deepEqual(of(await tab.log(), 'leave'), [])
      assert.equal(await tab.run(() => rtc.made), made[index] + 1, 'one connection more, to the newcomer')
    }
  } finally {
    await again.kill()
  }
})

tabs('a hub that is drained: its tabs go to the other one, and nobody leaves', { timeout: 120_000 }, async ({ open }) => {
  const port = await freePort()
  const stays = await startHub({ port, env: { IS_HUB: 'true', MESH_TOKEN: 't', PUBLIC_URL: `ws://127.0.0.1:${port}` } })
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
