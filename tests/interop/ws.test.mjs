// Tests of the whole client protocol with npm `ws` and one hub.
//
// Messages from one peer to another keep their order. Therefore a test does not need to wait for a while to check that
// no message arrives. Instead, the sender sends one more message, and this message must be the next to arrive.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import WebSocket from 'ws'
import { Client, isFromClient, isFromHub } from './client.mjs'
import { HUBS_AT, freePort, hubTest, peerId, startHub, within } from './hub.mjs'

const HUB_KEYS = ['type', 'data', 'fromPeerId', 'targetPeerId', 'networkName', 'timestamp']
const TAKEOVER_GRACE_MS = 2_000

// This token contains characters that must be escaped in a URL.
const TOKEN = 'open/sesame+&more=%41?#'

/** Connects two peers to one network, and waits until they have discovered each other. No message is left unread. */
async function pair (hub, networkName, options = {}) {
  const a = await Client.connect(hub, options.a)
  const b = await Client.connect(hub, options.b)
  a.announce(networkName)
  b.announce(networkName)
  assert.equal((await a.next('peer-discovered')).message.data.peerId, b.id)
  assert.equal((await b.next('peer-discovered')).message.data.peerId, a.id)
  return [a, b]
}

function checkFromHub (frame, target, networkName) {
  const { raw, message, binary } = frame
  assert.equal(binary, false)
  // The fields `session` and `again` come after the fields that the Go hub also sends.
  const more = message.type.startsWith('peer-') ? ['session', ...'again' in message ? ['again'] : []] : []
  assert.deepEqual(Object.keys(message), [...HUB_KEYS, ...more])
  assert.equal(raw, JSON.stringify(message), 'the JSON must be compact')
  assert.equal(message.fromPeerId, 'system')
  assert.equal(message.targetPeerId, target)
  assert.equal(message.networkName, networkName)
  assert.ok(Math.abs(message.timestamp - Date.now()) < 60_000, 'the timestamp must be the current time in milliseconds')
}

async function eventually (check, ms = 5_000) {
  const deadline = Date.now() + ms
  for (;;) {
    try { return await check() } catch (error) {
      if (Date.now() > deadline) throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}

// --- ids with proof: runs the example of docs/security.md exactly as it is printed there

const proofExample = readFileSync(new URL('../../docs/security.md', import.meta.url), 'utf8')
  .split('<!-- example:proof -->')[1].match(/^\s*```js\n(.*?)```/s)[1]

test('ids with proof: the example in the documentation works', { skip: HUBS_AT && 'needs its own hub' }, async () => {
  assert.ok(proofExample.trimEnd().split('\n').length <= 15, 'the example must have at most 15 lines')
  const port = await freePort()
  const hub = await startHub({ port, env: { PEER_ID_PROOF: 'required', PEER_ID_HOSTS: `127.0.0.1:${port}` } })
  // The hub `other` expects another host name in proofs than its clients use.
  const other = await startHub({ env: { PEER_ID_PROOF: 'offered', PEER_ID_HOSTS: 'hub.example' } })
  try {
    const connect = new Function('WebSocket', `${proofExample}\nreturn connect`)(WebSocket)
    const keys = await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])
    const types = async socket => {
      const types = []
      await within(10_000, () => `connected; received ${types}`, new Promise((resolve, reject) => {
        socket.addEventListener('message', ({ data }) => {
          const message = JSON.parse(data)
          assert.ok(isFromHub(message), data)
          types.push(message.type)
          if (message.type === 'connected') resolve()
        })
        socket.addEventListener('close', ({ code, reason }) => reject(new Error(`${code} ${reason}`)))
      }))
      return types
    }
    const first = await connect(hub.ws, keys)
    const replaced = once(first, 'close')
    assert.deepEqual(await types(first), ['challenge', 'connected'])
    const second = await connect(hub.ws, keys)
    await types(second)
    assert.equal((await replaced)[0], 4001)
    second.close()
    await assert.rejects(connect(other.ws, keys).then(types), /4403 .*another host/)
  } finally {
    await Promise.all([hub.kill(), other.kill()])
  }
})

// --- schemas (each message of these tests is also validated)

