import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { beforeEach, mock, test } from 'node:test'
import { join, PigeonError, type Room } from '../src/index.js'
import { passphrase } from '../src/extras/index.js'
import { events, FakeConnection, FakeHub, FakeSocket, pass, settle, still } from './fakes.js'

let hub: FakeHub
beforeEach(() => {
  still()
  hub = new FakeHub()
})

const named = (name: string, options = {}): Room<any> => hub.room({ data: { name }, ...options })
const only = (room: Room<any>) => { assert.equal(room.peers.size, 1); return [...room.peers.values()][0]! }

/** Joins with two pages, and waits until the link between them is open. */
async function pair (options = {}): Promise<{ ann: Room<any>, bob: Room<any>, atAnn: string[], atBob: string[] }> {
  const [ann, bob] = [named('ann', options), named('bob', options)]
  const [atAnn, atBob] = [events(ann), events(bob)]
  await pass(200)
  assert.deepEqual([only(ann).state, only(bob).state], ['open', 'open'], `${atAnn}; ${atBob}`)
  atAnn.length = atBob.length = 0
  return { ann, bob, atAnn, atBob }
}

/** Waits until the condition is true. The wait takes real time, because the derivation of a key does not use the fake clock. */
async function until (done: () => boolean): Promise<void> {
  for (const end = performance.now() + 20_000; !done() && performance.now() < end;) await pass(1)
  assert.ok(done())
}

const connection = (room: Room<any>): FakeConnection => only(room).pc as any

test('two peers discover each other and exchange messages, and only one of them sends an offer', async () => {
  const [ann, bob] = [named('ann'), named('bob')]
  const log = events(bob)
  await Promise.all([ann.ready, bob.ready])
  await pass(5_000)
  assert.deepEqual(log, ['hub online', 'join ann', 'link ann open'])
  assert.deepEqual(hub.signals.filter(({ type }) => type !== 'ice-candidate').map(({ type }) => type), ['offer', 'answer'])
  const { to, failed } = await ann.send({ hello: 'world' })
  assert.deepEqual([to.map(({ id }) => id), failed.size], [[bob.id], 0])
  await only(ann).send(new Uint8Array([1, 2]))
  await settle()
  assert.deepEqual(log.slice(3), ['message {"hello":"world"} ann', 'message {} ann'])
})

test('a page can choose its id, or leave the choice to the hub', async () => {
  const own = 'a'.repeat(40)
  const ann = named('ann', { id: own })
  await settle()
  assert.deepEqual([ann.id, FakeSocket.last.url.searchParams.get('peerId')], [own, own])
  const given = 'b'.repeat(40)
  FakeSocket.opened = socket => socket.welcome({ peerId: given })
  const bob = named('bob', { id: '' })
  await settle()
  assert.deepEqual([bob.id, FakeSocket.last.url.searchParams.has('peerId')], [given, false])
})

test('when another page takes its id, a page with a chosen id gives up, and a page with a random id takes a new id', async () => {
  for (const options of [{ id: 'a'.repeat(40) }, { id: '' }, {}]) {
    hub = new FakeHub()
    FakeSocket.opened = socket => socket.welcome({ peerId: socket.id ?? 'b'.repeat(40) })
    const room = named('ann', options)
    await settle()
    const { id } = room
    const sockets = FakeSocket.all.length
    FakeSocket.last.end(4001, 'replaced by a new connection')
    await pass(5_000)
    const { is, because } = room.hub as any
    if ('id' in options) assert.deepEqual([is, because.code, because.final, room.id, FakeSocket.all.length], ['closed', 'id-in-use', true, id, sockets])
    else assert.deepEqual([is, room.id === id], ['online', false])
    room.leave()
  }
})

test('messages sent before the link is open arrive in order', async () => {
  const [ann, bob] = [named('ann'), named('bob')]
  const log = events(bob)
  ann.on('join', () => {
    void ann.send(1)
    void ann.send('x'.repeat(40_000))
    void ann.send(3)
  })
  await pass(200)
  assert.deepEqual(log.filter(entry => entry.startsWith('message')).map(entry => entry.length), [13, 40_014, 13])
})

test('channels are separate, and unreliable channels refuse messages that need several frames', async () => {
  const { ann, bob, atBob } = await pair()
  const got: unknown[] = []
  bob.channel('game').on('message', (value, { id }) => got.push([value, id]))
  await ann.channel('game', { ordered: false, maxRetransmits: 0 }).send({ x: 1 })
  await settle()
  assert.deepEqual([got, atBob], [[[{ x: 1 }, ann.id]], []])
  await assert.rejects(ann.channel('game').send('x'.repeat(20_000)), { code: 'too-large' })
})

