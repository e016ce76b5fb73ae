// The live view: reads the hub's events, and draws what they contain.
import { bars, bucketNames, bytes, draw, duration, graph, heat, lines, quantile, short, table, text } from './dashboard-charts.js'
import { byLabel, findings } from './dashboard-findings.js'

const $ = id => document.getElementById(id)
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties)
  element.append(...children)
  return element
}
const SPAN_MS = 600_000
/** A shorter sample shows no load: the first sample of a hub covers milliseconds, and its load includes the start. */
const SHORT_MS = 500
const MAX_LINES = 100
const TABLE_ROWS = 20

let hello
let state
let before
let samples = []
let logged = []
let drawn = false

// ---- events

const source = new EventSource('dashboard/events')
source.addEventListener('hello', ({ data }) => {
  const next = JSON.parse(data)
  if (next.epoch !== hello?.epoch) { samples = []; logged = []; before = state = undefined }
  hello = next
  $('orders').hidden = $('logout').hidden = $('log-part').hidden = $('networks-part').hidden = !hello.operator
  $('strangers').hidden = hello.operator
  text($('version'), `PeerPigeon ${hello.version}`)
})
source.addEventListener('sample', ({ data }) => {
  samples.push(JSON.parse(data))
  const oldest = samples.at(-1).at - SPAN_MS
  if (samples.length > hello.samples || samples[0].at < oldest - 5000) samples = samples.filter(({ at }) => at >= oldest).slice(-hello.samples)
})
source.addEventListener('line', ({ data }) => {
  logged.push(JSON.parse(data))
  if (logged.length > MAX_LINES) logged.shift()
})
source.addEventListener('state', ({ data }) => {
  before = state
  state = JSON.parse(data)
  connected('live', hello.stays ? 'Live' : 'Live, every few seconds')
  schedule()
})
source.onerror = async () => {
  connected('lost', 'Not connected: trying again')
  if (source.readyState !== EventSource.CLOSED) {
    if (hello && !hello.stays) connected('live', 'Live, every few seconds')
    return
  }
  // The browser does not reconnect by itself after an answer such as 401. Either the login has expired, or the hub
  // refuses the request for some time.
  const answer = await fetch('dashboard', { method: 'HEAD' }).catch(() => undefined)
  if (answer?.status === 401) location.reload()
  else setTimeout(() => location.reload(), 5000)
}

function connected (is, says) {
  $('stream').dataset.is = is
  text($('stream'), says)
}

let waiting = false
function schedule () {
  if (waiting || document.hidden) return
  waiting = true
  requestAnimationFrame(() => { waiting = false; if (state && samples.length) show() })
}
document.addEventListener('visibilitychange', schedule)
addEventListener('resize', schedule)

// ---- charts

const per = (sample, count) => (count ?? 0) * 1000 / Math.max(1, sample.over)
const total = counts => Object.values(counts ?? {}).reduce((sum, count) => sum + count, 0)
const percent = value => `${short(value)} %`
const lost = ({ outcomes = {} }) => total(outcomes) - (outcomes.delivered ?? 0) - (outcomes.forwarded ?? 0)