hubTest('schema: valid messages pass, and invalid messages fail', {}, async hub => {
  const [a, b] = [peerId(), peerId()]
  for (const message of [
    { type: 'announce', networkName: 'n', data: { info: 'hi', discover: { closest: 8 } } }, { type: 'announce' }, { type: 'ping' },
    { type: 'offer', targetPeerId: a, data: { sdp: '' }, id: 'x' }, { type: 'answer', targetPeer: a }, { type: 'goodbye', networkName: null },
    { type: 'discover', data: { limit: 4 } }, { type: 'cleanup' }
  ]) assert.ok(isFromClient(message), JSON.stringify(message))
  for (const message of [
    {}, [], { type: 'hello' }, { type: 'offer' }, { type: 'offer', targetPeerId: 'b' }, { type: 'announce', networkName: 7 },
    { type: 'announce', data: { discover: { closest: 0 } } }, { type: 'announce', data: 'x' }, { type: 'discover', data: { limit: 65 } },
    { type: 'offer', targetPeerId: a, id: 7 }
  ]) assert.ok(!isFromClient(message), JSON.stringify(message))
  const pong = { type: 'pong', data: { timestamp: Date.now() }, fromPeerId: 'system', targetPeerId: a, networkName: 'global', timestamp: Date.now() }
  assert.ok(isFromHub(pong))
  for (const wrong of [{ fromPeerId: b }, { targetPeerId: 'A' }, { timestamp: 0 }, { data: {} }, { type: 'announce' }, { networkName: '' }]) {
    assert.ok(!isFromHub({ ...pong, ...wrong }), JSON.stringify(wrong))
  }
  const left = { ...pong, type: 'peer-disconnected', data: { isHub: false, peerId: b, reason: 'boredom', timestamp: Date.now() } }
  assert.ok(!isFromHub(left))
  assert.ok(isFromHub({ ...left, data: { ...left.data, reason: 'hub-lost' } }))
  const code = { ...pong, type: 'error', data: { code: 'peer-not-found', message: 'no' } }
  assert.ok(isFromHub(code) && !isFromHub({ ...code, data: { code: 'nope', message: 'no' } }))
})

hubTest('schema: it contains the same reasons and codes as the metrics', {}, async hub => {
  const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  const listed = (series, label) => page.match(new RegExp(`\\| \`${series}\` \\| \`${label}\` \\| (.*) \\|`))[1].match(/[a-z0-9-]+/g)
  const said = JSON.parse(readFileSync(new URL('../../docs/schema/hub.schema.json', import.meta.url), 'utf8'))
  const disconnected = said.oneOf.find(one => one.title === 'peer-disconnected').properties.data.properties.reason.enum
  // For a closed page, clients receive the reason client-closed with another close code.
  const reasons = listed('peerpigeon_closes_total', 'reason').filter(reason => reason !== 'page-closed')
  assert.deepEqual([...reasons, 'hub-lost', 'moved', 'crowded'].sort(), [...disconnected].sort())
  assert.deepEqual(listed('peerpigeon_errors_total', 'code').sort(), [...said.$defs.code.enum].sort())
})

// --- connecting

for (const path of ['/ws', '/', '/ws/']) {
  hubTest(`connect: at ${path}, the first message is connected`, {}, async hub => {
    const a = await Client.open(hub, { path })
    const { raw, message } = await a.next('connected')
    assert.deepEqual(Object.keys(message), ['type', 'data', 'fromPeerId', 'networkName', 'timestamp'])
    assert.equal(raw, JSON.stringify(message))
    assert.ok(raw.startsWith(`{"type":"connected","data":{"peerId":"${a.id}"`), raw)
    assert.equal(message.fromPeerId, 'system')
    assert.equal(message.networkName, 'global')
    assert.match(message.data.hubId, /^[0-9a-f]{40}$/)
    assert.equal(message.data.protocol, 2)
    assert.ok(message.data.heartbeatMs > 0)
    assert.ok(message.data.maxMessageBytes > 0)
  })
}

hubTest('connect: an id in upper case means the same peer as in lower case', {}, async hub => {
  const id = peerId('ab')
  const a = await Client.connect(hub, { id: id.toUpperCase() })
  assert.equal(a.connected.message.data.peerId, id)
  const b = await Client.connect(hub)
  b.signal('offer', id.toUpperCase(), 1)
  const { message } = await a.next('offer')
  assert.equal(message.targetPeerId, id)
})

hubTest('connect: an invalid peerId is refused with 403', {}, async hub => {
  for (const id of ['', 'x', 'g'.repeat(40), 'a'.repeat(39), 'a'.repeat(41)]) {
    await assert.rejects(Client.open(hub, { id }), { status: 403, body: 'invalid peerId' })
  }
})

hubTest('connect: a GET of /ws without an upgrade gets 400', {}, async hub => {
  assert.equal((await fetch(`${hub.url}/ws?peerId=${peerId()}`)).status, 400)
})

hubTest('connect: AUTH_TOKEN is checked before the id', { env: { AUTH_TOKEN: TOKEN } }, async hub => {
  const unauthorized = { status: 401, body: 'unauthorized' }
  await assert.rejects(Client.open(hub), unauthorized)
  await assert.rejects(Client.open(hub, { id: 'x' }), unauthorized)
  await assert.rejects(Client.open(hub, { query: { token: 'open' } }), unauthorized)
  await assert.rejects(Client.open(hub, { options: { headers: { Authorization: 'Bearer open' } } }), unauthorized)
  await Client.connect(hub, { query: { token: TOKEN } })
  await Client.connect(hub, { options: { headers: { Authorization: `Bearer ${TOKEN}` } } })
  await assert.rejects(Client.open(hub, { id: 'x', query: { token: TOKEN } }), { status: 403 })
  assert.equal((await fetch(`${hub.url}/health`)).status, 200)
})

hubTest('connect: a peer beyond MAX_CONNECTIONS is closed with 1008 without a message', { env: { MAX_CONNECTIONS: '2' } }, async hub => {
  const a = await Client.connect(hub)
  await Client.connect(hub)
  const c = await Client.open(hub)
  assert.deepEqual(await c.end(), { code: 1008, reason: 'max connections' })
  assert.equal(c.frames.length, 0)
  await a.close()
  await eventually(() => Client.connect(hub))
})