test('when the hub crashes, links stay open, no peer leaves, and no connection is replaced', async () => {
  const { ann, bob, atAnn } = await pair()
  hub.crash()
  await pass(30_000)
  assert.equal(ann.hub.is === 'online', false)
  await ann.send('still here')
  assert.equal(ann.peers.size, 1)
  hub.up = true
  await pass(60_000)
  assert.equal(ann.hub.is, 'online')
  assert.deepEqual(atAnn.filter(entry => !entry.startsWith('hub')), [])
  assert.equal(FakeConnection.all.length, 2)
  assert.equal(only(bob).state, 'open')
})

test('a peer that left while the hub was down is removed when the hub is back', async () => {
  const { ann, bob, atAnn } = await pair()
  hub.crash()
  bob.leave()
  await pass(5_000)
  assert.equal(only(ann).state, 'interrupted')
  hub.up = true
  await pass(60_000)
  assert.deepEqual(atAnn.filter(entry => !entry.startsWith('hub')), ['link bob interrupted', 'leave bob lost'])
})

test('a peer that the hub has lost stays while its link answers', async () => {
  const { ann, bob, atAnn } = await pair()
  hub.lose(hub.socket(bob), 'dead-peer')
  await pass(10_000)
  assert.deepEqual(atAnn, [])
  FakeConnection.severed = true
  connection(ann).become('disconnected')
  await pass(3_500)
  assert.deepEqual(atAnn, ['link bob interrupted', 'leave bob lost'])
})

test('a peer that crashes leaves within seconds', async () => {
  const { bob, ann, atAnn } = await pair()
  FakeConnection.severed = true
  hub.lose(hub.socket(bob))
  await pass(3_500)
  assert.deepEqual(atAnn, ['leave bob lost'])
  assert.equal(ann.peers.size, 0)
})

test('goodbye ends the peer, its link and its messages', async () => {
  const { ann, bob, atAnn, atBob } = await pair()
  bob.leave()
  await pass(1_000)
  assert.deepEqual(atAnn.at(-1), 'leave bob left')
  assert.equal(ann.peers.size, 0)
  assert.deepEqual(atBob, [], 'no event follows leave()')
  await assert.rejects(bob.send(1), { code: 'left' })
})

test('a reloaded page with the same id is a new peer', async () => {
  const { ann, bob, atAnn } = await pair()
  const socket = hub.socket(bob)
  hub.socket(ann).say('peer-discovered', { page: 'another', data: { name: 'bob again' }, peerId: socket.id })
  await settle()
  assert.deepEqual(atAnn.slice(0, 2), ['leave bob replaced', 'join bob again'])
})

test('a new announcement of the same page is a change, unless its data is equal', async () => {
  const { ann, bob, atAnn } = await pair()
  for (let count = 0; count <= 50; count++) bob.update({ name: `bob ${count}` })
  await pass(500)
  bob.update({ name: 'bob 50' })
  await pass(500)
  assert.deepEqual(atAnn, ['change bob bob 50'])
  assert.deepEqual(only(ann).data, { name: 'bob 50' })
  assert.equal(FakeConnection.all.length, 2)
})

test('when its path is lost, a link looks for another path, and later replaces the connection', async () => {
  const { ann, bob, atAnn } = await pair()
  const [first] = [connection(ann)]
  for (const room of [ann, bob]) connection(room).become('disconnected')
  await pass(4_000)
  assert.ok(first.restarts + connection(bob).restarts >= 1)
  assert.deepEqual(atAnn, ['link bob interrupted', 'link bob open'])
  FakeConnection.severed = true
  for (const room of [ann, bob]) connection(room).become('failed')
  await ann.peers.get(bob.id)!.send('later').catch(() => assert.fail('the message must wait')) // The fake transport accepts the message.
  await pass(10_000)
  FakeConnection.severed = false
  await pass(20_000)
  assert.equal(only(ann).state, 'open')
  assert.equal(only(bob).state, 'open')
  assert.notEqual(connection(ann), first)
  assert.equal(FakeConnection.open.length, 2)
  assert.deepEqual(atAnn.filter(entry => entry.startsWith('join') || entry.startsWith('leave')), [])
})

test('either side replaces a connection that the other side has lost', async () => {
  for (const which of [0, 1]) {
    const { ann, bob } = await pair()
    const rooms = [ann, bob].sort((one, other) => one.id < other.id ? -1 : 1)
    // The connection is closed from outside, so the client of this side receives no event.
    connection(rooms[which]!).close()
    await pass(25_000)
    assert.deepEqual([only(ann).state, only(bob).state], ['open', 'open'])
    assert.equal(FakeConnection.open.length, 2)
    ann.leave()
    bob.leave()
    await pass(1_000)
  }
})

