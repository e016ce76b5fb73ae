// The script of the page that a hub shows to browsers. It uses client.js as any other page would, but gives it a
// WebSocket class that also shows the messages.
import { join } from './client.js'
import { svg } from './playground-qr.js'

const $ = id => document.getElementById(id)
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties)
  element.append(...children)
  return element
}

const COLOURS = ['Amber', 'Azure', 'Coral', 'Copper', 'Ivory', 'Jade', 'Lilac', 'Olive', 'Pearl', 'Rose', 'Russet', 'Silver']
const BIRDS = ['Dove', 'Finch', 'Heron', 'Ibis', 'Jay', 'Kestrel', 'Lark', 'Martin', 'Owl', 'Plover', 'Robin', 'Swift', 'Tern', 'Wren']
const pick = list => list[crypto.getRandomValues(new Uint32Array(1))[0] % list.length]
const MAX_ROWS = 200
/** Maximum length of a name. */
const MAX_NAME = 40

/** The address of the hub. The hub serves this page; a proxy may put it under a path. */
const base = new URL('.', location.href)
const hubAddress = base.href.replace(/^http/, 'ws').replace(/\/$/, '')
const network = decodeURIComponent(location.hash.slice(1)) || new URLSearchParams(location.search).get('room') || 'lobby'

/** Stores the name and the token until the tab is closed. */
const kept = {
  get: key => { try { return sessionStorage.getItem(`playground ${key}`) } catch { return null } },
  set: (key, value) => { try { sessionStorage.setItem(`playground ${key}`, value) } catch {} }
}

let servers = []
let room
let last = { key: '', count: 0, item: undefined }

// The wire

/**
 * Adds a row to the diagram: an arrow from a sender to a receiver. A row with the same `key` as the row before it is
 * not added. Instead, the row before it shows a count.
 */
function row (kind, label, detail, key = '') {
  const list = $('wire')
  const followed = list.scrollTop + list.clientHeight >= list.scrollHeight - 30
  if (key && key === last.key) {
    last.count++
    last.item.querySelector('.label').textContent = `${label} ×${last.count}`
    return
  }
  const time = make('time', { textContent: `${Math.round(performance.now())}` })
  time.title = 'milliseconds since this page was opened'
  const arrow = make('span', { className: 'arrow' }, make('span', { className: 'label', textContent: label }))
  const text = detail && JSON.stringify(detail, null, 1)
  const item = make('li', { className: kind }, text
    ? make('details', {}, make('summary', {}, time, arrow), make('pre', { textContent: text.length > 4000 ? `${text.slice(0, 4000)} …` : text, tabIndex: 0 }))
    : make('div', { className: 'plain' }, time, arrow))
  list.append(item)
  while (list.children.length > MAX_ROWS) list.firstChild.remove()
  if (followed) list.scrollTop = list.scrollHeight
  last = { key, count: 1, item }
}

const QUIET = new Set(['ping', 'pong', 'receipt'])
/** The name in the data of a peer. Peers on other pages may announce no name, or a name that is not a text. */
const called = (id = '', name) => typeof name === 'string' && name ? name.slice(0, MAX_NAME) : id.slice(0, 6)
const nameOf = (peer, data = peer.data) => called(peer.id, data.name)

function wire (sent, message) {
  const { type, data, targetPeerId, fromPeerId } = message
  if (QUIET.has(type)) return
  const direction = sent ? 'up' : 'down'
  if (type === 'offer' || type === 'answer' || type === 'ice-candidate') {
    const id = sent ? targetPeerId : fromPeerId
    const other = called(id, room?.peers.get(id)?.data.name)
    row(`${direction} through`, `${type} ${sent ? 'to' : 'from'} ${other}`, data, type === 'ice-candidate' ? direction + other : '')
  } else {
    const about = type === 'peer-discovered' ? ` ${called(data.peerId, data.data?.name)}` : type === 'announce' ? ` “${message.networkName}”` : ''
    row(direction, `${type}${about}`, message)
  }
}

class Tapped extends WebSocket {
  constructor (...args) {
    super(...args)
    row('up', 'WebSocket')
    this.addEventListener('message', event => {
      const message = JSON.parse(event.data)
      if (['connected', 'ice-servers'].includes(message.type) && Array.isArray(message.data.iceServers)) servers = message.data.iceServers
      wire(false, message)
    })
  }