// --- announce and discover

hubTest('announce: both peers discover each other and not themselves, in the format of the Go hub with a session number', {}, async hub => {
  const a = await Client.connect(hub, { id: peerId('a') })
  const b = await Client.connect(hub, { id: peerId('b') })
  a.announce('n', { info: 'hello' })
  assert.deepEqual(await a.fence(), [], 'an announcement without `ack` has no answer')
  b.announce('n', { info: 'hi' })
  const told = await a.next('peer-discovered')
  checkFromHub(told, a.id, 'n')
  assert.equal(told.raw, `{"type":"peer-discovered","data":{"info":"hi","isHub":false,"peerId":"${b.id}"},"fromPeerId":"system","targetPeerId":"${a.id}","networkName":"n","timestamp":${told.message.timestamp},"session":${told.message.session}}`)
  assert.ok(Number.isSafeInteger(told.message.session))
  const newcomer = await b.next('peer-discovered')
  checkFromHub(newcomer, b.id, 'n')
  assert.deepEqual(newcomer.message.data, { info: 'hello', isHub: false, peerId: a.id })
  assert.deepEqual(await a.hearUntil(b, 'n'), [])
  assert.deepEqual(await b.hearUntil(a, 'n'), [])
})

hubTest('announce: a new member discovers all others with their data, in ascending order of ids', {}, async hub => {
  const members = await Promise.all(Array.from({ length: 16 }, () => Client.connect(hub)))
  members.forEach((member, index) => member.announce('n', { index }))
  for (const member of members) {
    const others = members.filter(other => other !== member).map(other => other.id)
    const heard = []
    while (heard.length < others.length) heard.push((await member.next('peer-discovered')).message.data.peerId)
    assert.deepEqual(heard.sort(), others.sort(), 'each other member must be discovered exactly once')
  }
  const newcomer = await Client.connect(hub)
  newcomer.announce('n')
  const told = []
  while (told.length < members.length) told.push((await newcomer.next('peer-discovered')).message.data)
  const expected = members.map((member, index) => ({ index, isHub: false, peerId: member.id }))
  assert.deepEqual(told, expected.sort((a, b) => a.peerId < b.peerId ? -1 : 1))
  assert.deepEqual(await newcomer.hearUntil(members[0], 'n'), [])
})

hubTest('announce: a repeated announcement sends the new data and repeats all discoveries', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  b.announce('n', { mood: 'new' })
  const renewed = (await a.next('peer-discovered')).message
  assert.deepEqual(renewed.data, { mood: 'new', isHub: false, peerId: b.id })
  assert.equal(renewed.again, true)
  assert.equal((await b.next('peer-discovered')).message.data.peerId, a.id)
  assert.deepEqual(await a.hearUntil(b, 'n'), [])
  const c = await Client.join(hub, 'n')
  const moods = [...c.roster, ...await c.hearUntil(a, 'n')].filter(frame => frame.message.data.peerId === b.id)
  assert.deepEqual(moods.map(frame => frame.message.data.mood), ['new'])
})

hubTest('announce: the hub sets peerId and isHub', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  b.announce('n', { peerId: a.id, isHub: true, more: [1, { two: null }] })
  assert.deepEqual((await a.next('peer-discovered')).message.data, { more: [1, { two: null }], isHub: false, peerId: b.id })
  a.signal('offer', peerId(), 1, { networkName: 'n' })
  await a.find(frame => frame.message.type === 'error', 'an error')
  assert.deepEqual((await b.hearUntil(a, 'n')).filter(frame => frame.message.type === 'offer'), [], 'a peer with isHub must not receive signals for unknown peers')
})

hubTest('announce: data that is not an object counts as an empty object', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  for (const data of [null, 'text', 7, true, ['x'], undefined]) {
    b.announce('n', data)
    assert.deepEqual((await a.next('peer-discovered')).message.data, { isHub: false, peerId: b.id })
  }
})

hubTest('announce: text in any script and with any escape sequence arrives unchanged', {}, async hub => {
  const [a, b] = await pair(hub, 'nätwörk 🐦 "quoted" \\ \u0001')
  const data = { 'ключ "x"': 'värde \\ \u0000 \u2028 🕊', nested: { deep: [[[['x']]]] } }
  b.announce('nätwörk 🐦 "quoted" \\ \u0001', data)
  const { message } = await a.next('peer-discovered')
  assert.deepEqual(message.data, { ...data, isHub: false, peerId: b.id })
  assert.equal(message.networkName, 'nätwörk 🐦 "quoted" \\ \u0001')
})

// --- networks

hubTest('networks: a missing, null or blank name means global', {}, async hub => {
  const a = await Client.join(hub, 'global')
  for (const networkName of [undefined, null, '', '   ', 'global']) {
    const b = await Client.connect(hub)
    b.announce(networkName)
    const { message } = await a.next('peer-discovered')
    assert.equal(message.data.peerId, b.id)
    assert.equal(message.networkName, 'global')
    await b.close()
    assert.equal((await a.next('peer-disconnected')).message.networkName, 'global')
  }
})