test('answers and candidates of an earlier connection are ignored', async () => {
  const { ann, bob, atAnn, atBob } = await pair()
  hub.delays = ({ type }) => type !== 'offer'
  for (const room of [ann, bob]) connection(room).become('failed')
  await pass(15_000)
  hub.delays = () => false
  await pass(25_000)
  hub.deliver()
  await pass(5_000)
  assert.deepEqual([only(ann).state, only(bob).state], ['open', 'open'])
  assert.deepEqual([...atAnn, ...atBob].filter(entry => entry.startsWith('error') && !entry.endsWith('ice-failed')), [])
  for (const pc of FakeConnection.open) {
    const other = FakeConnection.all.indexOf(pc.remote!)
    assert.ok(pc.candidates.every(candidate => candidate.startsWith(`candidate of ${other} `)), `${pc.candidates}`)
  }
})

test('a lost answer only delays the link', async () => {
  let lost = 0
  hub.loses = ({ type }) => type === 'answer' && lost++ < 2
  const [ann, bob] = [named('ann'), named('bob')]
  await pass(90_000)
  assert.equal(lost, 3)
  assert.deepEqual([only(ann).state, only(bob).state], ['open', 'open'])
  assert.equal(FakeConnection.open.length, 2)
})

test('if both sides often negotiate at the same time, all changes arrive', async () => {
  const { ann, bob } = await pair()
  for (let time = 0; time < 50; time++) {
    connection(ann).addTransceiver({ kind: 'audio' }, {})
    connection(bob).addTransceiver({ kind: 'audio' }, {})
    await pass(10, 1)
  }
  await pass(1_000)
  assert.deepEqual([connection(ann).signalingState, connection(bob).signalingState], ['stable', 'stable'])
  assert.equal(FakeConnection.all.length, 2)
})

test('with link: on-demand, links open only on request, and a closed link stays closed', async () => {
  const [ann, bob] = [named('ann', { link: 'on-demand' }), named('bob')]
  bob.leave()
  const carl = named('carl', { link: 'on-demand' })
  await pass(1_000)
  assert.equal(only(ann).state, 'seen')
  await only(ann).connect()
  await settle()
  assert.equal(only(carl).state, 'open')
  only(ann).disconnect()
  await pass(60_000)
  assert.deepEqual([only(ann).state, only(carl).state], ['seen', 'seen'])
  assert.equal(FakeConnection.open.length, 0)
  // Sending a message opens the link.
  await only(carl).send('hi')
  assert.equal(only(ann).state, 'open')
})

test('the number of links is bounded, and when a link ends, another peer gets one', async () => {
  const all = Array.from({ length: 6 }, (_, index) => named(`peer ${index}`, index === 0 ? { maxLinks: 3 } : { link: 'on-demand' }))
  await pass(5_000)
  const [first, ...others] = all as [Room<any>, ...Room<any>[]]
  const linked = () => [...first.peers.values()].filter(({ state }) => state === 'open')
  assert.equal(linked().length, 3)
  others.find(({ id }) => id === linked()[0]!.id)!.leave()
  await pass(5_000)
  assert.equal(linked().length, 3)
})

test('links that other peers open are bounded, and a refused peer does not try again by itself', async () => {
  const first = named('first', { link: 'on-demand', maxLinks: 1 })
  const others = Array.from({ length: 4 }, (_, index) => named(`peer ${index}`, { link: 'on-demand' }))
  await pass(1_000)
  const asked = others.map(room => room.peers.get(first.id)!.connect().then(() => 'open', ({ code }) => code))
  await pass(30_000)
  assert.deepEqual((await Promise.all(asked)).sort(), ['open', 'open', 'peer-gone', 'peer-gone'])
  assert.equal([...first.peers.values()].filter(({ state }) => state === 'open').length, 2)
  assert.equal(FakeConnection.open.length, 4)
  // When another link has ended, a refused peer is accepted if its program calls connect() again.
  const refused = others.find(room => room.peers.get(first.id)!.state === 'seen')!
  others.find(room => room.peers.get(first.id)!.state === 'open')!.leave()
  await pass(1_000)
  await refused.peers.get(first.id)!.connect()
})

test('the cost of a join does not grow with the size of the room', async () => {
  const ann = named('ann', { maxLinks: 2 })
  await settle()
  const socket = hub.socket(ann)
  let looked = 0
  const join = (index: number) => {
    socket.say('peer-discovered', { peerId: `f${index.toString(16).padStart(39, '0')}`, isHub: false })
  }
  for (let index = 0; index < 10; index++) join(index)
  for (const peer of ann.peers.values()) {
    let { state } = peer
    Object.defineProperty(peer, 'state', { get () { looked++; return state }, set (next) { state = next } })
  }
  for (let index = 10; index < 3_000; index++) join(index)
  assert.equal(ann.peers.size, 3_000)
  assert.equal(looked, 0, 'a join must not examine the other members')
})

const ids = (count: number) => Array.from({ length: count }, (_, index) => index.toString(16).padStart(40, 'f'))

