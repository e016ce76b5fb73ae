import assert from 'node:assert/strict'
import { beforeEach, mock, test } from 'node:test'
import { PigeonError } from '../src/errors.js'
import { address, Hub } from '../src/hub.js'
import { FakeSocket, pass, settle, still } from './fakes.js'

beforeEach(() => {
  still()
  FakeSocket.opened = () => {}
})

function connect (options: { urls?: string[], token?: any } = {}) {
  const log: string[] = []
  let names = 0
  const { urls = ['ws://a/ws'], ...rest } = options
  const hub = new Hub(urls, {
    options: { WebSocket: FakeSocket as any, ...rest },
    get identity () { return { id: `id${names}` } },
    refused: () => { names++; return false },
    hubChanged: state => log.push(state.is + ('because' in state && state.because ? ` ${state.because.code}` : '')),
    welcomed: () => {},
    receive: ({ type }) => log.push(type)
  })
  hub.connect()
  return { hub, log }
}

test('hub URLs become WebSocket URLs, and invalid ones throw', () => {
  assert.equal(address('ws://a:8080'), 'ws://a:8080/ws')
  assert.equal(address('https://a'), 'wss://a/ws')
  assert.equal(address('wss://a/peer?x=1#y'), 'wss://a/peer?x=1')
  for (const bad of ['', 'a', 'ftp://a', 'localhost:8080']) assert.throws(() => address(bad), { code: 'bad-url', final: true })
})

test('the first attempt after a good connection comes soon, and later pauses grow', async () => {
  const { hub, log } = connect()
  await settle()
  FakeSocket.last.welcome()
  await pass(15_000)
  FakeSocket.last.end()
  await settle()
  assert.deepEqual(log, ['connecting', 'online', 'waiting hub-unreachable'])
  const pauses: number[] = []
  for (let attempt = 0; attempt < 8; attempt++) {
    assert.equal(hub.state.is, 'waiting')
    const ms = (hub.state as any).retryAt - Date.now()
    pauses.push(ms)
    const before = FakeSocket.all.length
    await pass(ms - 1, ms)
    assert.equal(FakeSocket.all.length, before)
    await pass(1)
    assert.equal(FakeSocket.all.length, before + 1)
    FakeSocket.last.end()
    await settle()
  }
  assert.deepEqual(pauses, [250, 1000, 1500, 2500, 4500, 8000, 8000, 8000])
})

test('with the smallest random pauses there are at most two attempts per second', async () => {
  still(0)
  connect()
  FakeSocket.opened = socket => socket.end()
  await pass(10_000)
  assert.ok(FakeSocket.all.length <= 21, `${FakeSocket.all.length} attempts in ten seconds`)
  assert.ok(FakeSocket.all.length >= 15)
})

test('several hubs are tried in turn', async () => {
  const { log } = connect({ urls: ['ws://a/ws', 'ws://b/ws'] })
  FakeSocket.opened = socket => socket.end()
  await pass(5_000)
  assert.deepEqual(FakeSocket.all.slice(0, 3).map(({ url }) => url.host), ['a', 'b', 'a'])
  assert.ok(log.includes('waiting hub-unreachable'))
})

test('an attempt without an answer ends after its time limit', async () => {
  const { hub } = connect()
  await pass(14_900)
  assert.equal(hub.state.is, 'connecting')
  await pass(200)
  assert.equal(hub.state.is, 'waiting')
})

test('if a hub stops and names another hub, the client connects to the other hub after a random pause', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  FakeSocket.last.say('go-away', { reason: 'draining', closeInMs: 4000, reconnectInMs: 0, hubs: ['ws://other'] })
  await pass(1_900)
  assert.equal(hub.state.is, 'online')
  await pass(200)
  assert.equal(FakeSocket.last.url.host, 'other')
  assert.equal(FakeSocket.all[0]!.readyState, 3)
  FakeSocket.last.end()
  await pass(5_000)
  assert.equal(FakeSocket.last.url.host, 'a')
})