  send (text) {
    wire(true, JSON.parse(text))
    super.send(text)
  }
}

// The room

function enter () {
  room?.leave()
  const began = new Map()
  const name = $('name').value
  room = join(hubAddress, network, { data: { name }, token: kept.get('token') ?? undefined, WebSocket: Tapped })
  room.on('hub', showHub)
  room.on('join', peer => {
    began.set(peer, performance.now())
    note(`${nameOf(peer)} is here`)
    showPeople()
  })
  room.on('leave', (peer, reason) => {
    began.delete(peer)
    if (reason !== 'replaced') note(`${nameOf(peer)} has left`)
    showPeople()
  })
  room.on('change', (peer, before) => {
    if (before.name !== peer.data.name) note(`${nameOf(peer, before)} is now ${nameOf(peer)}`)
    showPeople()
  })
  room.on('connection', (pc, peer) => {
    pc.addEventListener('iceconnectionstatechange', () => {
      if (pc.iceConnectionState === 'checking') row('direct', `looking for a path to ${nameOf(peer)}`, undefined, `checking ${peer.id}`)
    })
  })
  room.on('link', (peer, state) => {
    if (state === 'open') {
      const ms = Math.round(performance.now() - (began.get(peer) ?? 0))
      row('direct', `connected with ${nameOf(peer)}`)
      peer.took ??= ms
      $('took').textContent = `connected in ${peer.took} ms`
    } else if (state === 'interrupted') row('direct', `lost ${nameOf(peer)}, looking for another path`)
    showPeople()
    tellLinks()
  })
  room.channel('links').on('message', heardLinks)
  room.on('message', (text, peer) => { if (typeof text === 'string') say(text.slice(0, 4000), nameOf(peer)) })
  room.on('error', error => { note(error.message) })
  showHub(room.hub)
  showPeople()
}

const REASONS = {
  'hub-unreachable': 'it does not answer',
  'hub-full': 'it is full',
  'hub-leaving': 'it is restarting',
  'id-in-use': 'another page has taken this page’s id',
  unauthorized: 'it requires a valid token',
  forbidden: 'it does not accept pages from this address (ALLOWED_ORIGINS)',
  kicked: 'an operator has removed you'
}
const why = ({ code, message }) => REASONS[code] ?? message

const HUB_STATES = {
  connecting: () => 'Connecting to the hub…',
  online: () => 'Hub connected',
  waiting: ({ because }) => `No connection to the hub: ${why(because)}. Trying again.`,
  closed: ({ because }) => `No connection to the hub: ${why(because)}`
}

function showHub (state) {
  const element = $('hub')
  element.dataset.is = state.is
  element.textContent = HUB_STATES[state.is](state)
  $('token').hidden = !(state.is === 'closed' && state.because.code === 'unauthorized')
  if (state.is === 'online') selfTest()
}

// The graph

/** The graph shows at most this number of members. */
const MAX_DRAWN = 24
const SVG = 'http://www.w3.org/2000/svg'
const shape = (name, attributes, text = '') => {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.textContent = text
  return element
}

/** The links that each other peer reports, because this page itself knows only its own links. */
const linksOf = new WeakMap()

/** Sends the list of this page's links to all linked peers. */
function tellLinks () {
  const open = [...room.peers.values()].filter(peer => peer.state === 'open')
  room.channel('links').send(open.slice(0, MAX_DRAWN).map(({ id }) => id), open).catch(() => {})
}

function heardLinks (ids, peer) {
  if (!Array.isArray(ids)) return
  linksOf.set(peer, new Set(ids.slice(0, MAX_DRAWN)))
  showGraph()
}

/**
 * Draws all peers on a circle, with a line for each link. A link between two other peers is drawn if both peers report
 * it.
 */