test('more() discovers further members page by page, and says whether there are more', async () => {
  const ann = named('ann', { link: 'on-demand', discover: { closest: 2 } })
  hub.unnamed = ids(7)
  // The first call of more() waits for the hub.
  const first = ann.more(3)
  assert.deepEqual(hub.members.size, 0)
  await pass(200)
  assert.deepEqual(hub.members.get(hub.socket(ann)).discover, { closest: 2 })
  assert.equal(await first, true)
  assert.equal(ann.peers.size, 3)
  const sizes = []
  for (let more = true; more;) {
    more = await ann.more()
    sizes.push(ann.peers.size)
  }
  assert.deepEqual(sizes, [5, 7])
  const asked = hub.socket(ann).sent.filter(({ type }) => type === 'discover')
  assert.deepEqual(asked, [{ limit: 3 }, {}, {}].map(data => ({ type: 'discover', networkName: 'lobby', data })))
})

test('more() is repeated after a failure of the hub, and when the hub asks for a pause', async () => {
  const ann = named('ann', { link: 'on-demand' })
  await pass(200)
  const log = events(ann)
  const hears = hub.socket(ann).heard
  hub.socket(ann).heard = message => message.type === 'discover' || hears(message)
  hub.unnamed = ids(1)
  let more: boolean | undefined
  void ann.more().then(result => { more = result })
  await pass(200)
  hub.crash()
  await pass(1_000)
  assert.deepEqual([more, ann.hub.is], [undefined, 'waiting'])
  hub.up = true
  await pass(5_000)
  assert.deepEqual([more, ann.peers.size], [false, 1])

  const socket = hub.socket(ann)
  const sent = () => socket.sent.filter(({ type }) => type === 'discover').length
  const { heard } = socket
  socket.heard = () => {}
  const limited = ann.more()
  await settle()
  const before = sent()
  socket.say('error', { code: 'rate-limited', inReplyTo: 'discover', retryInMs: 5_000 })
  socket.heard = heard
  await pass(4_900)
  assert.equal(sent(), before)
  await pass(200)
  assert.equal(sent(), before + 1)
  assert.equal(await limited, false)
  assert.deepEqual(log.filter(entry => entry.startsWith('error')), [])
})

test('more() rejects if the hub refuses the request, or the room is left', async () => {
  const ann = named('ann')
  await pass(200)
  const log = events(ann)
  hub.socket(ann).heard = () => {}
  const refused = ann.more()
  await settle()
  hub.socket(ann).say('error', { code: 'network-full', message: 'you know 1024 members', inReplyTo: 'discover' })
  await assert.rejects(refused, { code: 'refused', message: /1024 members/ })
  assert.deepEqual(log, [], 'the promise reports the error')
  const pending = ann.more()
  await settle()
  ann.leave()
  for (const more of [pending, ann.more()]) await assert.rejects(more, { code: 'left' })
  const bob = named('bob')
  await pass(200)
  hub.socket(bob).heard = () => {}
  const kicked = bob.more()
  await settle()
  hub.socket(bob).end(4011, 'kicked')
  for (const more of [kicked, bob.more()]) await assert.rejects(more, { code: 'kicked' })
})

test('ready resolves when the hub reports the end of the roster, not at a pong', async () => {
  hub.slow = true
  const ann = named('ann')
  let ready = false
  void ann.ready.then(() => { ready = true })
  await pass(5_000)
  assert.equal(ready, false)
  hub.socket(ann).say('announced', { count: 0 })
  await settle()
  assert.equal(ready, true)
})

test('with a hub before 2.1, ready resolves at the pong', async () => {
  hub.hello = {}
  const { ann, bob } = await pair()
  await Promise.all([ann.ready, bob.ready])
})

test('a change of the data does not request the roster again', async () => {
  const { ann, bob } = await pair()
  const heard = mock.method(hub.socket(bob), 'say')
  bob.update({ name: 'bob again' })
  await pass(500)
  assert.deepEqual(only(ann).data, { name: 'bob again' })
  assert.deepEqual(heard.mock.calls.map(({ arguments: [type] }) => type), ['announced'])
})

test('with a passphrase the hub sees no description, and peers with the same passphrase connect', async () => {
  const seal = passphrase('correct horse battery staple')
  const [ann, bob] = [named('ann', { seal }), named('bob', { seal })]
  const log = [...events(ann), ...events(bob)]
  await until(() => ann.peers.size === 1 && only(ann).state === 'open' && only(bob).state === 'open')
  await ann.send('hello')
  assert.ok(hub.signals.length >= 3)
  for (const { data } of hub.signals) {
    assert.deepEqual(Object.keys(data), ['sealed'])
    assert.match(data.sealed, /^[A-Za-z0-9+/=]+$/)
  }
  // A sealed signal cannot be replayed under another peer's id, or as another type.
  const [{ data, type, targetPeerId }] = hub.signals
  const [from, to] = targetPeerId === ann.id ? [bob, ann] : [ann, bob]
  const { open } = seal('lobby')
  assert.ok(await open(data, `${type} ${from.id} ${to.id}`))
  for (const context of [`${type} ${to.id} ${from.id}`, `answer ${from.id} ${from.id}`, '']) await assert.rejects(open(data, context))
  await assert.rejects(passphrase('correct horse battery staple')('another room').open(data, `${type} ${from.id} ${to.id}`))
  assert.deepEqual(log, [])
})