/** The lines of each chart: the name of a line, and a function that returns its value in a sample. */
const CHARTS = {
  peers: { title: 'Peers', series: () => [['Peers', s => s.peers], ['Connections', s => s.connections], ...(state.mesh ? [['Peers of other hubs', s => s.remotePeers]] : [])] },
  joins: { title: 'Joins and leaves per second', series: () => [['Connected', s => per(s, s.opened)], ['Joined a network', s => per(s, s.announces)], ['Left a network', s => per(s, s.goodbyes)], ['Closed', s => per(s, total(s.closes))], ['Refused', s => per(s, total(s.refused))]] },
  signals: { title: 'Signals per second', series: () => [['Delivered', s => per(s, s.outcomes?.delivered)], ['Not delivered', s => per(s, lost(s))], ['Errors sent', s => per(s, total(s.errors))], ...(samples.some(s => s.outcomes?.forwarded) ? [['Forwarded to Go hubs', s => per(s, s.outcomes?.forwarded)]] : [])] },
  traffic: { title: 'Bytes per second', format: bytes, series: () => [['From peers', s => per(s, s.bytes[0])], ['To peers', s => per(s, s.bytes[1])], ...(state.mesh ? [['From hubs', s => per(s, s.linkBytes[0])], ['To hubs', s => per(s, s.linkBytes[1])]] : [])] },
  load: { title: 'Load in percent of a core', format: percent, series: () => [...load(), ...(state.mesh ? [['Mesh', s => s.meshBusy / 10]] : []), ['Process, CPU time', s => s.cpu / 10]].map(([name, of]) => [name, s => s.over < SHORT_MS ? null : of(s)]) },
  latency: { title: 'Signals by latency', heat: s => s.latency, bounds: () => hello.latencyBounds },
  turns: { title: 'Turns by length', heat: s => s.turns, bounds: () => hello.turnBounds }
}

/** Up to three shards have a line each. More shards have one line for the busiest shard and one for their mean. */
function load () {
  const shards = state.shards.length
  if (shards <= 3) return Array.from({ length: shards }, (_, shard) => [`Shard ${shard}`, s => s.busy[shard] / 10])
  return [['Busiest shard', s => Math.max(...s.busy) / 10], ['Mean shard', s => s.busy.reduce((sum, part) => sum + part, 0) / s.busy.length / 10]]
}

const figures = [...document.querySelectorAll('[data-chart]')].map(figure => {
  const chart = CHARTS[figure.dataset.chart]
  const svg = draw('svg', { role: 'img', 'aria-label': chart.title })
  const legend = make('ul', { className: 'legend' })
  const data = make('table')
  const details = make('details', {}, make('summary', { textContent: 'As a table' }), make('div', { className: 'scroll', tabIndex: 0, role: 'region', ariaLabel: `${chart.title}, table` }, data))
  figure.append(svg, legend, details)
  const shown = { chart, svg, legend, data, details, pointed: undefined }
  svg.addEventListener('pointermove', event => { point(shown, event) })
  svg.addEventListener('pointerleave', () => { shown.pointed = undefined; schedule() })
  details.addEventListener('toggle', schedule)
  return shown
})

function point (shown, event) {
  if (!shown.svg.scale) return
  const box = shown.svg.getBoundingClientRect()
  const { times, x, width } = shown.svg.scale
  const at = (event.clientX - box.left) / box.width * width
  shown.pointed = times.reduce((best, time) => Math.abs(x(time) - at) < Math.abs(x(best) - at) ? time : best, times[0])
  schedule()
}

/** Divides the last ten minutes into `count` parts of equal length: [{ at, over, of: samples }], the oldest first. */
function parts (count) {
  const to = samples.at(-1).at
  const span = SPAN_MS / count
  const groups = Array.from({ length: count }, (_, index) => ({ at: to - SPAN_MS + index * span, over: span, of: [] }))
  for (const sample of samples) groups[Math.min(count - 1, Math.floor((sample.at - (to - SPAN_MS) - 1) / span))]?.of.push(sample)
  return groups
}

const clock = at => new Date(at).toLocaleTimeString()

