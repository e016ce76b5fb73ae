// Draws the report of a load test. The page has charts.js before this file, in the same script element.
const data = JSON.parse(document.getElementById('data').textContent)
const { report, rows, points, latencyBounds } = data
const at = id => document.getElementById(id)
const names = bucketNames(latencyBounds)

const verdict = at('verdict')
verdict.dataset.is = report.passed ? 'live' : 'lost'
verdict.textContent = report.passed ? 'Passed' : 'Failed'
at('who').textContent = `${report.scenario}, ${short(report.peers)} peers on ${report.hubs.join(', ')}`
at('version').textContent = `PeerPigeon ${data.version}`
table(at('results'), 'The whole run', ['What', 'Value'], rows)

const all = points.at(-1).latency
const used = [all.findIndex(Boolean), all.findLastIndex(Boolean)]
const shown = used[0] < 0 ? [] : names.map((name, bucket) => ({ name, value: all[bucket] })).slice(used[0], used[1] + 1)
const latency = report.latencyMicros
at('quantiles').textContent = latency ? `half within ${duration(latency.p50 / 1000)}, 99 % within ${duration(latency.p99 / 1000)}, all within ${duration(latency.max / 1000)}` : 'none was sent'
table(at('latencies'), 'Signals by latency', ['At most', 'Signals'], shown.map(({ name, value }) => [name, value]))

/** How much a count grew per second, between each point and the point before it. */
const rate = name => points.map((point, index) => index ? Math.max(0, (point[name] - points[index - 1][name]) * 1000 / Math.max(1, point.at - points[index - 1].at)) : 0)
const times = points.map(point => point.at)
const range = { from: 0, to: Math.max(1, times.at(-1)), labels: sinceLabels }

function chart (id, series) {
  const svg = at(id)
  lines(svg, { times, series, area: true, ...range })
  const most = series.map(({ name, values }) => [name, short(values.reduce((most, value) => Math.max(most, value), 0))])
  svg.setAttribute('aria-label', `${svg.getAttribute('aria-label').split(';')[0]}; at most: ${most.map(([name, value]) => `${name} ${value}`).join(', ')}`)
  const legend = svg.nextElementSibling
  legend.replaceChildren(...most.map(([name, value], index) => {
    const item = document.createElement('li')
    item.className = `c${index}`
    item.append(document.createElement('i'), `${name}, at most `, Object.assign(document.createElement('b'), { textContent: value }))
    return item
  }))
}

function showAll () {
  bars(at('histogram'), { values: shown, height: 190 })
  const count = Math.min(160, points.length - 1)
  const columns = Array.from({ length: count }, (_, index) => {
    const [first, last] = [points[Math.floor(index * (points.length - 1) / count)], points[Math.floor((index + 1) * (points.length - 1) / count)]]
    return { at: first.at, over: last.at - first.at, counts: last.latency.map((value, bucket) => value - first.latency[bucket]) }
  })
  heat(at('heat'), { columns, rows: names, ...range })
  chart('signals', [{ name: 'Delivered', values: rate('delivered') }, { name: 'Sent', values: rate('sent') }])
  chart('presence', [{ name: 'Discoveries', values: rate('discoveries') }, { name: 'Leaves', values: rate('leaves') }])
  chart('connected', [{ name: 'Connected', values: points.map(point => point.connected) }])
  chart('failures', [{ name: 'Errors', values: rate('errors') }, { name: 'Closes', values: rate('closes') }, { name: 'Failed connections', values: rate('dialFailures') }, { name: 'Violations', values: rate('violations') }])
}
showAll()
addEventListener('resize', showAll)

const failures = [
  ...['errors', 'closes', 'dialFailures'].flatMap(kind => Object.entries(report[kind]).map(([name, count]) => [name, { errors: 'error of the hub', closes: 'closed by the hub', dialFailures: 'connection failed' }[kind], count, ''])),
  ...Object.entries(report.violations).map(([name, { count, examples }]) => [name, 'violation', count, examples.join('; ')])
]
at('none').hidden = failures.length > 0
at('errors').hidden = !failures.length
table(at('errors'), 'By name', ['Name', 'What', 'Number', 'Examples'], failures)