test('if a hub stops and names no other hub, the client waits as long as the hub asks', async () => {
  // A hub before 2.1 sends no closeInMs.
  for (const times of [{ closeInMs: 3000, reconnectInMs: 4000 }, { reconnectInMs: 4000 }]) {
    const { hub } = connect()
    await settle()
    const attempts = FakeSocket.all.length
    FakeSocket.last.welcome()
    FakeSocket.last.say('go-away', { reason: 'draining', ...times })
    await pass(3_000)
    assert.equal(hub.state.is, 'online')
    FakeSocket.last.end(1012)
    await pass(4_000)
    assert.equal(FakeSocket.all.length, attempts)
    assert.equal((hub.state as any).because.code, 'hub-leaving')
    await pass(1_000)
    assert.equal(FakeSocket.all.length, attempts + 1)
    // The pause that the hub asked for applies to one attempt only.
    FakeSocket.last.end()
    await pass(2_000)
    assert.equal(FakeSocket.all.length, attempts + 2)
    hub.close(new PigeonError('left', 'the room'))
  }
})

test('the client never moves from an encrypted hub to an unencrypted one', async () => {
  connect({ urls: ['wss://a/ws'] })
  await settle()
  FakeSocket.last.welcome()
  FakeSocket.last.say('go-away', { reconnectInMs: 0, hubs: ['ws://other'] })
  await pass(2_000)
  assert.equal(FakeSocket.all.length, 1)
})

test('after hub-full the client waits at least as long as the hub asks', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  FakeSocket.last.end(1008, 'max connections')
  await settle()
  assert.ok((hub.state as any).retryAt - Date.now() >= 2000)
  assert.equal((hub.state as any).because.code, 'hub-full')
  await pass(3_000)
  for (const [text, ms] of [['retry after 30 s: the hub is draining', 30_000], ['retry after 9999 s', 60_000], ['max connections', 2000]] as const) {
    FakeSocket.last.refuse(1013, text)
    await settle()
    const pause = (hub.state as any).retryAt - Date.now()
    assert.ok(pause >= ms && pause < ms + 20_000, `${text}: ${pause}`)
    await pass(pause, 1000)
  }
})

/** The subprotocols of the last attempt, and the token in its URL. */
const shown = () => {
  const { url, protocols } = FakeSocket.last
  return [[protocols].flat().join(), url.searchParams.get('token')]
}

test('a token is not sent in the URL, which proxies log, if it can be sent as a subprotocol', async () => {
  connect({ token: 'a.b-c_D9' })
  await settle()
  assert.deepEqual(shown(), ['peerpigeon,bearer.a.b-c_D9', null])
  // At a hub before 2.1, which selects no subprotocol, this attempt fails.
  FakeSocket.last.end()
  await pass(1_500)
  assert.deepEqual(shown(), ['', 'a.b-c_D9'])
  FakeSocket.last.end()
  await pass(3_000)
  assert.deepEqual(shown(), ['peerpigeon,bearer.a.b-c_D9', null])

  connect({ token: 'a b=/' })
  await settle()
  assert.deepEqual(shown(), ['peerpigeon', 'a b=/'])
  connect()
  await settle()
  assert.deepEqual(shown(), ['peerpigeon', null])
})

test('a refused token is final, but a token function is called again', async () => {
  const { hub, log } = connect({ token: 'old' })
  await settle()
  assert.equal(shown()[0], 'peerpigeon,bearer.old')
  FakeSocket.last.refuse(4401, 'unauthorized')
  await settle()
  assert.equal(hub.state.is, 'closed')
  assert.deepEqual(log, ['connecting', 'closed unauthorized'])

  const tokens = ['expired', 'fresh']
  const second = connect({ token: async () => tokens.shift() })
  await settle()
  FakeSocket.last.refuse(4401)
  await pass(1_500)
  assert.equal(shown()[0], 'peerpigeon,bearer.fresh')
  FakeSocket.last.welcome()
  assert.equal(second.hub.state.is, 'online')
})