test('if two peers have different passphrases, or only one has a passphrase, each side reports one error', async () => {
  const here = { seal: passphrase('one') }
  for (const there of [{ seal: passphrase('another') }, {}]) {
    const [ann, bob] = [named('ann', here), named('bob', there)]
    const errors: [PigeonError, string][] = []
    for (const room of [ann, bob]) room.on('error', error => errors.push([error, room.id]))
    await until(() => errors.length >= 2)
    await pass(60_000)
    assert.deepEqual(new Set(errors.map(([{ code }]) => code)), new Set(['passphrase']))
    assert.equal(errors.length, new Set(errors.map(([, id]) => id)).size, 'each side must report one error')
    for (const [{ peer }, id] of errors) assert.equal(peer!.id, id === ann.id ? bob.id : ann.id)
    assert.deepEqual([only(ann).data.name, only(bob).data.name], ['bob', 'ann'], 'the peers must still discover each other')
    assert.equal(FakeConnection.open.filter(({ connectionState }) => connectionState === 'connected').length, 0)
    ann.leave()
    bob.leave()
    await pass(1_000)
  }
})

test('a signal that cannot be opened does not affect an open link', async () => {
  const seal = passphrase('one')
  const [ann, bob] = [named('ann', { seal }), named('bob', { seal })]
  await until(() => ann.peers.size === 1 && only(ann).state === 'open' && only(bob).state === 'open')
  for (const data of [{ sealed: 'AAAA' }, { sealed: 5 }, { sdp: 'x' }, null]) hub.socket(ann).say('offer', data as any, { fromPeerId: bob.id })
  await pass(5_000)
  assert.equal(only(ann).state, 'open')
})

test('a peer that never answers causes an error', async () => {
  const ann = named('ann', { rtc: { iceTransportPolicy: 'relay' } })
  const errors = events(ann)
  await settle()
  hub.socket(ann).say('peer-discovered', { peerId: '0'.repeat(40), isHub: false })
  await pass(21_000)
  assert.deepEqual(errors.filter(entry => entry.startsWith('error')), ['error ice-failed'])
})