function showChart (shown) {
  const { chart, svg, legend, data, details } = shown
  const to = samples.at(-1).at
  const range = { from: to - SPAN_MS, to }
  if (chart.heat) {
    const rows = bucketNames(chart.bounds())
    const columnOf = ({ at, over, of }) => {
      const counts = rows.map(() => 0)
      for (const sample of of) for (const [bucket, count] of chart.heat(sample) ?? []) counts[bucket] += count
      return { at, over, counts }
    }
    heat(svg, { columns: parts(120).map(columnOf), rows, ...range })
    const all = columnOf({ of: samples.slice(-60) }).counts
    const [half, most] = [0.5, 0.99].map(part => quantile(all, chart.bounds(), part))
    const says = half === undefined ? 'none in the last minute' : `last minute: half within ${bound(half)}, 99 % within ${bound(most)}`
    svg.setAttribute('aria-label', `${chart.title}; ${says}`)
    if (chart === CHARTS.latency) text($('latency-now'), says)
    if (details.open) {
      const used = rows.map((name, bucket) => [name, bucket]).filter(([, bucket]) => samples.some(s => (chart.heat(s) ?? []).some(([at]) => at === bucket)))
      table(data, chart.title, ['From', ...used.map(([name]) => `≤ ${name}`.replace('≤ >', '> '))], parts(TABLE_ROWS).filter(({ of }) => of.length).map(part => [clock(part.at), ...used.map(([, bucket]) => columnOf(part).counts[bucket])]))
    }
    return
  }
  const series = chart.series().map(([name, of]) => ({ name, of, values: samples.map(of) }))
  lines(svg, { times: samples.map(({ at }) => at), series, format: chart.format, area: true, ...range })
  const at = shown.pointed === undefined ? samples.length - 1 : samples.findIndex(({ at }) => at === shown.pointed)
  if (shown.pointed !== undefined && at >= 0) {
    const x = svg.scale.x(shown.pointed)
    svg.append(draw('line', { class: 'cursor', x1: x, x2: x, y1: 8, y2: svg.scale.height - 18 }))
  }
  const format = chart.format ?? short
  const values = series.map(({ name, values }) => [name, format(values[at < 0 ? samples.length - 1 : at])])
  while (legend.children.length > values.length) legend.lastChild.remove()
  values.forEach(([name, value], index) => {
    const item = legend.children[index] ?? legend.appendChild(make('li', { className: `c${index}` }, make('i'), make('span'), make('b')))
    text(item.children[1], name)
    text(item.children[2], value)
  })
  svg.setAttribute('aria-label', `${chart.title}, last ten minutes; now: ${values.map(([name, value]) => `${name} ${value}`).join(', ')}`)
  if (details.open) {
    const mean = (of, get) => of.reduce((sum, sample) => sum + (get(sample) ?? 0), 0) / of.length
    table(data, `${chart.title}, means`, ['From', ...series.map(({ name }) => name)], parts(TABLE_ROWS).filter(({ of }) => of.length).map(({ at, of }) => [clock(at), ...series.map(({ of: get }) => format(mean(of, get)))]))
  }
}

const bound = micros => micros === Infinity ? 'more than the largest bound' : duration(micros / 1000)

// ---- tiles, findings and tables

function show () {
  showFindings()
  showTiles()
  figures.forEach(showChart)
  if (state.mesh) showMesh(state.mesh)
  $('mesh').hidden = !state.mesh
  showShards()
  showLimits()
  showEnds()
  showRedis()
  showCertificates()
  showLog()
  text($('who'), [hello.region, `hub ${state.hub.slice(0, 8)}`, `up ${duration(state.uptimeMs)}`].filter(Boolean).join(' · '))
  drawn = true
}

let foundBefore = ''
function showFindings () {
  const found = findings(samples, state)
  const key = JSON.stringify(found.map(({ level, text }) => level + text.replace(/\d[\d.,kMG]*/g, '#')))
  // Screen readers read a live region again when its elements change. If only numbers have changed, this function
  // therefore keeps the elements and updates only their text.
  if (key === foundBefore) {
    found.forEach(({ text: says }, index) => text($('findings').children[index].firstChild, says))
    return
  }
  foundBefore = key
  const item = ({ level, text, link, alert }) => make('li', { className: level }, make('span', { textContent: text }), ...(link ? [' ', make('a', { href: link, textContent: 'What to do', ariaLabel: `What to do: ${alert}` })] : []))
  $('findings').replaceChildren(...(found.length ? found.map(item) : [make('li', { className: 'ok' }, make('span', { textContent: 'Nothing.' }))]))
}