test('a token function that returns only refused tokens is not called for ever', async () => {
  FakeSocket.opened = socket => socket.refuse(4401)
  const { hub } = connect({ token: () => 'wrong' })
  await pass(20_000)
  assert.equal(hub.state.is, 'closed')
  assert.equal(FakeSocket.all.length, 3)
})

test('a token function renews a token that expires soon, and a token that is a string is not renewed', async () => {
  const tokens = ['first', 'second']
  const { hub, log } = connect({ token: async () => tokens.shift() ?? Promise.reject(new Error('no more')) })
  await settle()
  const socket = FakeSocket.last
  socket.welcome()
  socket.say('token-expires', { expiresInMs: 60_000 })
  await settle()
  assert.deepEqual(socket.sent, [{ type: 'auth', data: { token: 'second' } }])
  // If the function fails, the connection stays open until the hub closes it.
  socket.say('token-expires', { expiresInMs: 60_000 })
  await settle()
  assert.equal(socket.sent.length, 1)
  assert.equal(hub.state.is, 'online')
  assert.deepEqual(log, ['connecting', 'online'])

  connect({ token: 'text' })
  await settle()
  FakeSocket.last.welcome()
  FakeSocket.last.say('token-expires', { expiresInMs: 60_000 })
  await settle()
  assert.deepEqual(FakeSocket.last.sent, [])
})

test('a token function that fails before the token expires is called again, but not without a connection', async () => {
  const answers = ['first', new Error('busy'), new Error('busy'), 'second', new Error('busy')]
  let asked = 0
  const { hub } = connect({ token: async () => {
    const answer = answers[asked++]
    if (answer instanceof Error) throw answer
    return answer
  } })
  await settle()
  const socket = FakeSocket.last
  socket.welcome()
  socket.say('token-expires', { expiresInMs: 60_000 })
  await pass(3_900)
  assert.deepEqual([asked, socket.sent.length], [3, 0])
  await pass(200)
  assert.deepEqual(socket.sent, [{ type: 'auth', data: { token: 'second' } }])
  await pass(10_000)
  assert.equal(asked, 4)
  // The connection is lost while the function is called, and later while the next call waits.
  socket.say('token-expires', { expiresInMs: 60_000 })
  socket.end()
  await pass(1_500)
  assert.equal(FakeSocket.all.length, 2, 'the failure must not delay the next attempt')
  FakeSocket.last.welcome()
  asked = 1
  FakeSocket.last.say('token-expires', { expiresInMs: 60_000 })
  await settle()
  hub.close(new PigeonError('left', 'the room'))
  await pass(60_000, 1_000)
  assert.equal(asked, 2)
})

test('when its token has expired, a client with a token function connects again, and a client with a fixed token gives up', async () => {
  const tokens = ['first', 'second']
  const { hub, log } = connect({ token: () => tokens.shift() })
  await settle()
  FakeSocket.last.welcome()
  await pass(15_000)
  FakeSocket.last.end(4012, 'token expired')
  await pass(1_500)
  assert.equal(shown()[0], 'peerpigeon,bearer.second')
  FakeSocket.last.welcome()
  assert.equal(hub.state.is, 'online')
  assert.deepEqual(log, ['connecting', 'online', 'waiting unauthorized', 'connecting', 'online'])

  const last = connect({ token: 'text' })
  await settle()
  FakeSocket.last.welcome()
  FakeSocket.last.end(4012, 'token expired')
  await settle()
  const { is, because } = last.hub.state as any
  assert.deepEqual([is, because.final, because.message], ['closed', true, 'unauthorized: token expired (4012)'])
})

test('an unknown close code is not final', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  FakeSocket.last.end(4999, 'a code of a later version')
  await settle()
  assert.equal(hub.state.is, 'waiting')
})