hubTest('networks: names are compared exactly, and networks are separate', {}, async hub => {
  const a = await Client.join(hub, 'Room')
  const b = await Client.connect(hub)
  for (const networkName of ['room', ' Room', 'Room ', 'global', 'Room']) b.announce(networkName)
  const { message } = await a.next('peer-discovered')
  assert.equal(message.networkName, 'Room')
  assert.deepEqual(await a.hearUntil(b, 'Room'), [])
})

hubTest('networks: a peer in two networks receives the events of each', {}, async hub => {
  const a = await Client.connect(hub)
  const b = await Client.connect(hub)
  for (const networkName of ['x', 'y']) { a.announce(networkName); b.announce(networkName) }
  const discovered = [await a.next('peer-discovered'), await a.next('peer-discovered')]
  assert.deepEqual(discovered.map(frame => frame.message.networkName).sort(), ['x', 'y'])
  for (const networkName of ['x', 'y']) {
    b.signal('offer', a.id, networkName, { networkName })
    const { message } = await a.next('offer')
    assert.equal(message.networkName, networkName)
  }
  await b.close()
  const left = [await a.next('peer-disconnected'), await a.next('peer-disconnected')]
  assert.deepEqual(left.map(frame => frame.message.networkName).sort(), ['x', 'y'])
})

// --- signals

hubTest('signals: data passes through byte for byte', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const texts = [
    '{"sdp":"v=0\\r\\no=- 4611731400430051336 2 IN IP4 127.0.0.1\\r\\n","type":"offer"}',
    '{"z":1,"a":{"c":1,"b":2},"a":3}',
    '{ "spaces" : [ 1 , 2 ]\t}',
    '12345678901234567890123456789',
    '1.0',
    '-0',
    '1e400',
    '"\\u00e9\\ud83d\\ude00 é 🐦 \\/"',
    '[]',
    'null',
    'false',
    '""'
  ]
  for (const type of ['offer', 'answer', 'ice-candidate']) {
    for (const data of texts) {
      a.send(`{"type":"${type}","targetPeerId":"${b.id}","networkName":"n","data":${data}}`)
      const { raw, message } = await b.next(type)
      assert.equal(raw, `{"type":"${type}","data":${data},"fromPeerId":"${a.id}","targetPeerId":"${b.id}","networkName":"n","timestamp":${message.timestamp}}`)
    }
  }
})

hubTest('signals: missing data arrives as null', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.send({ type: 'offer', targetPeerId: b.id, networkName: 'n' })
  const { raw, message } = await b.next('offer')
  assert.equal(raw, `{"type":"offer","data":null,"fromPeerId":"${a.id}","targetPeerId":"${b.id}","networkName":"n","timestamp":${message.timestamp}}`)
})

hubTest('signals: fromPeerId is always the id of the sender', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.signal('offer', b.id, 1, { networkName: 'n', fromPeerId: b.id })
  assert.equal((await b.next('offer')).message.fromPeerId, a.id)
})

hubTest('signals: the order of keys and unknown keys do not matter', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.send(`{"data":{"x":1},"maxPeers":3,"networkName":"n","nested":{"type":"announce","targetPeerId":"no"},"targetPeerId":"${b.id}","type":"offer"}`)
  assert.deepEqual((await b.next('offer')).message.data, { x: 1 })
})

hubTest('signals: targetPeer is an alias of targetPeerId', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.send({ type: 'offer', targetPeer: b.id, networkName: 'n', data: 1 })
  assert.equal((await b.next('offer')).message.targetPeerId, b.id)
})

hubTest('signals: a peer may signal itself', {}, async hub => {
  const a = await Client.connect(hub)
  a.signal('offer', a.id, 'me')
  const { message } = await a.next('offer')
  assert.deepEqual([message.fromPeerId, message.targetPeerId, message.data], [a.id, a.id, 'me'])
})

hubTest('signals: a peer without an announcement is in global', {}, async hub => {
  const a = await Client.connect(hub)
  const b = await Client.connect(hub)
  a.signal('offer', b.id, 1)
  assert.equal((await b.next('offer')).message.networkName, 'global')
  a.signal('offer', b.id, 1, { networkName: 'n' })
  assert.equal((await a.next('error')).message.data.code, 'wrong-network')
})

hubTest('signals: a thousand signals in each direction arrive in order and exactly once', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  for (let index = 0; index < 1000; index++) {
    a.signal('ice-candidate', b.id, index, { networkName: 'n' })
    b.signal('ice-candidate', a.id, index, { networkName: 'n' })
  }
  for (const client of [a, b]) {
    for (let index = 0; index < 1000; index++) assert.equal((await client.next('ice-candidate')).message.data, index)
  }
})

hubTest('signals: types that would disturb existing clients are dropped without an error', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  for (const type of ['connection-rejected', 'recovery-offer', 'cleanup', 'cleanup-all']) {
    a.signal(type, b.id, {}, { networkName: 'n' })
  }
  assert.deepEqual(await b.hearUntil(a, 'n'), [])
  assert.deepEqual(await a.fence(), [])
})

// --- ping