function showTiles () {
  const now = samples.at(-1)
  const minute = samples.slice(-60)
  const secs = minute.reduce((sum, { over }) => sum + over, 0) / 1000
  const rate = of => minute.reduce((sum, sample) => sum + of(sample), 0) / Math.max(1, secs)
  const signals = rate(s => total(s.outcomes))
  const delivered = rate(s => (s.outcomes?.delivered ?? 0) + (s.outcomes?.forwarded ?? 0))
  const most = state.budgets.find(({ name }) => name === 'connections')
  const tiles = [
    ['Peers', short(now.peers), `${short(now.connections)} of ${short(most.max)} connections`],
    ['Networks', short(now.networks), `${short(now.members)} memberships`],
    ...(state.mesh ? [['Hubs', short(now.hubs + 1), offline(state.mesh) ? 'Redis is not connected' : `${short(now.peers + now.remotePeers)} peers in all`]] : []),
    ['Signals per s', short(signals), signals ? `${short(100 * delivered / signals)} % delivered` : 'last minute'],
    ['Messages per s', short(rate(s => s.messages[0] + s.messages[1])), 'in and out'],
    ['Processor', percent(rate(s => s.cpu * s.over / 1000) / 10), 'of a core'],
    ['Memory', now.memory ? bytes(now.memory) : '–', 'resident']
  ]
  const list = $('tiles')
  while (list.children.length > tiles.length) list.lastChild.remove()
  tiles.forEach((texts, index) => {
    const tile = list.children[index] ?? list.appendChild(make('div', {}, make('dt'), make('dd'), make('dd', { className: 'soft' })))
    texts.forEach((says, at) => text(tile.children[at], says))
  })
}

const mark = (says, level = '') => make('span', { className: `mark ${level}`, textContent: says })
const markOf = state => mark(state, { live: '', ready: '', draining: 'warn', opening: 'warn', lost: 'bad' }[state])
const ms = value => value === null || value === undefined ? '–' : duration(value)

/** The bytes per second of a link in each direction, computed from the counts in the current and the previous state. */
function traffic ({ link, bytes }) {
  const known = before?.mesh?.links.find(other => other.link === link)
  const secs = (state.at - (before?.at ?? 0)) / 1000
  return known && secs > 0 ? bytes.map((count, direction) => Math.max(0, (count - known.bytes[direction]) / secs)) : [0, 0]
}

/** Whether the mesh uses Redis, and Redis is not connected. */
const offline = ({ redis }) => redis && !redis.connected