test('a missing path causes an error with a hint, and the link is tried again', async () => {
  FakeConnection.severed = true
  const [ann, bob] = [named('ann'), named('bob')]
  const errors: PigeonError[] = []
  ann.on('error', error => errors.push(error))
  bob.on('error', () => {})
  await pass(1_000)
  connection(ann).become('failed')
  connection(bob).become('failed')
  await pass(1_000)
  assert.deepEqual([errors[0]!.code, errors[0]!.peer, errors[0]!.final], ['ice-failed', only(ann), false])
  assert.match(errors[0]!.hint, /^https:.*#ice-failed$/)
  FakeConnection.severed = false
  await pass(30_000)
  assert.equal(only(ann).state, 'open')
})

test('ICE servers come from the option, its function, or the hub', async () => {
  const used = () => FakeConnection.all.splice(0).map(({ configuration }) => configuration.iceServers)
  await pair({ iceServers: [{ urls: 'stun:a' }] })
  assert.deepEqual(used(), [[{ urls: 'stun:a' }], [{ urls: 'stun:a' }]])
  let count = 0
  hub = new FakeHub()
  await pair({ iceServers: async () => [{ urls: `turn:${++count}` }] })
  assert.deepEqual(used(), [[{ urls: 'turn:1' }], [{ urls: 'turn:2' }]])
  hub = new FakeHub()
  const welcome = FakeSocket.prototype.welcome
  FakeSocket.prototype.welcome = function () { welcome.call(this, { iceServers: [{ urls: 'stun:hub' }] }) }
  await pair().finally(() => { FakeSocket.prototype.welcome = welcome })
  assert.deepEqual(used(), [[{ urls: 'stun:hub' }], [{ urls: 'stun:hub' }]])
})

test('an ICE restart asks for ICE servers again', async () => {
  let count = 0
  const { ann, bob } = await pair({ iceServers: async () => [{ urls: `turn:${++count}` }] })
  const before = [ann, bob].map(room => connection(room))
  FakeConnection.severed = true
  for (const pc of before) pc.become('disconnected')
  await pass(4_000)
  assert.deepEqual([before[0]!.restarts > 0, before[1]!.restarts > 0, FakeConnection.all.length], [true, true, 2])
  assert.deepEqual(before.map(pc => Number(pc.configuration.iceServers[0].urls.slice(5))).sort(), [3, 4])
})

test('ICE servers that the hub sends later replace the earlier ICE servers, without an ICE restart', async () => {
  const { ann, bob } = await pair()
  const pc = connection(ann)
  for (const room of [ann, bob]) hub.socket(room).say('ice-servers', { iceServers: [{ urls: 'turn:new' }] }, { networkName: 'global' })
  await settle()
  assert.deepEqual([pc.configuration.iceServers, pc.restarts], [[{ urls: 'turn:new' }], 0])
  assert.equal(connection(ann), pc)
  named('carl', { iceServers: [{ urls: 'stun:own' }] })
  await pass(200)
  assert.deepEqual(FakeConnection.all.slice(2).map(({ configuration }) => configuration.iceServers[0].urls).sort(), ['stun:own', 'stun:own', 'turn:new', 'turn:new'])
})

test('a peer that an operator removes leaves as kicked, and does not return', async () => {
  const { ann, bob, atAnn, atBob } = await pair()
  const bobs = hub.socket(bob)
  hub.lose(bobs, 'kicked', 4011)
  bobs.end(4011, 'kicked by an operator')
  await pass(60_000, 1000)
  assert.deepEqual(atAnn, ['leave bob kicked'])
  assert.equal(ann.peers.size, 0)
  assert.deepEqual([bob.hub.is, (bob.hub as any).because.code], ['closed', 'kicked'])
  // Here the operator removes a peer from one network only.
  const carl = named('carl')
  await pass(200)
  hub.socket(carl).say('error', { code: 'kicked', message: 'an operator removed you' })
  hub.socket(ann).say('goodbye', { reason: 'kicked' }, { fromPeerId: carl.id })
  await pass(1_000)
  assert.deepEqual([carl.hub.is, (carl.hub as any).because.code], ['closed', 'kicked'])
  assert.equal(atAnn.at(-1), 'leave carl kicked')
  assert.ok(atBob.includes('hub closed'))
})

test('a peer that closed its page leaves at once, but a peer whose connection was closed may return', async () => {
  const { bob, atAnn } = await pair()
  hub.lose(hub.socket(bob), 'client-closed', 1000)
  await pass(5_000)
  assert.deepEqual(atAnn, [], 'bob must stay, because the link answers')
  hub = new FakeHub()
  const other = await pair()
  hub.lose(hub.socket(other.bob), 'client-closed', 1001)
  await settle()
  assert.deepEqual(other.atAnn.at(-1), 'leave bob left')
})

test('after rate-limited, the client waits as long as the hub asks before it repeats the message', async () => {
  const ann = named('ann')
  await pass(200)
  const socket = hub.socket(ann)
  const sent = (type: string) => socket.sent.filter(message => message.type === type).length
  const announcements = sent('announce')
  socket.say('error', { code: 'rate-limited', inReplyTo: 'announce', retryInMs: 5_000 })
  await pass(4_900)
  assert.equal(sent('announce'), announcements)
  await pass(200)
  assert.equal(sent('announce'), announcements + 1)
  // From now on, only this test sends receipts.
  socket.heard = () => {}
  for (const [type, data] of [
    ['receipt', { id: 'offer', outcome: 'rate-limited', retryInMs: 5_000, targetPeerId: '0'.repeat(40) }],
    ['error', { code: 'rate-limited', inReplyTo: 'ice-candidate', retryInMs: 5_000, targetPeerId: '0'.repeat(40) }]
  ] as const) {
    // This peer never answers.
    socket.say('peer-discovered', { peerId: '0'.repeat(40), isHub: false })
    await pass(200)
    const offers = sent('offer')
    assert.ok(offers > 0)
    socket.say(type, data)
    await pass(4_900)
    assert.equal(sent('offer'), offers)
    await pass(200)
    assert.equal(sent('offer'), offers + 1)
    socket.say('goodbye', {}, { fromPeerId: '0'.repeat(40) })
  }
})

test('a peer that uses another client has all fields of its announcement as data', async () => {
  const ann = named('ann')
  await settle()
  hub.socket(ann).say('peer-discovered', { peerId: 'f'.repeat(40), isHub: false, name: 'guest', colour: 'red' })
  assert.deepEqual(only(ann).data, { name: 'guest', colour: 'red' })
  const theirs = new FakeConnection({})
  const [offer] = [{ type: 'offer', sdp: `${FakeConnection.all.indexOf(theirs)} 1` }]
  hub.socket(ann).say('offer', offer, { fromPeerId: 'f'.repeat(40) })
  await pass(100)
  assert.equal(connection(ann).localDescription?.type, 'answer')
})

test('a peer that uses another client can answer an offer', async () => {
  const ann = named('ann')
  await settle()
  const id = '0'.repeat(40)
  hub.socket(ann).say('peer-discovered', { peerId: id, isHub: false })
  await pass(100)
  const theirs = new FakeConnection({})
  hub.socket(ann).say('answer', { type: 'answer', sdp: `${FakeConnection.all.indexOf(theirs)} 1` }, { fromPeerId: id })
  await pass(100)
  assert.equal(connection(ann).signalingState, 'stable')
})

test('a peer that has lost its state gets a new connection at once', async () => {
  for (const forgets of [0, 1]) {
    const { ann, bob } = await pair()
    const rooms = [ann, bob].sort((a, b) => a.id < b.id ? -1 : 1)
    const [one, other] = [rooms[forgets], rooms[1 - forgets]]
    const known = hub.members.get(hub.socket(other!))
    FakeConnection.severed = true
    hub.socket(one!).say('goodbye', {}, { fromPeerId: other!.id })
    await settle()
    assert.equal(one!.peers.size, 0)
    connection(other!).become('disconnected')
    await pass(1_000)
    FakeConnection.severed = false
    hub.socket(one!).say('peer-discovered', { ...known, peerId: other!.id })
    await pass(6_000)
    assert.deepEqual([only(one!).state, only(other!).state], ['open', 'open'], `${forgets}`)
    ann.leave()
    bob.leave()
    await pass(1_000)
  }
})

test('signals of strangers and invalid signals have no effect', async () => {
  const { ann, atAnn } = await pair()
  const socket = hub.socket(ann)
  for (const type of ['offer', 'answer', 'ice-candidate', 'goodbye', 'peer-disconnected', 'error', 'receipt', 'what']) {
    for (const data of [null, {}, 'x', { peerId: 'nobody' }, { from: 'x', sdp: 5 }]) {
      socket.say(type, data as any, { fromPeerId: 'nobody' })
      socket.onmessage?.({ data: JSON.stringify({ type, data }) })
    }
  }
  await pass(1_000)
  assert.deepEqual(atAnn.filter(entry => !entry.startsWith('error refused')), [])
  assert.equal(only(ann).state, 'open')
})

test('a peer that sends offers of ever new connections causes few connections on this side', async () => {
  const { ann, bob } = await pair()
  const socket = hub.socket(ann)
  for (let time = 0; time < 1_000; time++) {
    socket.say('offer', { type: 'offer', sdp: '1 1', from: Date.now() + 10_000 + time }, { fromPeerId: bob.id })
  }
  await pass(900)
  assert.ok(FakeConnection.all.length < 15, `${FakeConnection.all.length} connections`)
})

test('data of a hostile peer changes no prototype', async () => {
  const { ann, bob, atAnn } = await pair()
  const socket = hub.socket(ann)
  const evil = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1}'
  const id = 'e'.repeat(40)
  for (const announced of [evil, `{"page":"p","data":${evil}}`, '{"page":"__proto__","data":null}', '{"page":{},"data":[]}']) {
    socket.onmessage?.({ data: `{"type":"peer-discovered","networkName":"lobby","data":${announced.slice(0, -1)},"peerId":"${id}"}}` })
  }
  for (const type of ['offer', 'answer', 'ice-candidate']) {
    socket.onmessage?.({ data: `{"type":"${type}","networkName":"lobby","fromPeerId":"${id}","data":${evil}}` })
  }
  await connection(bob).channels[0]!.send(evil)
  connection(bob).createDataChannel('__proto__')
  await pass(1_000)
  assert.equal(({} as any).polluted, undefined)
  assert.equal((ann.peers.get(id) as any).polluted, undefined)
  assert.equal(only(bob).state, 'open')
  assert.ok(atAnn.some(entry => entry.startsWith('message')))
})

