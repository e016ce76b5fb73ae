// Tests of pages whose tokens (JWT) expire after some seconds, at a hub that checks them.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { promisify } from 'node:util'
import { Wire } from './browser.mjs'
import { startHub } from './hub.mjs'

export const JWT_SECRET = 'a-secret-of-the-application-and-its-hub'

/** A token that `peerpigeon token mint` makes. The token expires after the time `lives`. */
async function mint (lives, ...more) {
  const { stdout } = await promisify(execFile)(process.env.HUB_BIN, ['token', 'mint', '--expires-in', lives, ...more], { env: { ...process.env, JWT_SECRET } })
  return stdout.trim()
}

/** A token that expired an hour ago. */
function expired () {
  const [head, claims] = [{ alg: 'HS256', typ: 'JWT' }, { exp: Math.floor(Date.now() / 1000) - 3600 }].map(part => Buffer.from(JSON.stringify(part)).toString('base64url'))
  return `${head}.${claims}.${createHmac('sha256', JWT_SECRET).update(`${head}.${claims}`).digest('base64url')}`
}

/**
 * Opens two pages with a link between them. The token function of the first page is `token`, which gets the number of the
 * call. The second page has a token for an hour. Also returns what the first page sends and receives.
 */
async function pair (open, token) {
  const [ann, bob] = [await open({ later: '', name: 'ann' }), await open({ later: '', name: 'bob' })]
  const wire = new Wire(ann.page)
  let asked = 0
  await ann.page.exposeFunction('mint', () => token(++asked))
  await ann.run(() => {
    start({ token: () => mint() })
  })
  const lasting = await mint('1h')
  await bob.run(token => { start({ token }) }, lasting)
  await Promise.all([ann.linked(1), bob.linked(1)])
  return [ann, bob, wire]
}

const hubStates = async tab => (await tab.log()).filter(([kind]) => kind === 'hub').map(([, state]) => state)

/** Checks that nobody has left, that the only connection is still open, and that messages arrive on it. */
async function undisturbed (ann, bob) {
  const count = await bob.run(() => messages.length)
  await ann.run(() => room.send('still here'))
  await bob.until(`messages.length === ${count + 1}`)
  for (const tab of [ann, bob]) {
    assert.deepEqual((await tab.log()).filter(([kind]) => ['leave', 'error'].includes(kind)), [])
    assert.deepEqual((await tab.log()).filter(([kind]) => kind === 'join').length, 1)
    assert.equal(await tab.run(() => rtc.made), 1)
  }
}

export const renewals = [
  ['a page renews its token again and again, and stays in the room', async ({ open }) => {
    const [ann, bob, wire] = await pair(open, () => mint('4s'))
    await wire.until(() => wire.heard('authorized').length === 3, 'three renewals')
    await undisturbed(ann, bob)
    assert.deepEqual(await hubStates(ann), ['online'])
  }],

  ['a token function that fails at first renews the token before it expires', async ({ open }) => {
    const [ann, bob, wire] = await pair(open, asked => {
      if (asked === 2) throw new Error('the application is busy')
      return mint(asked === 1 ? '8s' : '1h')
    })
    const { message: { data } } = await wire.until(() => wire.heard('authorized')[0], 'a renewal')
    assert.ok(data.expiresInMs > 3_000_000, 'the hub must have accepted the token that is valid for an hour')
    await undisturbed(ann, bob)
    assert.deepEqual(await hubStates(ann), ['online'])
  }],

  ['after its token has expired, because the token function failed too often, a page connects again, and its links stay open', async ({ open }) => {
    let works = true
    const [ann, bob] = await pair(open, () => {
      if (!works) throw new Error('the application is down')
      return mint('3s')
    })
    works = false
    await ann.until('room.hub.is === "waiting"')
    assert.equal(await ann.run(() => room.hub.because.code), 'unauthorized')
    await ann.run(() => room.send('without a hub'))
    await bob.until('messages.length === 1')
    works = true
    await ann.until('room.hub.is === "online"')
    await undisturbed(ann, bob)
  }],

  ['a page whose token expires while its scripts are blocked connects again, and its links stay open', async ({ open, context, hubs: [hub] }) => {
    const [ann, bob] = await pair(open, asked => mint(asked === 1 ? '3s' : '1h'))
    const debug = await context.newCDPSession(ann.page)
    await debug.send('Debugger.enable')
    const paused = new Promise(resolve => debug.once('Debugger.paused', resolve))
    await debug.send('Debugger.pause')
    const waits = ann.run(() => { globalThis.woken = true })
    await paused
    for (let connections; connections !== 1;) ({ connections } = await (await fetch(`${hub.url}/health`)).json())
    await debug.send('Debugger.resume')
    await waits
    await ann.until('log.filter(([kind, state]) => kind === "hub" && state === "online").length === 2', 'the hub again')
    await undisturbed(ann, bob)
  }],

  ['if two pages have tokens for the same id, the newer page gets the id, and the older page does not reconnect', async ({ open }) => {
    const token = await mint('1h', '--peer', 'a'.repeat(40))
    const join = token => { start({ id: '', token }) }
    const [first, second] = [await open({ later: '' }), await open({ later: '' })]
    await first.run(join, token)
    await first.until('room.hub.is === "online"')
    await second.run(join, token)
    await first.until('room.hub.is === "closed"')
    await second.until('room.hub.is === "online"')
    assert.equal(await second.id(), await first.run(() => room.id))
    assert.equal(await first.run(() => room.hub.because.code), 'id-in-use')
    assert.deepEqual(await hubStates(second), ['online'])
  }],

  ['a page whose token function returns an expired token at a reconnection asks for another one, and a fixed token that has expired is final', async ({ open, hubs: [hub] }) => {
    const [ann, bob] = await pair(open, asked => asked === 1 || asked > 3 ? mint('1h') : expired())
    await hub.kill()
    const again = await startHub({ port: hub.port, env: { JWT_SECRET } })
    try {
      await ann.until('log.filter(([kind, state]) => kind === "hub" && state === "online").length === 2', 'the hub again', 40_000)
      await bob.until('room.hub.is === "online"')
      assert.ok((await ann.log()).some(([kind, state, code]) => kind === 'hub' && state === 'waiting' && code === 'unauthorized'))
      await undisturbed(ann, bob)
      const carl = await open({ later: '' })
      const error = await carl.run(token => start({ token }).ready.catch(({ code, final, message }) => ({ code, final, message })), expired())
      assert.deepEqual([error.code, error.final, /expired/.test(error.message)], ['unauthorized', true, true])
    } finally {
      await again.kill()
    }
  }]
]
