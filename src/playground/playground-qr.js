// QR codes (ISO/IEC 18004) in byte mode, with error correction level M and versions 1 to 10. Such a code contains at
// most 213 bytes.

/** For each version at level M: the number of data codewords, of correction codewords per block, and of blocks. */
const VERSIONS = [[16, 10, 1], [28, 16, 1], [44, 26, 1], [64, 18, 2], [86, 24, 2], [108, 16, 4], [124, 18, 4], [154, 22, 4], [182, 22, 5], [216, 26, 5]]
const ALIGNMENT = [[], [6, 18], [6, 22], [6, 26], [6, 30], [6, 34], [6, 22, 38], [6, 24, 42], [6, 26, 46], [6, 28, 50]]
/** The masks. A mask inverts the module at (x, y) if its function returns 0. */
const MASKS = [
  (x, y) => (x + y) % 2, (_x, y) => y % 2, x => x % 3, (x, y) => (x + y) % 3, (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2,
  (x, y) => (x * y) % 2 + (x * y) % 3, (x, y) => ((x * y) % 2 + (x * y) % 3) % 2, (x, y) => ((x + y) % 2 + (x * y) % 3) % 2
]

/** The modules of a QR code for `text` as rows of booleans, or undefined if `text` is too long. */
export function encode (text) {
  const bytes = new TextEncoder().encode(text)
  const version = VERSIONS.findIndex(([data], index) => bytes.length + (index < 9 ? 2 : 3) <= data) + 1
  if (version === 0) return undefined
  const codewords = interleave(fill(bytes, version), version)
  const codes = MASKS.map((mask, number) => draw(version, codewords, mask, number))
  const penalties = codes.map(penalty)
  return codes[penalties.indexOf(Math.min(...penalties))]
}

/** A QR code as an SVG element, with the empty margin (quiet zone) that scanners need. */
export function svg (text) {
  const modules = encode(text)
  if (!modules) return undefined
  const size = modules.length + 8
  const make = (name, attributes) => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name)
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
    return element
  }
  const path = modules.flatMap((row, y) => row.map((dark, x) => dark ? `M${x + 4} ${y + 4}h1v1h-1z` : '')).join('')
  const image = make('svg', { viewBox: `0 0 ${size} ${size}`, 'shape-rendering': 'crispEdges', 'aria-hidden': 'true' })
  image.append(make('path', { d: path, fill: '#000' }))
  return image
}

/** The data codewords: the mode, the length, the bytes, the end mark and the padding. */
function fill (bytes, version) {
  const [size] = VERSIONS[version - 1]
  const bits = []
  const put = (value, length) => { for (let bit = length - 1; bit >= 0; bit--) bits.push(value >> bit & 1) }
  put(0b0100, 4)
  put(bytes.length, version < 10 ? 8 : 16)
  for (const byte of bytes) put(byte, 8)
  put(0, Math.min(4, size * 8 - bits.length))
  while (bits.length % 8) bits.push(0)
  const data = []
  for (let at = 0; at < bits.length; at += 8) data.push(bits.slice(at, at + 8).reduce((byte, bit) => byte << 1 | bit, 0))
  for (let pad = 0xec; data.length < size; pad ^= 0xec ^ 0x11) data.push(pad)
  return data
}

function multiply (a, b) {
  let product = 0
  for (let bit = 7; bit >= 0; bit--) {
    product = product << 1 ^ (product >> 7) * 0x11d
    if (b >> bit & 1) product ^= a
  }
  return product
}

/** The correction codewords of a block: the remainder of the Reed-Solomon division. */
function correction (data, length) {
  let divisor = [...Array(length - 1).fill(0), 1]
  for (let index = 0, root = 1; index < length; index++, root = multiply(root, 2)) {
    divisor = divisor.map((coefficient, at) => multiply(coefficient, root) ^ (divisor[at + 1] ?? 0))
  }
  return data.reduce((rest, byte) => {
    const factor = byte ^ rest[0]
    return [...rest.slice(1), 0].map((coefficient, at) => coefficient ^ multiply(divisor[at], factor))
  }, Array(length).fill(0))
}