function showGraph () {
  const peers = [...room.peers.values()].slice(0, MAX_DRAWN - 1)
  const count = peers.length + 1
  const places = [undefined, ...peers].map((_, index) => {
    const angle = 2 * Math.PI * index / count - Math.PI / 2
    return { x: Math.round(100 + 65 * Math.cos(angle)), y: Math.round(92 + 70 * Math.sin(angle)) }
  })
  const line = (one, other, kind) => shape('line', { x1: one.x, y1: one.y, x2: other.x, y2: other.y, class: kind })
  const lines = peers.map((peer, index) => line(places[0], places[index + 1], peer.state === 'open' ? 'open' : peer.state === 'interrupted' ? 'lost' : ''))
  peers.forEach((one, first) => peers.forEach((other, second) => {
    if (first < second && linksOf.get(one)?.has(other.id) && linksOf.get(other)?.has(one.id)) lines.push(line(places[first + 1], places[second + 1], 'open'))
  }))
  const names = ['you', ...peers.map(peer => nameOf(peer).slice(0, 12))]
  const nodes = places.flatMap(({ x, y }, index) => [
    shape('circle', { cx: x, cy: y, r: 7, class: index ? '' : 'you' }),
    shape('text', { x, y: y + 18 }, names[index])
  ])
  $('graph').replaceChildren(...lines, ...nodes)
  $('graph').toggleAttribute('hidden', peers.length === 0)
  const links = lines.filter(({ classList }) => classList.contains('open')).length
  const linked = peers.filter(peer => peer.state === 'open').length
  $('graph').setAttribute('aria-label', `Graph of the room: ${links} links among ${count} members, ${linked} of them yours`)
}

const STATES = { seen: 'seen', connecting: 'connecting…', open: 'connected', interrupted: 'interrupted…' }

function showPeople () {
  const people = [...room.peers.values()]
  const items = people.map(peer => {
    const dot = make('span', { className: 'dot' })
    dot.dataset.state = peer.state
    return make('li', {}, dot,
      make('span', { className: 'who', textContent: nameOf(peer) }),
      make('span', { className: 'soft', textContent: peer.state === 'open' && peer.took !== undefined ? `${peer.took} ms` : STATES[peer.state] }))
  })
  $('people').replaceChildren($('people').firstElementChild, ...items)
  $('count').textContent = people.length === 0 ? 'you alone' : `you and ${people.length}`
  $('hint').hidden = people.length > 0
  showGraph()
}

// The chat

function add (paragraph) {
  const log = $('log')
  const followed = log.scrollTop + log.clientHeight >= log.scrollHeight - 30
  log.append(paragraph)
  while (log.children.length > MAX_ROWS) log.firstChild.remove()
  if (followed) log.scrollTop = log.scrollHeight
}

const say = (text, name, own = false) => add(make('p', { className: own ? 'own' : '' }, make('b', { textContent: name }), text))
const note = text => add(make('p', { className: 'event', textContent: text }))

function toast (text) {
  $('toast').textContent = text
  $('toast').classList.add('shown')
  setTimeout(() => $('toast').classList.remove('shown'), 2000)
}

async function copy (text, what) {
  try {
    await navigator.clipboard.writeText(text)
    toast(`${what} copied`)
  } catch {
    toast('This browser does not let this page copy')
  }
}

// The code

const literal = text => `'${JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'").replaceAll('<', '\\x3c')}'`

const code = () => `<!doctype html>
<meta charset="utf-8">
<p id="people"></p>
<input id="text" placeholder="Say something" autofocus>
<ul id="chat"></ul>
<script type="module">
  import { join } from ${literal(new URL('client.js', base).href)}

  const show = text => chat.append(Object.assign(document.createElement('li'), { textContent: text }))
  const room = join(${literal(hubAddress)}, ${literal(network)}, { data: { name: ${literal($('name').value)} } })
  room.on('join', peer => show(\`\${peer.data.name} is here\`))
  room.on('leave', peer => show(\`\${peer.data.name} has left\`))
  room.on('message', (words, peer) => show(\`\${peer.data.name}: \${words}\`))
  text.onchange = () => { room.send(text.value); show(\`me: \${text.value}\`); text.value = '' }
</script>
`

function showCode () {
  $('code').textContent = code()
  $('download').href = `data:text/html;charset=utf-8,${encodeURIComponent(code())}`
}

// The self-test