test('signals with invalid tags or in a wrong order affect only the link of their sender', async () => {
  const { ann, bob, atAnn } = await pair()
  const eve = 'e'.repeat(40)
  const socket = hub.socket(ann)
  socket.say('peer-discovered', { peerId: eve, isHub: false })
  for (const from of [undefined, null, 'x', -1, 1e308, {}, [], '__proto__']) {
    for (const to of [undefined, 'x', 0]) {
      for (const [type, data] of [['ice-candidate', { candidate: 'candidate:0' }], ['answer', { sdp: '0 1' }], ['offer', { sdp: {} }], ['offer', { full: true }]] as const) {
        socket.say(type, { ...data, from, to } as object, { fromPeerId: eve })
      }
    }
  }
  await pass(5_000)
  assert.deepEqual(atAnn.filter(entry => entry.includes('bob')), [])
  assert.equal(ann.peers.get(bob.id)!.state, 'open')
  assert.ok(FakeConnection.all.length < 10, `${FakeConnection.all.length} connections`)
  await ann.send('still here', ann.peers.get(bob.id)!)
})

test('a peer that floods a link with invalid frames or with pings cannot fill the memory', async () => {
  const { ann, bob, atAnn } = await pair()
  const [main] = connection(bob).channels
  for (let count = 0; count < 1_000; count++) main!.send('{')
  await pass(100)
  assert.equal(atAnn.length, 16)
  assert.deepEqual(new Set(atAnn), new Set(['error protocol']))
  // From now on, all data that Ann sends stays in the buffer of her transport.
  const [answers] = connection(ann).channels
  answers!.bufferedAmount = 1_099_000
  answers!.send = (data: string | Uint8Array) => { answers!.bufferedAmount += data.length }
  for (let count = 0; count < 2_000; count++) main!.send(new Uint8Array([3]))
  await pass(100)
  assert.equal(answers!.bufferedAmount, 1_100_000)
})