function interleave (data, version) {
  const [size, length, count] = VERSIONS[version - 1]
  const short = Math.floor(size / count)
  // If the number of codewords is no multiple of the number of blocks, each of the last blocks has one codeword more.
  const longer = size % count
  const blocks = []
  for (let block = 0, at = 0; block < count; block++) {
    const end = at + short + (block >= count - longer ? 1 : 0)
    blocks.push(data.slice(at, end))
    at = end
  }
  const corrections = blocks.map(block => correction(block, length))
  const across = rows => Array.from({ length: Math.max(...rows.map(row => row.length)) }, (_, at) => rows.map(row => row[at])).flat()
  return [...across(blocks), ...across(corrections)].filter(codeword => codeword !== undefined)
}

function draw (version, codewords, mask, number) {
  const size = 17 + 4 * version
  const modules = Array.from({ length: size }, () => Array(size).fill(false))
  const fixed = Array.from({ length: size }, () => Array(size).fill(false))
  const set = (x, y, dark) => {
    if (x < 0 || y < 0 || x >= size || y >= size) return
    modules[y][x] = dark
    fixed[y][x] = true
  }
  for (let at = 0; at < size; at++) {
    set(6, at, at % 2 === 0)
    set(at, 6, at % 2 === 0)
  }
  const square = (x, y, radius, light) => {
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) set(x + dx, y + dy, !light.includes(Math.max(Math.abs(dx), Math.abs(dy))))
    }
  }
  for (const [x, y] of [[3, 3], [size - 4, 3], [3, size - 4]]) square(x, y, 4, [2, 4])
  const places = ALIGNMENT[version - 1]
  for (const x of places) {
    for (const y of places) {
      const corner = (x === 6 && y === 6) || (x === 6 && y === size - 7) || (x === size - 7 && y === 6)
      if (!corner) square(x, y, 2, [1])
    }
  }
  // Format information: five bits for level M (0) and the mask, and ten bits of BCH code.
  const format = number << 10
  let rest = number
  for (let step = 0; step < 10; step++) rest = rest << 1 ^ (rest >> 9) * 0x537
  const formatBits = (format | rest) ^ 0x5412
  for (let bit = 0; bit < 15; bit++) {
    const dark = (formatBits >> bit & 1) === 1
    set(8, bit < 6 ? bit : bit < 8 ? bit + 1 : size - 15 + bit, dark)
    set(bit < 8 ? size - 1 - bit : bit < 9 ? 7 : 14 - bit, 8, dark)
  }
  set(8, size - 8, true)
  if (version >= 7) {
    let remainder = version
    for (let step = 0; step < 12; step++) remainder = remainder << 1 ^ (remainder >> 11) * 0x1f25
    const versionBits = version << 12 | remainder
    for (let bit = 0; bit < 18; bit++) {
      const [a, b] = [size - 11 + bit % 3, Math.floor(bit / 3)]
      set(a, b, (versionBits >> bit & 1) === 1)
      set(b, a, (versionBits >> bit & 1) === 1)
    }
  }
  let bit = 0
  for (let right = size - 1; right > 0; right -= 2) {
    if (right === 6) right = 5
    for (let step = 0; step < size; step++) {
      for (const x of [right, right - 1]) {
        const y = (right + 1 & 2) === 0 ? size - 1 - step : step
        if (fixed[y][x]) continue
        const dark = (codewords[bit >> 3] ?? 0) >> 7 - (bit & 7) & 1
        modules[y][x] = (dark === 1) !== (mask(x, y) === 0)
        bit++
      }
    }
  }
  return modules
}

/** The penalty of a QR code. A code with a higher penalty is harder to scan. */
function penalty (modules) {
  const size = modules.length
  const lines = [...modules, ...modules.map((_, x) => modules.map(row => row[x]))].map(line => line.map(Number).join(''))
  let points = 0
  for (const line of lines) {
    for (const run of line.match(/0{5,}|1{5,}/g) ?? []) points += run.length - 2
    for (let at = 0; at <= size - 11; at++) {
      const part = line.slice(at, at + 11)
      if (part === '10111010000' || part === '00001011101') points += 40
    }
  }
  for (let y = 1; y < size; y++) {
    for (let x = 1; x < size; x++) {
      if (modules[y][x] === modules[y - 1][x] && modules[y][x] === modules[y][x - 1] && modules[y][x] === modules[y - 1][x - 1]) points += 3
    }
  }
  const dark = modules.flat().filter(Boolean).length / (size * size)
  return points + Math.floor(Math.abs(dark - 0.5) * 20) * 10
}
