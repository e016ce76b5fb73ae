// Tests of pages that create their own RTCPeerConnections: the README's example, unchanged, and a page with perfect
// negotiation.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { Wire, awayAndBack, checkSignals, launch, leaveAndReturn, serve } from './browser.mjs'
import { Client } from './client.mjs'
import { HUBS_AT, freePort, hubTest, startHub, within } from './hub.mjs'

const MARKER = '<!-- example:browser -->'

const example = await readFile(new URL('example.html', import.meta.url), 'utf8')
const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8').catch(() => '')
const [, printed] = readme.split(MARKER).map(text => /^\s*```html\n(.*?)```/s.exec(text)?.[1])

test('README prints the tested example', { skip: !readme.includes(MARKER) && `README.md has no ${MARKER}` }, () => {
  assert.equal(printed, example)
})

test('the example in README.md is short', () => {
  const [script] = example.match(/(?<=<script type="module">\n).*(?=<\/script>)/s)
  assert.ok(script.trimEnd().split('\n').length <= 20)
})

const security = await readFile(new URL('../../docs/security.md', import.meta.url), 'utf8')
const [, proof] = security.split('<!-- example:proof -->')[1].match(/^\s*```js\n(.*?)```/s)

test('a page proves its id as docs/security.md shows', { timeout: 60_000, skip: HUBS_AT && 'needs its own hub' }, async () => {
  const port = await freePort()
  const hub = await startHub({ port, env: { PEER_ID_PROOF: 'required', PEER_ID_HOSTS: `127.0.0.1:${port}` } })
  const web = await serve({ '/': '<!doctype html>' })
  const browser = await launch()
  try {
    const page = await browser.newPage()
    await page.goto(web.origin)
    const heard = await page.evaluate(async ([proof, url]) => {
      const connect = new Function(`${proof}\nreturn connect`)()
      const socket = await connect(url, await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']))
      return new Promise(resolve => {
        const heard = []
        socket.addEventListener('message', ({ data }) => {
          heard.push(JSON.parse(data).type)
          if (heard.at(-1) === 'connected') resolve(heard)
        })
        socket.addEventListener('close', ({ code, reason }) => resolve([...heard, code, reason]))
      })
    }, [proof, hub.ws])
    assert.deepEqual(heard, ['challenge', 'connected'])
  } finally {
    await browser.close()
    web.close()
    await hub.kill()
  }
})

const perfect = await readFile(new URL('perfect.html', import.meta.url), 'utf8')

// `most` is the maximum number of attempts. After two simultaneous offers, Chromium sometimes gathers no candidates for
// the offer that is not withdrawn.
const CASES = [
  { name: '2 pages with the example', html: printed ?? example, count: 2, most: 2 },
  { name: '4 pages with the example', html: printed ?? example, count: 4, most: 2 },
  { name: '2 pages with perfect negotiation', html: perfect, count: 2, most: 5 },
  { name: '2 pages on two hubs', html: printed ?? example, count: 2, most: 2, hubs: 2 }
]

for (const { name, html, count, most, hubs = 1 } of CASES) {
  if (HUBS_AT && HUBS_AT.length !== hubs) continue
  hubTest(`${name} talk to each other`, { hubs, timeout: 180_000 }, async (...all) => {
    const web = await serve({ '/': html })
    const browser = await launch()
    try {
      const url = index => `${web.origin}/?hub=${all[index % hubs].ws}`
      // On a busy machine, a page sometimes gathers no candidates. Then the attempt is repeated. The hub's messages
      // must be correct in each attempt.
      for (let tries = 1; ; tries++) {
        const pages = await Promise.all(Array.from({ length: count }, (_, index) => openPage(browser, url(index))))
        const failure = await Promise.all(pages.map(page => hearsAll(page, pages))).then(() => null, error => error)
        for (const from of pages) {
          for (const to of pages) if (from !== to) assert.ok(await checkSignals(from, to) >= 1, 'an offer or an answer must have arrived')
          assert.deepEqual(from.errors, [])
        }
        if (!failure) return
        for (const { id, wire } of pages) console.error(`--- page ${id}\n${wire}`)
        if (tries === most) throw failure
        await Promise.all(pages.map(({ page }) => page.close()))
      }
    } finally {
      await browser.close()
      web.close()
    }
  })
}

async function openPage (browser, url) {
  const page = await browser.newPage()
  const wire = new Wire(page)
  const errors = []
  page.on('pageerror', error => errors.push(error.message))
  await page.goto(url)
  const connected = await wire.until(() => wire.heard('connected')[0], 'connected')
  return { page, wire, errors, id: connected.message.data.peerId }
}

async function hearsAll ({ page, id }, pages) {
  for (const other of pages.filter(other => other.id !== id)) {
    const hello = page.getByText(`Hello from ${other.id}!`).waitFor({ state: 'attached', timeout: 0 })
    hello.catch(() => {})
    await within(20_000, `the greeting of ${other.id} to ${id}`, hello)
  }
}

/** Options of Chromium with a back/forward cache, which Playwright turns off. */
const CACHING = { ignoreDefaultArgs: ['--disable-back-forward-cache'] }

hubTest('a page in the back/forward cache leaves its room, and joins again when it returns', { skip: HUBS_AT && 'needs a single hub', timeout: 60_000 }, async hub => {
  const web = await serve({ '/a': example, '/b': example })
  const browser = await launch(CACHING)
  try {
    const observer = await Client.join(hub, 'lobby')
    const next = async type => (await observer.find(({ message }) => message.type === type, type, 20_000)).message.data.peerId
    const page = await browser.newPage()
    await page.goto(`${web.origin}/a?hub=${hub.ws}`)
    const id = await next('peer-discovered')
    const kept = await awayAndBack(page, `${web.origin}/b?hub=${hub.ws}`, async () => {
      assert.equal(await next('peer-disconnected'), id)
      assert.notEqual(await next('peer-discovered'), id)
    })
    assert.equal(await next('peer-discovered') === id, kept, 'a kept page must return with its id, and a page that was loaded again must have a new id')
  } finally {
    await browser.close()
    web.close()
  }
})

/**
 * A page that does not close its WebSocket when the user leaves it. This page stores its resume secret for the next
 * page of the tab.
 */
const keeper = id => `<!doctype html><script>
  let hub
  const codes = []
  function connect () {
    hub = new WebSocket(new URLSearchParams(location.search).get('hub') + '/ws?peerId=${id}&resume=' + (sessionStorage.getItem('resume') ?? ''))
    hub.onclose = ({ code }) => codes.push(code)
    hub.onmessage = ({ data: text }) => {
      const { type, data } = JSON.parse(text)
      if (type !== 'connected') return
      sessionStorage.setItem('resume', data.resume)
      hub.send('{"type":"announce","networkName":"lobby"}')
    }
  }
  connect()
</script>`

/** Waits until `wanted` accepts the hub's metrics. `wanted` gets an object with the values of the metrics by name. */
async function metrics (hub, what, wanted) {
  const deadline = Date.now() + 20_000
  for (;;) {
    const text = await (await fetch(`${hub.url}/metrics`)).text()
    const found = Object.fromEntries([...text.matchAll(/^peerpigeon_(\S+) (\d+)$/mg)].map(([, name, value]) => [name, Number(value)]))
    if (wanted(found)) return
    if (Date.now() > deadline) throw new Error(`not ${what}: ${JSON.stringify(found)}`)
    await setTimeout(20)
  }
}

/**
 * Waits until this number of WebSockets have been opened at the hub, and exactly one of them is still open and in the
 * room.
 */
const joined = (hub, opened) => metrics(hub, `${opened} opened and one in the room`, found => found.handshakes_total === opened && found.connections === 1 && found.members === 1)

/** Waits until this number of clients have sent a valid resume secret. */
const resumed = (hub, count) => metrics(hub, `${count} resumed`, found => found['resumes_total{outcome="resumed"}'] + found['resumes_total{outcome="continued"}'] === count)

hubTest('a page in the back/forward cache with an open WebSocket loses its id to the next page, and gets the id back when it returns', { skip: HUBS_AT && 'needs a single hub', timeout: 60_000 }, async hub => {
  const html = keeper('cd'.repeat(20))
  const web = await serve({ '/a': html, '/b': html })
  const browser = await launch(CACHING)
  try {
    const page = await browser.newPage()
    await page.goto(`${web.origin}/a?hub=${hub.ws}`)
    await joined(hub, 1)
    const { kept } = await leaveAndReturn(page, `${web.origin}/b?hub=${hub.ws}`, async () => {
      await joined(hub, 2)
      await resumed(hub, 1)
      assert.deepEqual(await page.evaluate('codes'), [])
    })
    // When the hub closes the WebSocket of a kept page, a browser may discard the page and load it again later.
    // Chromium 148 does so.
    if (kept) {
      await page.waitForFunction('codes.length > 0')
      const codes = await page.evaluate('codes')
      // Chromium 156 has closed the WebSocket of the kept page itself.
      assert.ok(codes.length === 1 && [1006, 4001].includes(codes[0]), `codes ${codes}`)
      await page.evaluate('connect()')
    }
    // The user has now left the second page. It does not matter whether the browser keeps it.
    await joined(hub, 3)
  } finally {
    await browser.close()
    web.close()
  }
})