function showMesh (mesh) {
  const { hubs, links, dials, more } = mesh
  const alone = !hubs.length && !links.length
  for (const id of ['graph', 'all-hubs-part', 'hubs-part', 'links-part']) $(id).toggleAttribute('hidden', alone)
  const cut = offline(mesh) ? `Redis is not connected: ${alone ? '' : 'without a link between them, '}hubs cannot see each other's peers.` : ''
  $('mesh-note').hidden = !alone && !cut
  text($('mesh-note'), [alone ? 'This hub has no link to another hub, and knows no other hub.' : '', cut].filter(Boolean).join(' '))
  const name = id => id ? id.slice(0, 8) : '?'
  const slow = rtt => rtt > 150
  const own = { id: state.hub, name: `${name(state.hub)} (this hub)`, detail: `${short(samples.at(-1).peers)} peers`, state: state.stage === 'ready' ? 'live' : 'draining', own: true }
  const nodes = [own, ...hubs.map(({ id, peers, state, rttMs }) => ({ id, name: name(id), detail: `${short(peers)} peers`, state, rttMs }))]
  const edges = []
  for (const link of links) {
    if (!link.hub) continue
    const [incoming, outgoing] = traffic(link)
    edges.push({ from: state.hub, to: link.hub, label: link.rttMs === null ? '' : ms(link.rttMs), weight: incoming + outgoing, state: !link.ready ? 'opening' : link.saturated ? 'bad' : slow(link.rttMs) ? 'slow' : 'ready' })
  }
  for (const { id, way } of hubs) if (way === 'relayed' || way === 'bridged') edges.push({ from: state.hub, to: id, label: way === 'bridged' ? 'Redis' : 'relayed', state: 'relayed' })
  graph($('graph'), { nodes, edges })
  $('graph').setAttribute('aria-label', `This hub, ${hubs.length} other hubs and ${links.length} links: the tables below have the same data`)
  table($('all-hubs'), 'All hubs of the mesh', ['Hub', 'Version', 'Connections', 'Processor', 'Busiest shard', 'Signals per s', 'Memory'], [
    [own.name, ...statusCells(state.status)],
    ...hubs.filter(({ state }) => state !== 'lost').map(({ id, status }) => [status?.adminUrl ? pageOf(id, name(id), status.adminUrl) : name(id), ...statusCells(status)])
  ])
  table($('hubs'), 'Other hubs', ['Hub', 'State', 'Path', 'Peers', 'Round trip', 'Missing changes', 'Last heard', 'URL'], hubs.map(hub => [name(hub.id), reuse(`hub ${hub.id} ${hub.state}`, () => markOf(hub.state)), hub.legacy ? `${hub.way ?? 'none'}, Go hub` : hub.way ?? 'none', hub.peers, ms(hub.rttMs), hub.lag, `${ms(hub.heardMs)} ago`, hub.url]))
  table($('links'), 'Links', ['Hub', 'State', 'Direction', 'Round trip', 'In per s', 'Out per s', 'Queued', 'Address'], links.map(link => {
    const [incoming, outgoing] = traffic(link)
    const is = link.ready ? link.saturated ? 'full' : 'ready' : 'opening'
    return [name(link.hub), reuse(`link ${link.link} ${is}`, () => mark(is, { full: 'bad', opening: 'warn' }[is])), link.dialed ? 'dialed' : 'accepted', ms(link.rttMs), bytes(incoming), bytes(outgoing), bytes(link.queuedBytes), link.address]
  }))
  const missing = dials.filter(({ connected, own }) => !connected && !own)
  $('dials-part').hidden = !missing.length
  table($('dials'), 'Dialed addresses without a link', ['Address', 'Source', 'Attempts', 'Last error'], missing.map(dial => [dial.address, dial.source, dial.attempts, dial.error]))
  text($('mesh-more'), more.some(Boolean) ? `And ${more[0]} more hubs, ${more[1]} links, ${more[2]} addresses.` : '')
}

/** The cells with the figures from the last heartbeat of a hub. Hubs before 2.1 and Go hubs send no figures. */
function statusCells (status) {
  if (!status) return ['–', '–', '–', '–', '–', '–']
  const { version, connections, maxConnections, cpu, busiestShard, signals, memory } = status
  return [version, `${short(connections)} of ${short(maxConnections)}`, percent(cpu / 10), percent(busiestShard / 10), short(signals), memory ? bytes(memory) : '–']
}

/** A link to the live view of another hub. */
const pageOf = (id, name, adminUrl) => reuse(`page ${id} ${adminUrl}`, () => make('a', { href: `${adminUrl}/dashboard`, rel: 'noreferrer', textContent: name, ariaLabel: `Live view of hub ${name}` }))

/** Returns the same element each time for the same key, so that tables replace only cells whose content has changed. */
const elements = new Map()
function reuse (key, create) {
  if (!elements.has(key)) {
    if (elements.size > 2000) elements.clear()
    elements.set(key, create())
  }
  return elements.get(key)
}

function showShards () {
  const busy = samples.slice(-10)
  const part = shard => busy.reduce((sum, sample) => sum + (sample.busy[shard] ?? 0), 0) / busy.length / 10
  bars($('balance'), { values: state.shards.map(({ sessions }, shard) => ({ name: String(shard), value: sessions })), height: 110 })
  const long = (turns, since) => turns.reduce((sum, count, bucket) => sum + (bucket > 5 ? count - (since?.[bucket] ?? 0) : 0), 0)
  const rows = state.shards.map((shard, index) => [String(index), shard.sessions, percent(part(index)), bytes(shard.queuedBytes), long(shard.turns), duration(shard.longestTurnMs), shard.stalls])
  if (state.mesh) rows.push(['mesh', '–', percent(busy.reduce((sum, s) => sum + s.meshBusy, 0) / busy.length / 10), '–', '–', duration(state.mesh.longestTurnMs), '–'])
  table($('shards'), 'Threads, since the start of the hub', ['Shard', 'Peers', 'Busy (10 s)', 'Queued', 'Turns over 5 ms', 'Longest turn', 'Stalls'], rows)
}

