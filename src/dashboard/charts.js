// Charts as SVG: lines, heat maps, bars and a graph of hubs. They use only attributes and classes, so a strict
// Content-Security-Policy allows them, and the page's style sheet colours them. The live view and the reports of
// load-test share this file.

const SVG = 'http://www.w3.org/2000/svg'

/** An SVG element with attributes and children. */
export function draw (name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value)
  element.append(...children)
  return element
}

/** A number in a short form for people: 1234567 becomes "1.2M". */
export function short (value) {
  if (value === undefined || value === null || Number.isNaN(value)) return '–'
  const size = Math.abs(value)
  for (const [unit, of] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) if (size >= of * 0.9995) return trim(value / of) + unit
  return trim(value)
}

/** A number of bytes in a short form for people. */
export function bytes (value) {
  if (value === undefined || value === null) return '–'
  for (const [unit, of] of [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]]) if (value >= of) return `${trim(value / of)} ${unit}`
  return `${trim(value)} B`
}

/** A duration (given in milliseconds) in a short form for people. */
export function duration (ms) {
  if (ms === undefined || ms === null) return '–'
  if (ms < 1) return `${trim(ms * 1000)} µs`
  if (ms < 1000) return `${trim(ms)} ms`
  const s = ms / 1000
  if (s < 120) return `${trim(s)} s`
  if (s < 7200) return `${trim(s / 60)} min`
  return s < 172800 ? `${trim(s / 3600)} h` : `${trim(s / 86400)} d`
}

const trim = value => {
  const size = Math.abs(value)
  return String(size >= 100 || Number.isInteger(value) ? Math.round(value) : size >= 10 ? +value.toFixed(1) : +value.toFixed(2))
}

