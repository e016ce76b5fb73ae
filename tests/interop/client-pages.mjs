// Pages that use this repository's client in a real browser.
import { serve } from './browser.mjs'
import { within } from './hub.mjs'

const CLIENT = new URL('../../clients/js/dist/client.js', import.meta.url)
const EXTRAS = new URL('../../clients/js/dist/extras.js', import.meta.url)
const PAGE = '<!doctype html><meta charset="utf-8"><title>test</title><script type="module" src="/test.js"></script>'

/** The script of each page. The script joins a room and records all events. */
const SCRIPT = `
import { join, PigeonError } from './client.js'
import * as extras from './extras.js'
const query = new URLSearchParams(location.search)
globalThis.extras = extras
globalThis.rtc = { made: 0, open: new Set() }
class Counted extends RTCPeerConnection {
  constructor (...args) { super(...args); rtc.made++; rtc.open.add(this) }
  close () { super.close(); rtc.open.delete(this) }
}
globalThis.join = join
globalThis.start = (options = {}) => {
  const room = globalThis.room = join(query.getAll('hub'), query.get('network') ?? 'lobby', { data: { name: query.get('name') }, RTCPeerConnection: Counted, ...options })
  const log = globalThis.log = []
  globalThis.messages = []
  const note = (...entry) => { log.push(entry); globalThis.dispatchEvent(new Event('noted')) }
  room.on('join', peer => note('join', peer.id, peer.data.name))
  room.on('leave', (peer, reason) => note('leave', peer.id, reason))
  room.on('change', (peer, before) => note('change', peer.id, peer.data))
  room.on('link', (peer, state) => note('link', peer.id, state))
  room.on('hub', state => note('hub', state.is, state.because?.code))
  room.on('message', (value, peer) => { messages.push([peer.id, value]); note('message', peer.id) })
  room.on('error', error => note('error', error.code, error.message + ' ' + (error.cause ?? '')))
  return room
}
/** Waits until \`look\` returns a true value, and returns it. Calls \`look\` after each event of the room. */
globalThis.until = look => new Promise(resolve => {
  const check = () => { const found = look(); if (found) { removeEventListener('noted', check); resolve(found) } }
  addEventListener('noted', check)
  check()
})
if (!query.has('later')) start()
globalThis.loaded = true
`

const WORKER = "import { serveSockets } from './extras.js'\n"
const WORKERS = {
  '/worker.js': WORKER + 'serveSockets(self)',
  '/shared.js': WORKER + 'onconnect = ({ ports: [port] }) => serveSockets(port)'
}

export const site = () => serve({ '/': PAGE, '/test.js': SCRIPT, '/client.js': CLIENT, '/extras.js': EXTRAS, ...WORKERS })

/** A tab with a room. */
export class Tab {
  static async open (browser, web, hubs, query = {}, page = undefined) {
    page ??= await browser.newPage()
    const tab = Tab.of(page)
    const address = new URL(web.origin)
    for (const hub of [hubs].flat()) address.searchParams.append('hub', hub)
    for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value)
    await page.goto(address.href)
    await page.waitForFunction('globalThis.loaded')
    return tab
  }

  static of (page) {
    const tab = Object.assign(new Tab(), { page, errors: [] })
    page.on('pageerror', error => tab.errors.push(error.message))
    return tab
  }

  /** Runs a function in the page. */
  run (work, argument) { return this.page.evaluate(work, argument) }

  id () { return this.run(() => room.id) }

  /** Waits until the expression is true in the page. */
  async until (expression, what, ms = 20_000) {
    const wait = this.run(expression => until(new Function('return ' + expression)), expression)
    wait.catch(() => {})
    return within(ms, what ?? expression, wait).catch(async error => {
      const log = await within(2_000, 'the log', this.run(() => JSON.stringify({ id: room.id, hub: room.hub.is, peers: [...room.peers.values()].map(peer => [peer.id, peer.state]), log })))
      throw new Error(`${error.message}\n${log}`)
    })
  }

  /** Waits until this number of links to other peers are open. */
  linked (count, ms) {
    return this.until(`[...room.peers.values()].filter(peer => peer.state === 'open').length === ${count}`, `${count} links`, ms)
  }

  log () { return this.run(() => log) }
}