function showLimits () {
  table($('budgets'), 'Bounded resources', ['Resource', 'In use', 'Limit', 'Share', 'Setting'], state.budgets.map(({ name, used, max, setting }) => {
    const amount = name === 'connections' || name === 'open files' ? short : bytes
    const meter = reuse(`meter ${name}`, () => make('meter', { min: 0, max: 1, low: 0.8, high: 0.95, optimum: 0, ariaLabel: name }))
    meter.value = used / Math.max(1, max)
    meter.title = percent(100 * used / Math.max(1, max))
    return [name, amount(used), amount(max), meter, setting ?? '–']
  }))
}

function showEnds () {
  const rows = []
  for (const [what, field] of [['closed', 'closes'], ['refused', 'refused'], ['error', 'errors']]) for (const [label, count] of byLabel(samples, field)) rows.push([label, what, count, sumOf(samples.slice(-60), field, label)])
  for (const [label, count] of byLabel(samples, 'outcomes')) if (label !== 'delivered' && label !== 'forwarded') rows.push([label, 'signal', count, sumOf(samples.slice(-60), 'outcomes', label)])
  $('no-ends').hidden = rows.length > 0
  $('ends').hidden = !rows.length
  table($('ends'), 'By reason', ['Reason', 'What', 'Ten minutes', 'Last minute'], rows)
}

const sumOf = (samples, field, label) => samples.reduce((sum, sample) => sum + (sample[field]?.[label] ?? 0), 0)

function showRedis () {
  const redis = state.mesh?.redis
  $('redis-part').hidden = !redis
  if (!redis) return
  const earlier = before?.mesh?.redis
  const secs = (state.at - (before?.at ?? 0)) / 1000
  const rate = name => earlier && secs > 0 ? short(Math.max(0, (redis[name] - earlier[name]) / secs)) : '–'
  table($('redis'), redis.address, ['What', 'Value'], [
    ['state', reuse(`redis ${redis.connected}`, () => redis.connected ? mark('connected') : mark('not connected', 'bad'))],
    ...(redis.connected
      ? [
          ['frames published per s', rate('published')],
          ['frames received per s', rate('received')],
          ['reconnects', redis.reconnects],
          ['hubs that do not answer', redis.oneWay.map(id => id.slice(0, 8)).join(', ') || 'none']
        ]
      : []),
    ['last error', redis.lastError ?? 'none']
  ])
}

function showCertificates () {
  $('tls-part').hidden = !state.tls
  if (!state.tls) return
  table($('certificates'), state.tls.stale ? 'The latest files are not valid. The hub uses the previous certificates' : 'In use', ['Names', 'File', 'Days left'], state.tls.certificates.map(({ names, file, daysLeft }) => {
    const level = daysLeft < 3 ? 'bad' : daysLeft < 21 ? 'warn' : ''
    return [names.join(', ') || file, file, reuse(`certificate ${file} ${daysLeft}`, () => mark(short(daysLeft), level))]
  }))
}

function showLog () {
  const rows = logged.toReversed().map(line => [new Date(line.at).toLocaleTimeString(), line.level, line.event, Object.entries(line.fields).map(([name, value]) => `${name}=${value}`).join('  ') + (line.cut ? ' …' : '')])
  $('no-log').hidden = rows.length > 0
  $('log').hidden = !rows.length
  table($('log'), 'Latest first', ['Time', 'Level', 'Event', 'Fields'], rows)
}

// ---- networks, which the page reads only when the operator clicks a button

const small = (says, label, act) => {
  const button = make('button', { type: 'button', className: 'small quiet', textContent: says, ariaLabel: label })
  button.addEventListener('click', act)
  return button
}