hubTest('ping: the hub answers ping messages and ping frames', {}, async hub => {
  const a = await Client.connect(hub)
  a.send({ type: 'ping' })
  const pong = await a.next('pong')
  checkFromHub(pong, a.id, 'global')
  assert.deepEqual(Object.keys(pong.message.data), ['timestamp'])
  assert.ok(Math.abs(pong.message.data.timestamp - Date.now()) < 60_000)
  const payload = within(5_000, 'a pong frame', new Promise(resolve => a.socket.once('pong', resolve)))
  a.socket.ping('are you there')
  assert.equal((await payload).toString(), 'are you there')
})

// --- leaving

hubTest('leave: a closed socket causes one peer-disconnected', {}, async hub => {
  for (const [end, reason, code] of [
    [client => client.close(), 'client-closed', 1000],
    [client => client.close(1001), 'client-closed', 1001],
    [client => client.socket.terminate(), 'connection-lost', 1006]
  ]) {
    const [a, b] = await pair(hub, 'n')
    end(b)
    const left = await a.next('peer-disconnected')
    checkFromHub(left, a.id, 'n')
    const { data } = left.message
    assert.deepEqual(Object.keys(data), ['isHub', 'peerId', 'reason', 'timestamp', 'closeCode'])
    assert.deepEqual([data.reason, data.closeCode], [reason, code])
    assert.equal(data.isHub, false)
    assert.equal(data.peerId, b.id)
    assert.equal(typeof data.timestamp, 'number')
    const again = await Client.join(hub, 'n', {}, { id: b.id })
    const back = (await a.next('peer-discovered')).message
    assert.equal(back.data.peerId, again.id, 'no second leave may arrive before the peer is discovered again')
    assert.ok(back.session > left.message.session, 'a later session must have a greater number')
    await Promise.all([a.close(), again.close()])
    await eventually(async () => assert.equal((await (await fetch(`${hub.url}/health`)).json()).connections, 0))
  }
})

hubTest('leave: the close handshake is answered with the client\'s code', {}, async hub => {
  const a = await Client.connect(hub)
  const { code } = await a.close(1000)
  assert.equal(code, 1000)
})

hubTest('goodbye: the other members receive it instead of peer-disconnected', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  b.send('{"type":"goodbye","networkName":"n","data":{"b":1,"a":2.0}}')
  const { raw, message } = await a.next('goodbye')
  assert.equal(raw, `{"type":"goodbye","data":{"b":1,"a":2.0},"fromPeerId":"${b.id}","targetPeerId":"${a.id}","networkName":"n","timestamp":${message.timestamp}}`)
  b.send({ type: 'goodbye' })
  await b.close()
  await Client.join(hub, 'n', {}, { id: b.id })
  assert.equal((await a.next('peer-discovered')).message.data.peerId, b.id)
})

hubTest('goodbye: missing data arrives as null', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  b.send({ type: 'goodbye' })
  const { message } = await a.next('goodbye')
  assert.equal(message.data, null)
  assert.equal(message.networkName, 'n', 'a goodbye must name the network that the peer leaves')
})

hubTest('goodbye: the session stays open and may announce again', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  b.send({ type: 'goodbye' })
  await a.next('goodbye')
  b.announce('n', { back: true })
  assert.equal((await a.next('peer-discovered')).message.data.back, true)
  assert.equal((await b.next('peer-discovered')).message.data.peerId, a.id)
  await b.close()
  assert.equal((await a.next('peer-disconnected')).message.data.peerId, b.id)
})

hubTest('goodbye: with a network name, the peer leaves only this network, and without one, each of its networks', {}, async hub => {
  const a = await Client.connect(hub)
  const b = await Client.connect(hub)
  for (const networkName of ['x', 'y', 'z']) { a.announce(networkName); b.announce(networkName) }
  for (let count = 0; count < 3; count++) { await a.next('peer-discovered'); await b.next('peer-discovered') }
  b.send({ type: 'goodbye', networkName: 'x' })
  assert.equal((await a.next('goodbye')).message.networkName, 'x')
  b.signal('offer', a.id, 1, { networkName: 'y' })
  await a.next('offer')
  b.send({ type: 'goodbye' })
  const left = [await a.next('goodbye'), await a.next('goodbye')]
  assert.deepEqual(left.map(frame => frame.message.networkName).sort(), ['y', 'z'])
  b.announce('x')
  assert.equal((await a.next('peer-discovered')).message.networkName, 'x')
})

hubTest('goodbye: only members of the networks that the peer leaves receive it', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const c = await Client.join(hub, 'other')
  b.send({ type: 'goodbye' })
  await a.next('goodbye')
  b.announce('other')
  assert.equal((await c.next('peer-discovered')).message.data.peerId, b.id)
})

// --- errors and receipts

const MALFORMED = [
  ['invalid-json', 'not json'],
  ['invalid-json', '{"type":"ping"'],
  ['invalid-json', '{"type":"ping"} trailing'],
  ['invalid-json', ''],
  ['invalid-message', '{}'],
  ['invalid-message', '{"type":7}'],
  ['invalid-message', '{"type":"announce","networkName":7}'],
  ['invalid-message', JSON.stringify({ type: 'announce', networkName: 'n'.repeat(257) })],
  ['invalid-message', '{"type":"offer","data":1}'],
  ['invalid-message', '{"type":"offer","targetPeerId":"short","data":1}'],
  ['unknown-type', '{"type":"nonsense"}'],
  ['not-allowed', '{"type":"peer-discovered","data":{"peerId":"x"}}'],
  ['data-too-large', JSON.stringify({ type: 'announce', networkName: 'n', data: { text: 'x'.repeat(17 * 1024) } })]
]