test('a client that is forbidden or kicked does not reconnect, even if it has a token function', async () => {
  for (const [code, name] of [[4403, 'forbidden'], [4011, 'kicked']] as const) {
    const { hub } = connect({ token: () => 'any' })
    await settle()
    FakeSocket.last.welcome()
    const attempts = FakeSocket.all.length
    FakeSocket.last.end(code, 'because')
    await pass(60_000, 1000)
    const { is, because } = hub.state as any
    assert.deepEqual([is, because.code, because.final, because.message], ['closed', name, true, `${name}: because (${code})`])
    assert.equal(FakeSocket.all.length, attempts)
  }
})

test('after a failed handshake, the next attempt offers no subprotocol, because old hubs do not support it', async () => {
  const { hub } = connect()
  await settle()
  assert.equal(FakeSocket.last.protocols, 'peerpigeon')
  FakeSocket.last.end()
  await pass(2_000)
  assert.deepEqual(FakeSocket.last.protocols, [])
  FakeSocket.last.welcome()
  await pass(11_000)
  FakeSocket.last.end()
  await pass(1_000)
  assert.deepEqual(FakeSocket.last.protocols, [], 'the client must repeat a choice of subprotocols that has worked')
  assert.equal(hub.state.is, 'connecting')
  FakeSocket.last.end()
  await pass(3_000)
  assert.equal(FakeSocket.last.protocols, 'peerpigeon')
})

test('a silent hub gets a ping, and is lost without an answer', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  await pass(25_000)
  assert.deepEqual(FakeSocket.last.sent.map(({ type }) => type), ['ping'])
  FakeSocket.last.say('pong', {})
  await pass(30_000)
  FakeSocket.last.say('pong', {})
  await pass(39_000)
  assert.equal(hub.state.is, 'online')
  await pass(1_000)
  assert.equal(hub.state.is, 'waiting')
})

test('the time during which a page slept does not count as silence', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  await pass(20_000)
  // The page sleeps: no timer runs meanwhile, and each timer runs once afterwards.
  mock.timers.setTime(Date.now() + 300_000)
  await pass(10_000)
  assert.equal(hub.state.is, 'online')
  assert.equal(FakeSocket.last.sent.at(-1).type, 'ping')
  FakeSocket.last.say('pong', {})
  await pass(20_000)
  assert.equal(hub.state.is, 'online')
})

test('a dead connection is noticed within seconds after the network has changed', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  hub.check()
  assert.equal(FakeSocket.last.sent.at(-1).type, 'ping')
  await pass(5_100)
  assert.equal(hub.state.is, 'waiting')
})

test('a message sent before the network was lost is not an answer to a check', async () => {
  const { hub } = connect()
  await settle()
  FakeSocket.last.welcome()
  hub.check()
  FakeSocket.last.say('peer-discovered', {})
  await pass(5_100)
  assert.equal(hub.state.is, 'waiting')
  await pass(2_000)
  FakeSocket.last.welcome()
  hub.check()
  FakeSocket.last.say('pong', {})
  await pass(20_000)
  assert.equal(hub.state.is, 'online')
})

test('an id that another page uses is given up after the second refusal', async () => {
  connect()
  await settle()
  FakeSocket.last.readyState = 1
  FakeSocket.last.onopen?.()
  FakeSocket.last.end(4009, 'peer id in use')
  await pass(2_000)
  assert.equal(FakeSocket.last.id, 'id0')
  FakeSocket.last.onopen?.()
  FakeSocket.last.end(4009)
  await pass(3_000)
  assert.equal(FakeSocket.last.id, 'id1')
  FakeSocket.last.welcome()
  FakeSocket.last.end(4001, 'replaced')
  await pass(3_000)
  assert.equal(FakeSocket.last.id, 'id2')
})

test('after close() no event of the hub has an effect', async () => {
  const { hub, log } = connect()
  await settle()
  const socket = FakeSocket.last
  socket.welcome()
  hub.close(new PigeonError('left', 'the room'))
  const before = log.length
  socket.say('peer-discovered', {})
  socket.onclose?.({ code: 1006, reason: '' })
  hub.retry()
  await pass(60_000)
  assert.equal(log.length, before)
  assert.equal(FakeSocket.all.length, 1)
})