async function ask (path) {
  const answer = await fetch(path).catch(() => undefined)
  if (answer?.status === 401) location.reload()
  if (answer?.ok) return answer.json()
  toast((await answer?.text()) || 'The hub did not answer.')
}

$('load-networks').addEventListener('click', async () => {
  const found = await ask('dashboard/networks')
  if (!found) return
  text($('load-networks'), 'Read again')
  table($('networks'), `The ${found.networks.length} largest, at ${new Date().toLocaleTimeString()}`, ['Network', 'Members', 'Orders'], found.networks.map(([name, members]) => {
    const buttons = make('span', { className: 'row' })
    buttons.append(small('Members', `Members of ${name}`, () => showMembers(name)), small('Close…', `Close ${name}`, () => order('close-network', { network: name })))
    return [name, members, buttons]
  }))
})

async function showMembers (network) {
  const found = await ask(`dashboard/network?${new URLSearchParams({ name: network })}`)
  if (!found) return
  $('members-part').hidden = false
  text($('members-title'), `Members of ${found.network}`)
  table($('members'), `At ${new Date().toLocaleTimeString()}`, ['Peer', 'Hub', 'Joined', 'Orders'], found.members.map(({ peer, hub, since }) => [peer, hub ? hub.slice(0, 8) : 'this hub', since ? new Date(since).toLocaleString() : '–', hub ? '' : small('Kick…', `Kick ${peer}`, () => order('kick', { peer, network: '' }))]))
  text($('members-more'), found.count > found.members.length ? `And ${found.count - found.members.length} more.` : '')
  $('members-title').focus()
}

// ---- orders

const QUESTIONS = {
  kick: ({ peer, network, secs }) => `Remove peer ${peer} from ${network ? `the network “${network}”` : 'this hub'}${secs ? ` and keep it out for ${secs} s` : ''}?`,
  'close-network': ({ network, secs }) => `End all memberships in the network “${network}”${secs ? ` and keep everybody out for ${secs} s` : ''}?`,
  drain: ({ secs }) => `Drain this hub: refuse new peers, and close all connections over ${secs ? `${secs} s` : 'DRAIN_SECS'}?`,
  undrain: () => 'End the drain: accept new peers again?'
}

/** The button that confirms an order. */
const ANSWERS = { kick: 'Remove the peer', 'close-network': 'Close the network', drain: 'Drain the hub', undrain: 'End the drain' }

for (const form of document.querySelectorAll('form[data-act]')) {
  form.addEventListener('submit', event => {
    event.preventDefault()
    order(form.dataset.act, Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()])))
  })
}

/** Asks the operator to confirm an order, and then sends it to the hub. */
async function order (act, fields) {
  if (!await confirmed(QUESTIONS[act](fields), ANSWERS[act])) return
  const answer = await fetch(`admin/${act}`, { method: 'POST', headers: { Accept: 'application/json' }, body: new URLSearchParams(fields) }).catch(() => undefined)
  if (answer?.status === 401) return location.reload()
  const says = await answer?.text()
  let message = says
  try { message = JSON.parse(says).message } catch {}
  toast(message || 'The hub did not answer.')
}

function confirmed (question, answer) {
  text($('confirm-text'), question)
  text($('confirm-yes'), answer)
  const dialog = $('confirm')
  dialog.returnValue = ''
  dialog.showModal()
  $('confirm-no').focus()
  return new Promise(resolve => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }))
}
$('confirm-yes').addEventListener('click', () => $('confirm').close('yes'))
$('confirm-no').addEventListener('click', () => $('confirm').close('no'))

$('logout').addEventListener('click', async () => {
  await fetch('admin/logout', { method: 'POST' })
  location.reload()
})

let fading
function toast (says) {
  text($('toast'), says)
  $('toast').classList.add('shown')
  clearTimeout(fading)
  fading = setTimeout(() => $('toast').classList.remove('shown'), 6000)
}

/** For tests: whether the first figures are on the page. */
globalThis.isDrawn = () => drawn