for (const [code, text] of MALFORMED) {
  hubTest(`errors: ${code} for ${text.slice(0, 50) || 'nothing'}`, {}, async hub => {
    const a = await Client.connect(hub)
    a.send(text)
    const error = await a.next('error')
    checkFromHub(error, a.id, error.message.networkName)
    assert.equal(error.message.data.code, code, error.raw)
    assert.equal(typeof error.message.data.message, 'string')
    assert.deepEqual(await a.fence(), [], 'there must be one error, and the session must stay open')
  })
}

hubTest('errors: JSON that is not an object is invalid', {}, async hub => {
  const a = await Client.connect(hub)
  for (const text of ['[]', '"offer"', '7', 'null']) {
    a.send(text)
    assert.match((await a.next('error')).message.data.code, /^invalid-(json|message)$/)
  }
})

hubTest('errors: an error contains inReplyTo, target and network, and its last field is the id', {}, async hub => {
  const a = await Client.join(hub, 'n')
  const nobody = peerId()
  a.signal('offer', nobody, 1, { networkName: 'n' })
  const error = await a.next('error')
  checkFromHub(error, a.id, 'n')
  const { data } = error.message
  assert.deepEqual([data.code, data.inReplyTo, data.targetPeerId], ['peer-not-found', 'offer', nobody])
  a.send({ type: 'nonsense', id: 'mine' })
  const other = await a.next('error')
  assert.equal(other.message.data.id, 'mine')
  assert.equal(Object.keys(other.message.data).at(-1), 'id')
})

hubTest('errors: a signal to a peer in another network gets wrong-network', {}, async hub => {
  const a = await Client.join(hub, 'x')
  const b = await Client.join(hub, 'y')
  for (const networkName of ['x', 'y', 'global', undefined]) {
    a.signal('offer', b.id, 1, { networkName })
    assert.equal((await a.next('error')).message.data.code, 'wrong-network', `sent in ${networkName}`)
  }
  b.announce('x')
  assert.equal((await b.find(frame => frame.message.type === 'peer-discovered', 'a')).message.data.peerId, a.id)
  assert.deepEqual(await b.hearUntil(a, 'x'), [], 'none of the signals may arrive')
})

hubTest('errors: a peer cannot join more networks than the maximum', {}, async hub => {
  const a = await Client.connect(hub)
  for (let count = 1; count <= 32; count++) a.announce(`n${count}`)
  assert.deepEqual(await a.fence(), [])
  a.announce('n33')
  assert.equal((await a.next('error')).message.data.code, 'too-many-networks')
  a.announce('n1')
  assert.deepEqual(await a.fence(), [], 'a peer may announce again in its networks')
})

hubTest('receipts: a signal with an id has one outcome and no error', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.signal('offer', b.id, 1, { networkName: 'n', id: 'first' })
  const receipt = await a.next('receipt')
  checkFromHub(receipt, a.id, 'n')
  assert.deepEqual(receipt.message.data, { id: 'first', outcome: 'delivered', targetPeerId: b.id })
  const offer = await b.next('offer')
  assert.deepEqual(Object.keys(offer.message), HUB_KEYS, 'the id must not be sent to the target')
  const nobody = peerId()
  a.signal('offer', nobody, 1, { networkName: 'n', id: 'second' })
  assert.deepEqual((await a.next('receipt')).message.data, { id: 'second', outcome: 'peer-not-found', targetPeerId: nobody })
  a.signal('offer', b.id, 1, { networkName: 'elsewhere', id: 'third' })
  assert.deepEqual((await a.next('receipt')).message.data, { id: 'third', outcome: 'wrong-network', targetPeerId: b.id })
  assert.deepEqual(await a.fence(), [])
})

hubTest('receipts: an id of 65 bytes is invalid', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.signal('offer', b.id, 1, { networkName: 'n', id: 'x'.repeat(64) })
  assert.equal((await a.next('receipt')).message.data.outcome, 'delivered')
  await b.next('offer')
  a.signal('offer', b.id, 1, { networkName: 'n', id: 'x'.repeat(65) })
  assert.equal((await a.next('error')).message.data.code, 'invalid-message')
})

hubTest('receipts: each of five hundred signals in flight gets one receipt', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const ids = Array.from({ length: 500 }, (_, index) => `signal-${index}`)
  for (const id of ids) a.signal('ice-candidate', b.id, id, { networkName: 'n', id })
  const answered = []
  while (answered.length < ids.length) {
    const { data } = (await a.next('receipt')).message
    assert.equal(data.outcome, 'delivered')
    answered.push(data.id)
  }
  assert.deepEqual(answered.sort(), ids.sort())
})

// --- frames

hubTest('frames: JSON in a binary frame is accepted and relayed as text', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  a.socket.send(Buffer.from(JSON.stringify({ type: 'offer', targetPeerId: b.id, networkName: 'n', data: 'é🐦' })), { binary: true })
  const { binary, message } = await b.next('offer')
  assert.equal(binary, false)
  assert.equal(message.data, 'é🐦')
})