async function selfTest () {
  const list = $('findings')
  list.replaceChildren()
  const finding = (level, text) => list.append(make('li', { className: level, textContent: text }))
  const start = performance.now()
  try {
    const answer = await fetch(base, { cache: 'no-store', headers: { Accept: 'application/json' } })
    const { version } = await answer.json()
    $('version').textContent = `PeerPigeon ${version} ·`
    finding('ok', `The hub answers in ${Math.round(performance.now() - start)} ms.`)
  } catch (error) {
    finding('bad', `The hub does not answer: ${error.message}`)
  }
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname)
  if (local) finding('warn', 'This address is only for this machine. For others, start the hub with HOST=0.0.0.0 and open this page at the machine’s address.')
  if (!isSecureContext) finding('warn', 'Browsers give pages on http:// no camera or microphone. Serve the hub with TLS, and use https:// and wss://.')
  const busy = make('li', { className: 'busy', textContent: 'Looking for paths…' })
  list.append(busy)
  const found = await paths(servers)
  busy.remove()
  if (found.has('host')) finding('ok', 'Peers in the same network connect.')
  else finding('bad', 'This browser finds no address for WebRTC: WebRTC may be switched off, or a policy may block it.')
  if (found.has('srflx')) finding('ok', 'STUN answers: peers behind most home routers connect.')
  else finding('warn', servers.length > 0 ? 'STUN does not answer: peers behind routers may not connect.' : 'The hub names no STUN or TURN server. Peers behind routers need one: set iceServers in join().')
  if (found.has('relay')) finding('ok', 'TURN answers: peers behind strict firewalls connect, too.')
  else if (servers.some(({ urls }) => String(urls).includes('turn'))) finding('bad', 'TURN does not answer: peers behind strict firewalls do not connect.')
}

/** Gathers ICE candidates with these servers for at most three seconds, and returns their types. */
async function paths (iceServers) {
  const kinds = new Set()
  let pc
  try {
    pc = new RTCPeerConnection({ iceServers })
    pc.createDataChannel('test')
    const done = new Promise(resolve => {
      pc.onicecandidate = ({ candidate }) => candidate ? kinds.add(candidate.type) : resolve()
      setTimeout(resolve, 3000)
    })
    await pc.setLocalDescription()
    await done
  } catch {}
  pc?.close()
  return kinds
}

// The page

const link = () => new URL(`#${encodeURIComponent(network)}`, base).href

$('name').value = kept.get('name') ?? `${pick(COLOURS)} ${pick(BIRDS)}`
$('network').value = network
document.title = `${network} · PeerPigeon playground`
$('second').href = link()

$('room').addEventListener('submit', event => {
  event.preventDefault()
  location.hash = encodeURIComponent($('network').value)
})
$('random').addEventListener('click', () => {
  location.hash = `${pick(COLOURS)}-${pick(BIRDS)}-${crypto.getRandomValues(new Uint16Array(1))[0]}`.toLowerCase()
})
addEventListener('hashchange', () => location.reload())
$('name').addEventListener('change', () => {
  kept.set('name', $('name').value)
  room.update({ name: $('name').value })
  showCode()
})
$('say').addEventListener('submit', async event => {
  event.preventDefault()
  const text = $('text').value
  if (!text) return
  $('text').value = ''
  say(text, $('name').value, true)
  if (room.peers.size === 0) return note('Nobody else is here yet')
  const { failed } = await room.send(text)
  for (const peer of failed.keys()) note(`${nameOf(peer)} did not receive the message`)
})
$('token').addEventListener('submit', event => {
  event.preventDefault()
  kept.set('token', $('auth').value)
  enter()
})
$('share').addEventListener('toggle', () => {
  const image = svg(link())
  $('qr').replaceChildren(image ?? 'This link is too long for a QR code.')
  $('reach').textContent = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname)
    ? 'A phone cannot reach localhost: start the hub with HOST=0.0.0.0, and open this page at the machine’s address.'
    : ''
})
// On this page, the part of the URL after # is the name of the room, so a link to #text would open another room.
$('skip').addEventListener('click', event => {
  event.preventDefault()
  $('text').focus()
})
$('copy-link').addEventListener('click', () => copy(link(), 'Link'))
$('copy-code').addEventListener('click', () => copy(code(), 'Code'))
$('again').addEventListener('click', selfTest)

showCode()
enter()