test('after a thousand joins and leaves, no peer, connection or WebSocket of them remains', async () => {
  const stays = named('stays')
  for (let time = 0; time < 1_000; time++) {
    const room = named('comes and goes')
    if (time % 3) await settle()
    room.leave()
    room.leave()
  }
  await pass(5_000)
  assert.equal(stays.peers.size, 0)
  assert.equal(FakeConnection.open.length, 0)
  assert.equal(hub.members.size, 1)
  assert.deepEqual(FakeSocket.all.filter(({ readyState }) => readyState < 2).length, 1)
})

test('an AbortSignal calls leave(), also if it was aborted before join()', async () => {
  const abort = new AbortController()
  const room = named('ann', { signal: abort.signal })
  await room.ready
  abort.abort()
  assert.equal(room.hub.is, 'closed')
  const second = named('bob', { signal: abort.signal })
  await assert.rejects(second.ready, { code: 'left' })
})

test('invalid options make join() throw, and a refused token rejects ready', async () => {
  assert.throws(() => join('nonsense', 'lobby', { WebSocket: FakeSocket as any, RTCPeerConnection: FakeConnection as any }), { code: 'bad-url' })
  assert.throws(() => join([], 'lobby', { WebSocket: FakeSocket as any, RTCPeerConnection: FakeConnection as any }), { code: 'bad-url' })
  assert.throws(() => join('ws://hub', 'lobby'), { code: 'unsupported', final: true })
  hub.refuses = 4401
  await assert.rejects(named('ann', { token: 'wrong' }).ready, { code: 'unauthorized', final: true })
})

test('an exception in a listener does not affect other listeners', async () => {
  const { ann, bob } = await pair()
  const thrown: unknown[] = []
  const { queueMicrotask: original } = globalThis
  mock.method(globalThis, 'queueMicrotask', (task: () => void) => original(() => { try { task() } catch (error) { thrown.push(error) } }))
  const got: unknown[] = []
  bob.on('message', () => { throw new Error('in a listener') })
  bob.on('message', value => got.push(value))
  await ann.send(1)
  await pass(100)
  mock.method(globalThis, 'queueMicrotask', original)
  assert.deepEqual(got, [1])
  assert.equal(thrown.length, 1)
})

test('messages queued for a peer that leaves fail, and the error names the peer', async () => {
  const { ann, bob } = await pair()
  FakeConnection.severed = true
  const third = named('carl')
  await pass(200)
  const carl = [...ann.peers.values()].find(({ data }) => data.name === 'carl')!
  const sending = ann.send('to all')
  await settle()
  third.leave()
  const { to, failed } = await sending
  assert.deepEqual(to.map(({ id }) => id), [bob.id])
  assert.deepEqual([...failed].map(([peer, { code }]) => [peer, code]), [[carl, 'peer-gone']])
})

test('every error code is explained at the address of its hint', async () => {
  const [types, docs] = await Promise.all(['clients/js/src/errors.ts', 'docs/client.md'].map(path => readFile(resolve('../..', path), 'utf8')))
  const codes = types!.slice(types!.indexOf('ErrorCode ='), types!.indexOf('const DOCS')).match(/'[a-z-]+'/g)!.map(code => code.slice(1, -1))
  const explained = docs!.match(/(?<=^### ).*/gm)
  assert.deepEqual([...explained!].sort(), [...codes].sort())
})

test('after leave() no timer remains', async () => {
  const { setTimeout: set, clearTimeout: clear } = globalThis
  const running = new Set<unknown>()
  const starts = (act: (...args: unknown[]) => void, ms: number, ...rest: unknown[]) => {
    const timer = set(() => { running.delete(timer); act(...rest) }, ms)
    running.add(timer)
    return timer
  }
  Object.assign(globalThis, { setTimeout: starts, clearTimeout: (timer: any) => { running.delete(timer); clear(timer) } })
  try {
    const { ann, bob } = await pair()
    hub.crash()
    await pass(2_000)
    hub.up = true
    await pass(20_000)
    connection(ann).become('failed')
    ann.update({ name: 'ann again' })
    await pass(50)
    assert.ok(running.size > 0)
    ann.leave()
    bob.leave()
    await settle()
    assert.equal(running.size, 0)
  } finally {
    Object.assign(globalThis, { setTimeout: set, clearTimeout: clear })
  }
})