hubTest('frames: a binary frame that is not UTF-8 gets an error and is not relayed', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const [head, tail] = JSON.stringify({ type: 'offer', targetPeerId: b.id, networkName: 'n', data: '|' }).split('|')
  a.socket.send(Buffer.concat([Buffer.from(head), Buffer.from([0xff, 0xfe]), Buffer.from(tail)]), { binary: true })
  assert.equal((await a.next('error')).message.data.code, 'invalid-json')
  assert.deepEqual(await b.hearUntil(a, 'n'), [])
})

hubTest('frames: fragments form one message', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const text = JSON.stringify({ type: 'offer', targetPeerId: b.id, networkName: 'n', data: 'é🐦'.repeat(50) })
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += 7) {
    a.socket.send(bytes.subarray(at, at + 7), { binary: false, fin: at + 7 >= bytes.length })
    if (at % 70 === 0) a.socket.ping()
  }
  assert.equal((await b.next('offer')).message.data, 'é🐦'.repeat(50))
})

hubTest('frames: a message of the maximum length is relayed, and one more byte closes the session with 1009', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const limit = a.connected.message.data.maxMessageBytes
  const [head, tail] = JSON.stringify({ type: 'offer', targetPeerId: b.id, networkName: 'n', data: '|' }).split('|')
  const filler = length => head + 'x'.repeat(length - head.length - tail.length) + tail
  a.send(filler(limit))
  assert.equal((await b.next('offer')).message.data.length, limit - head.length - tail.length)
  a.send(filler(limit + 1))
  assert.equal((await a.next('error')).message.data.code, 'message-too-large')
  assert.equal((await a.end()).code, 1009)
  assert.equal((await b.next('peer-disconnected')).message.data.peerId, a.id)
})

hubTest('frames: the maximum length also applies to a message in fragments', {}, async hub => {
  const a = await Client.connect(hub)
  const part = Buffer.alloc(64 * 1024, 0x20)
  const limit = a.connected.message.data.maxMessageBytes
  for (let sent = 0; sent <= limit; sent += part.length) a.socket.send(part, { binary: false, fin: false })
  assert.equal((await a.end()).code, 1009)
})

// --- takeover

hubTest('takeover: a session that answers keeps its id, and the second session is closed with 4009', {}, async hub => {
  const [a, b] = await pair(hub, 'n')
  const second = await Client.open(hub, { id: a.id })
  second.announce('n')
  assert.deepEqual(await second.end(), { code: 4009, reason: 'peer id in use' })
  assert.deepEqual(second.frames, [], 'the second session must not receive `connected`')
  assert.deepEqual(await b.hearUntil(a, 'n'), [], 'other peers must not notice the second session')
  assert.deepEqual(await a.hearUntil(b, 'n'), [])
})

hubTest('takeover: a session that does not answer is replaced after two seconds', {}, async hub => {
  const [a, b] = await pair(hub, 'n', { a: { options: { autoPong: false } } })
  const started = Date.now()
  const second = await Client.open(hub, { id: a.id })
  second.announce('n', { second: true })
  b.signal('offer', a.id, 'while pending', { networkName: 'n' })
  assert.equal((await a.next('offer')).message.data, 'while pending', 'signals must still reach the old session')
  assert.deepEqual(await a.end(), { code: 4001, reason: 'replaced' })
  const took = Date.now() - started
  assert.ok(took > TAKEOVER_GRACE_MS - 200 && took < TAKEOVER_GRACE_MS + 3_000, `replaced after ${took} ms`)
  assert.equal((await b.next('peer-disconnected')).message.data.peerId, a.id)
  assert.deepEqual((await b.next('peer-discovered')).message.data, { second: true, isHub: false, peerId: a.id })
  await second.next('connected')
  assert.equal((await second.next('peer-discovered')).message.data.peerId, b.id, 'the hub must process the frames that arrived before the takeover')
  b.signal('offer', a.id, 'after', { networkName: 'n' })
  assert.equal((await second.next('offer')).message.data, 'after')
})

hubTest('takeover: if two connections wait for the same id, one of them is closed with 4009', {}, async hub => {
  const old = await Client.connect(hub, { options: { autoPong: false } })
  const waiting = [await Client.open(hub, { id: old.id }), await Client.open(hub, { id: old.id })]
  const refused = await within(5_000, 'one of them is refused', Promise.race(waiting.map(async client => {
    await client.closed
    return client
  })))
  assert.equal((await refused.end()).code, 4009)
  const [admitted] = waiting.filter(client => client !== refused)
  await admitted.next('connected')
  assert.equal((await old.end()).code, 4001)
})

hubTest('takeover: when the old session ends by itself, the new session is admitted at once', {}, async hub => {
  const [a, b] = await pair(hub, 'n', { a: { options: { autoPong: false } } })
  const second = await Client.open(hub, { id: a.id })
  const started = Date.now()
  a.socket.terminate()
  await second.next('connected')
  assert.ok(Date.now() - started < TAKEOVER_GRACE_MS - 200, `after ${Date.now() - started} ms`)
  assert.equal((await b.next('peer-disconnected')).message.data.peerId, a.id)
})

// --- pages