/** The least round number that is not below `value`: 1, 2 or 5 times a power of ten. */
export function ceiling (value) {
  if (!(value > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= value * 0.999999)
}

/** The least power of two that is not below a number of bytes. */
export const ceilingOfBytes = value => value > 0 ? 2 ** Math.ceil(Math.log2(value)) : 1

/** The width of the drawing area of a chart, in pixels. */
const widthOf = svg => Math.max(240, Math.round(svg.clientWidth || svg.parentElement?.clientWidth || 600))

const LEFT = 44
const RIGHT = 8
const TOP = 8
const BOTTOM = 18

/**
 * Draws lines over time. series: [{ name, values }], where values has one value for each of `times` (in ms); null is a
 * gap in the line. from and to: the first and the last time of the axis. format: returns a value as text. area: whether
 * to fill the area below the first line.
 */
export function lines (svg, { times, series, from, to, format = short, height = 150, labels = agoLabels, max, area = false }) {
  const width = widthOf(svg)
  const highest = max ?? (format === bytes ? ceilingOfBytes : ceiling)(Math.max(0, ...series.map(({ values }) => values.reduce((most, value) => value > most ? value : most, 0))))
  const x = time => LEFT + (time - from) / Math.max(1, to - from) * (width - LEFT - RIGHT)
  const y = value => height - BOTTOM - Math.min(1, value / highest) * (height - TOP - BOTTOM)
  const parts = frame({ width, height, highest, format, y, from, to, x, labels })
  series.forEach(({ values }, index) => {
    let path = ''
    let pen = 'M'
    let first
    let last
    times.forEach((time, at) => {
      const value = values[at]
      if (time < from || value === null || value === undefined) { pen = 'M'; return }
      path += `${pen}${x(time).toFixed(1)} ${y(value).toFixed(1)}`
      first ??= time
      last = time
      pen = 'L'
    })
    if (!path) return
    if (area && index === 0) parts.push(draw('path', { class: `area c${index}`, d: `${path}L${x(last).toFixed(1)} ${y(0)}L${x(first).toFixed(1)} ${y(0)}Z` }))
    parts.push(draw('path', { class: `line c${index}`, d: path }))
  })
  show(svg, width, height, parts)
  svg.scale = { times, series, from, to, width, height, x }
}

/** Labels of a time axis whose end is the current time. */
const agoLabels = (from, to) => {
  const span = to - from
  const count = 5
  return Array.from({ length: count + 1 }, (_, at) => [from + span * at / count, at === count ? 'now' : `−${duration(span - span * at / count)}`])
}

/** Labels of a time axis that begins at 0. */
export const sinceLabels = (from, to) => Array.from({ length: 6 }, (_, at) => [from + (to - from) * at / 5, duration((to - from) * at / 5)])

function frame ({ width, height, highest, format, y, from, to, x, labels }) {
  const parts = []
  for (const part of [0, 0.5, 1]) {
    const at = y(highest * part)
    parts.push(draw('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: at, y2: at }))
    parts.push(draw('text', { class: 'tick', x: LEFT - 6, y: at + 3.5, 'text-anchor': 'end' }, format(highest * part)))
  }
  const ticks = labels(from, to)
  const every = width < 420 ? 2 : 1
  ticks.forEach(([time, text], at) => {
    if ((ticks.length - 1 - at) % every) return
    const anchor = at === 0 ? 'start' : at === ticks.length - 1 ? 'end' : 'middle'
    parts.push(draw('text', { class: 'tick', x: x(time), y: height - 4, 'text-anchor': anchor }, text))
  })
  return parts
}

function show (svg, width, height, parts) {
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
  svg.replaceChildren(...parts)
}

/**
 * Draws a heat map over time. columns: [{ at, over, counts }], where a column begins at `at`, lasts `over` ms, and has
 * one count for each of `rows` (the names of the rows, the lowest first). A darker cell has a larger share of the sum
 * of its column.
 */
export function heat (svg, { columns, rows, from, to, height = 190, labels = agoLabels }) {
  const width = widthOf(svg)
  const used = columns.reduce((used, { counts }) => { counts.forEach((count, row) => { if (count) { used[0] = Math.min(used[0], row); used[1] = Math.max(used[1], row) } }); return used }, [rows.length, -1])
  const [low, high] = used[1] < 0 ? [0, rows.length - 1] : [Math.max(0, used[0] - 1), Math.min(rows.length - 1, used[1] + 1)]
  const count = high - low + 1
  const x = time => LEFT + (time - from) / Math.max(1, to - from) * (width - LEFT - RIGHT)
  const row = (height - TOP - BOTTOM) / count
  const y = index => height - BOTTOM - (index - low + 1) * row
  const parts = []
  const step = Math.ceil(13 / row)
  for (let index = low; index <= high; index++) {
    if ((index - low) % step === 0) parts.push(draw('text', { class: 'tick', x: LEFT - 6, y: y(index) + row / 2 + 3.5, 'text-anchor': 'end' }, rows[index]))
  }
  parts.push(draw('rect', { class: 'back', x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: height - TOP - BOTTOM }))
  for (const { at, over, counts } of columns) {
    const sum = counts.reduce((sum, count) => sum + count, 0)
    const [left, right] = [Math.max(LEFT, x(at)), Math.min(width - RIGHT, x(at + over))]
    if (!sum || right <= left) continue
    counts.forEach((count, index) => {
      if (!count || index < low || index > high) return
      // Even the cell of a rare value must be visible.
      const shade = 0.18 + 0.82 * Math.sqrt(count / sum)
      parts.push(draw('rect', { class: 'cell', x: left.toFixed(1), y: y(index).toFixed(1), width: Math.max(0.8, right - left).toFixed(1), height: (row - 0.5).toFixed(1), 'fill-opacity': shade.toFixed(2) }))
    })
  }
  const ticks = labels(from, to)
  const every = width < 420 ? 2 : 1
  ticks.forEach(([time, text], at) => {
    if ((ticks.length - 1 - at) % every) return
    const anchor = at === 0 ? 'start' : at === ticks.length - 1 ? 'end' : 'middle'
    parts.push(draw('text', { class: 'tick', x: x(time), y: height - 4, 'text-anchor': anchor }, text))
  })
  show(svg, width, height, parts)
}

/** Draws vertical bars. values: [{ name, value }]. */
export function bars (svg, { values, format = short, height = 150, max }) {
  const width = widthOf(svg)
  const highest = max ?? ceiling(Math.max(0, ...values.map(({ value }) => value)))
  const y = value => height - BOTTOM - Math.min(1, value / highest) * (height - TOP - BOTTOM)
  const room = (width - LEFT - RIGHT) / Math.max(1, values.length)
  const parts = []
  for (const part of [0, 0.5, 1]) {
    const at = y(highest * part)
    parts.push(draw('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: at, y2: at }))
    parts.push(draw('text', { class: 'tick', x: LEFT - 6, y: at + 3.5, 'text-anchor': 'end' }, format(highest * part)))
  }
  const step = Math.ceil(values.length * 42 / (width - LEFT - RIGHT))
  values.forEach(({ name, value, bad }, index) => {
    const left = LEFT + index * room
    const wide = Math.min(48, room * 0.7)
    parts.push(draw('rect', { class: bad ? 'bar bad' : 'bar', x: (left + (room - wide) / 2).toFixed(1), y: y(value).toFixed(1), width: wide.toFixed(1), height: Math.max(0, y(0) - y(value)).toFixed(1) }))
    if (index % step === 0) parts.push(draw('text', { class: 'tick', x: (left + room / 2).toFixed(1), y: height - 4, 'text-anchor': 'middle' }, name))
  })
  show(svg, width, height, parts)
}

/**
 * Draws hubs and their links. nodes: [{ id, name, detail, state, own }]; edges: [{ from, to, label, state, weight }],
 * where from and to are ids of nodes. The own node is in the middle, and the other nodes are on a circle around it. If
 * there are fewer than three other nodes, all nodes are on the circle.
 */
export function graph (svg, { nodes, edges, height = 320 }) {
  const width = widthOf(svg)
  const others = nodes.filter(({ own }) => !own)
  const middle = { x: width / 2, y: height / 2 }
  const places = new Map()
  const radius = { x: Math.max(60, width / 2 - 70), y: Math.max(60, height / 2 - 42) }
  const circle = others.length > 2 ? others : nodes
  for (const node of nodes) places.set(node.id, middle)
  circle.forEach((node, index) => {
    const angle = circle.length === 2 ? index * Math.PI + Math.PI : index / circle.length * 2 * Math.PI - Math.PI / 2
    places.set(node.id, { x: middle.x + Math.cos(angle) * radius.x, y: middle.y + Math.sin(angle) * radius.y })
  })
  if (nodes.length === 1) places.set(nodes[0].id, middle)
  const parts = []
  for (const { from, to, label, state, weight = 0 } of edges) {
    const [a, b] = [places.get(from), places.get(to)]
    if (!a || !b) continue
    parts.push(draw('line', { class: `edge ${state}`, x1: a.x.toFixed(1), y1: a.y.toFixed(1), x2: b.x.toFixed(1), y2: b.y.toFixed(1), 'stroke-width': (1.5 + Math.min(6, Math.log2(1 + weight / 1024))).toFixed(1) }))
    if (label) parts.push(draw('text', { class: `edge-label ${state}`, x: ((a.x + b.x) / 2).toFixed(1), y: ((a.y + b.y) / 2 - 4).toFixed(1), 'text-anchor': 'middle' }, label))
  }
  for (const { id, name, detail, state, own } of nodes) {
    const { x, y } = places.get(id)
    parts.push(draw('circle', { class: `node ${state}${own ? ' own' : ''}`, cx: x.toFixed(1), cy: y.toFixed(1), r: own ? 13 : 10 }))
    parts.push(draw('text', { class: 'node-label', x: x.toFixed(1), y: (y + 27).toFixed(1), 'text-anchor': 'middle' }, name))
    if (detail) parts.push(draw('text', { class: 'node-detail', x: x.toFixed(1), y: (y + 40).toFixed(1), 'text-anchor': 'middle' }, detail))
  }
  show(svg, width, height, parts)
}

/**
 * The quantile `part` (0 to 1) of values that are counted in buckets, rounded up to the upper bound of its bucket. It
 * is Infinity if the bucket has no upper bound.
 */
export function quantile (counts, bounds, part) {
  const all = counts.reduce((sum, count) => sum + count, 0)
  if (!all) return undefined
  let sum = 0
  for (let bucket = 0; bucket < counts.length; bucket++) {
    sum += counts[bucket]
    if (sum >= all * part) return bounds[bucket] ?? Infinity
  }
  return Infinity
}

/** Names of buckets. bounds: their upper bounds in microseconds. */
export const bucketNames = bounds => [...bounds.map(bound => duration(bound / 1000).replace(' ', '')), `>${duration(bounds.at(-1) / 1000).replace(' ', '')}`]

/**
 * Fills a table with a caption, heads, and rows of texts, numbers or nodes. It replaces only changed cells, so that
 * selections and screen readers keep their place.
 */
export function table (element, caption, heads, rows) {
  element.caption ?? element.createCaption()
  text(element.caption, caption)
  const head = element.tHead?.rows[0] ?? element.createTHead().insertRow()
  fill(head, heads, (index) => Object.assign(document.createElement('th'), { scope: 'col' }))
  const body = element.tBodies[0] ?? element.createTBody()
  while (body.rows.length > rows.length) body.deleteRow(-1)
  rows.forEach((row, at) => {
    const line = body.rows[at] ?? body.insertRow()
    fill(line, row, index => index ? document.createElement('td') : Object.assign(document.createElement('th'), { scope: 'row' }))
  })
  return element
}

function fill (line, contents, make) {
  while (line.cells.length > contents.length) line.lastChild.remove()
  contents.forEach((content, index) => {
    const cell = line.cells[index] ?? line.appendChild(make(index))
    if (content instanceof Node) {
      if (cell.firstChild !== content) cell.replaceChildren(content)
    } else {
      if (typeof content === 'number') cell.className = 'number'
      text(cell, typeof content === 'number' ? short(content) : String(content ?? '–'))
    }
  })
}

/** Sets the text of an element if it has changed. */
export function text (element, value) {
  if (element.textContent !== value) element.textContent = value
}