const PAGES = {
  '/health': ['connections', 'hubs', 'isHub', 'networks', 'peers', 'status', 'timestamp', 'uptime'],
  '/hubs': ['hubs', 'timestamp', 'totalHubs'],
  '/hubstats': ['bootstrapHubs', 'connectedHubs', 'hubs', 'totalHubs'],
  '/metrics?format=json': ['connections', 'hubs', 'networks', 'peers', 'server', 'timestamp', 'uptime_ms'],
  '/stats': ['bootstrapHubs', 'connections', 'host', 'hubMeshNamespace', 'hubPeerId', 'hubs', 'isHub', 'isRunning', 'maxConnections', 'networks', 'peers', 'port', 'uptime']
}

const getJson = async (hub, path, options) => (await fetch(hub.url + path, options)).json()

for (const [path, keys] of Object.entries(PAGES)) {
  hubTest(`pages: ${path} has the Go hub's fields, sorted`, {}, async hub => {
    const answer = await fetch(hub.url + path)
    assert.equal(answer.status, 200)
    assert.match(answer.headers.get('content-type'), /^application\/json/)
    assert.equal(answer.headers.get('access-control-allow-origin'), '*')
    const found = Object.keys(await answer.json())
    assert.deepEqual(keys.filter(key => !found.includes(key)), [], 'these fields are missing')
    assert.deepEqual(found, [...found].sort())
  })
}

hubTest('pages: the pages have the correct values', { env: { MAX_CONNECTIONS: '77', FLY_REGION: 'ams', FLY_APP_NAME: 'pigeons', HUB_MESH_NAMESPACE: 'elsewhere' } }, async hub => {
  await pair(hub, 'n')
  await Client.connect(hub)
  const health = await eventually(async () => {
    const health = await getJson(hub, '/health')
    assert.deepEqual([health.connections, health.peers], [3, 3])
    return health
  })
  assert.deepEqual([health.status, health.isHub, health.hubs], ['healthy', false, 0])
  assert.ok(!Number.isNaN(Date.parse(health.timestamp)) && health.uptime >= 0)
  for (const key of ['rss', 'heapTotal', 'heapUsed', 'external']) assert.equal(typeof health.memory[key], 'number', key)
  const stats = await getJson(hub, '/stats')
  assert.deepEqual(stats.bootstrapHubs, { connected: 0, total: 0 })
  assert.deepEqual([stats.connections, stats.peers, stats.port, stats.host, stats.maxConnections, stats.hubMeshNamespace, stats.isRunning],
    [3, 3, hub.port, '127.0.0.1', 77, 'elsewhere', true])
  const metrics = await getJson(hub, '/metrics', { headers: { Accept: 'application/json' } })
  assert.deepEqual(metrics.connections, { active: 3, max: 77 })
  assert.equal(metrics.peers.total, 3)
  assert.equal(metrics.peers.networks.n, 2)
  assert.deepEqual(metrics.server, { app_name: 'pigeons', is_hub: false, namespace: 'elsewhere', region: 'ams' })
  assert.deepEqual(metrics.hubs, { bootstrap_connected: 0, discovered: 0 })
  const hubs = await getJson(hub, '/hubs')
  assert.deepEqual([hubs.hubs, hubs.totalHubs], [[], 0])
  assert.deepEqual(await getJson(hub, '/hubstats'), { bootstrapHubs: [], connectedHubs: 0, hubs: [], totalHubs: 0 })
})

hubTest('pages: /metrics is Prometheus text and contains no names of peers and networks', {}, async hub => {
  const [a, b] = await pair(hub, 'secret-network')
  a.signal('offer', b.id, 1, { networkName: 'secret-network' })
  await b.next('offer')
  const answer = await fetch(`${hub.url}/metrics`)
  assert.match(answer.headers.get('content-type'), /^text\/plain/)
  assert.equal(answer.headers.get('access-control-allow-origin'), '*')
  const text = await answer.text()
  assert.match(text, /^# TYPE \S+ (counter|gauge|histogram|summary)$/m)
  for (const line of text.split('\n').filter(line => line && !line.startsWith('#'))) {
    assert.match(line, /^[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})? (NaN|[+-]?(Inf|[0-9.eE+-]+))$/)
  }
  for (const secret of [a.id, b.id, 'secret-network']) assert.ok(!text.includes(secret))
})

hubTest('pages: /livez, /readyz and preflights work, and other paths get 404', { env: { CORS_ORIGIN: 'https://app.example' } }, async hub => {
  for (const path of ['/livez', '/readyz']) assert.equal((await fetch(hub.url + path)).status, 200, path)
  const preflight = await fetch(`${hub.url}/stats`, { method: 'OPTIONS', headers: { Origin: 'https://app.example', 'Access-Control-Request-Method': 'GET' } })
  assert.ok(preflight.ok, `${preflight.status}`)
  assert.equal(preflight.headers.get('access-control-allow-origin'), 'https://app.example')
  assert.match(preflight.headers.get('access-control-allow-methods'), /GET/)
  assert.equal((await fetch(`${hub.url}/health`)).headers.get('access-control-allow-origin'), 'https://app.example')
  assert.equal((await fetch(`${hub.url}/nothing-here`)).status, 404)
})
