// Tests of the playground and of the README's page in Chromium, including their accessibility.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { serve } from './browser.mjs'
import { Client } from './client.mjs'

export const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js')

export async function playground (browser, hub) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [360, 1280]) {
      // The page's own policy would forbid the script of axe that the test injects.
      const context = await browser.newContext({ colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce', bypassCSP: true })
      const [ann, bob] = [await open(context, hub, `room-${colorScheme}-${width}`), await open(context, hub, `room-${colorScheme}-${width}`)]
      await chat(ann.page, bob.page)
      await ann.page.click('#share summary')
      await ann.page.locator('#qr svg').waitFor()
      // The self-test reports that the hub answers, and that it has found addresses for links.
      for (const finding of ['The hub answers', 'Peers in the same network connect']) await ann.page.locator('#findings .ok', { hasText: finding }).waitFor()
      assert.ok(await ann.page.evaluate(still), 'with reduced motion, nothing may move')
      await ann.page.addScriptTag({ path: AXE })
      const { violations } = await ann.page.evaluate(() => globalThis.axe.run())
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), [])
      assert.ok(await ann.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'no element may be wider than the screen')
      for (const { errors } of [ann, bob]) assert.deepEqual(errors, [])
      await context.close()
    }
  }
}

/** Returns whether the page has no animations and transitions, as a user with reduced motion expects. */
const still = () => [...document.querySelectorAll('*')].map(element => getComputedStyle(element))
  .every(({ animationName, transitionProperty, transitionDuration }) => animationName === 'none' && (transitionProperty === 'none' || /^0s(, 0s)*$/.test(transitionDuration)))

/** Uses the page only with the keyboard and under its own policy. Checks that it sends requests only to the hub. */
export async function byKeyboard (browser, hub) {
  const context = await browser.newContext()
  const asked = new Set()
  context.on('request', request => asked.add(new URL(request.url()).host))
  const [ann, bob] = [await open(context, hub, 'keys'), await open(context, hub, 'keys')]
  await linked(ann.page)
  // Each page also draws the links that other pages report.
  const carl = await open(context, hub, 'keys')
  for (const { page } of [ann, bob, carl]) {
    await page.waitForFunction(() => document.querySelectorAll('#graph line.open').length === 3)
    await page.getByRole('img', { name: '3 links among 3 members, 2 of them yours' }).waitFor()
  }
  await carl.page.close()
  await ann.page.waitForFunction(() => document.querySelectorAll('#graph line').length === 1)
  await ann.page.keyboard.press('Tab')
  await ann.page.keyboard.press('Enter')
  assert.equal(await ann.page.evaluate(() => document.activeElement.id), 'text')
  await ann.page.keyboard.type('by keys')
  await ann.page.keyboard.press('Enter')
  await bob.page.getByRole('log').getByText('by keys').waitFor()
  await ann.page.getByRole('textbox', { name: 'Your name' }).fill('Somebody Else')
  await ann.page.keyboard.press('Tab')
  await bob.page.locator('#people').getByText('Somebody Else').waitFor()
  assert.equal(new URL(ann.page.url()).hash, '#keys')
  // Input of other peers is shown as text, even if it is HTML.
  await ann.page.locator('#text').fill('<img src=x onerror=alert(1)>')
  await ann.page.keyboard.press('Enter')
  await bob.page.getByText('<img src=x onerror=alert(1)>').waitFor()
  await ann.page.close()
  await bob.page.getByText('you alone').waitFor()
  for (const { errors } of [ann, bob]) assert.deepEqual(errors, [])
  assert.deepEqual([...asked], [new URL(hub.url).host])
  await context.close()
}

/** Checks that the diagram shows the signaling of a link in the right order, and that a row shows its message. */
export async function diagram (browser, hub) {
  const context = await browser.newContext()
  const [ann, bob] = [await open(context, hub, 'diagram'), await open(context, hub, 'diagram')]
  await Promise.all([linked(ann.page), linked(bob.page)])
  for (const [{ page }, other] of [[ann, bob], [bob, ann]]) {
    const name = await other.page.locator('#name').inputValue()
    await page.waitForFunction(name => [...document.querySelectorAll('#wire .label')].some(({ textContent }) => textContent === `connected with ${name}`), name)
    const rows = await page.locator('#wire .label').allTextContents()
    const at = what => {
      const found = rows.findIndex(row => what.test(row))
      assert.ok(found >= 0, `${what} in ${rows.join(' | ')}`)
      return found
    }
    const order = [/^WebSocket$/, /^connected$/, /^announce “diagram”$/, new RegExp(`^peer-discovered ${name}$`), /^(offer|answer) (to|from) /, new RegExp(`^connected with ${name}$`)].map(at)
    assert.deepEqual(order, order.toSorted((a, b) => a - b), rows.join(' | '))
    assert.ok(rows.some(row => /^ice-candidate (to|from) /.test(row)), rows.join(' | '))
    assert.deepEqual(new Set(rows.map(row => row.split(' ')[0])).has('ping'), false)
    await page.locator('#wire summary', { hasText: 'announce' }).first().click()
    assert.match(await page.locator('#wire details[open] pre').textContent(), /"networkName": "diagram"/)
    assert.match(await page.locator('#took').textContent(), /^connected in \d+ ms$/)
  }
  for (const { errors } of [ann, bob]) assert.deepEqual(errors, [])
  await context.close()
}

/** Checks that members without a name, or with a name that is not a short text, are shown with their id or a part of it. */
export async function strangers (browser, hub) {
  const context = await browser.newContext()
  const { page, errors } = await open(context, hub, 'strangers')
  for (const name of [undefined, null, '', { toString: 1 }, 7, 'x'.repeat(10_000)]) {
    const stranger = await Client.join(hub, 'strangers', name === undefined ? {} : { page: 'a page', data: { name } })
    const shown = typeof name === 'string' && name ? 'x'.repeat(40) : stranger.id.slice(0, 6)
    await page.locator('#log').getByText(`${shown} is here`, { exact: true }).waitFor()
    await page.locator('#people').getByText(shown, { exact: true }).waitFor()
    await stranger.close()
    await page.locator('#log').getByText(`${shown} has left`, { exact: true }).waitFor()
  }
  assert.deepEqual(errors, [])
  await context.close()
}

/** Checks that the self-test reports these findings about the hub's STUN and TURN servers. */
export async function serversFound (browser, hub, findings) {
  const context = await browser.newContext()
  const { page, errors } = await open(context, hub, 'servers')
  for (const [level, finding] of findings) await page.locator(`#findings .${level}`, { hasText: finding }).waitFor()
  assert.deepEqual(errors, [])
  await context.close()
}

/** Checks that the code that the playground offers to copy works unchanged in a page of another origin. */
export async function takenHome (browser, hub) {
  const context = await browser.newContext()
  const { page } = await open(context, hub, 'it\'s "<b>a room</b>"')
  const code = await page.locator('#code').textContent()
  const web = await serve({ '/': code })
  const other = await context.newPage()
  const errors = watch(other)
  await other.goto(web.origin)
  await linked(page)
  await other.locator('#text').fill('from home')
  await other.locator('#text').press('Enter')
  await page.getByRole('log').getByText('from home').waitFor()
  assert.deepEqual(errors, [])
  web.close()
  await context.close()
}

/** Checks that the page in a README works exactly as it is printed there. */
export async function printed (browser, hub, name) {
  const readme = await readFile(new URL(`../../${name}`, import.meta.url), 'utf8')
  const html = /<!-- example:client -->\s*```html\n(.*?)```/s.exec(readme)[1].replaceAll('localhost:8080', new URL(hub.url).host)
  const context = await browser.newContext()
  const web = await serve({ '/': html })
  const [ann, bob] = [await context.newPage(), await context.newPage()]
  const [atAnn, atBob] = [watch(ann), watch(bob)]
  await ann.goto(web.origin)
  await bob.goto(web.origin)
  await ann.getByText('is here').waitFor()
  await ann.locator('#text').fill('hello')
  await ann.locator('#text').press('Enter')
  await bob.locator('#chat').getByText('hello').waitFor()
  assert.deepEqual([...atAnn, ...atBob], [])
  web.close()
  await context.close()
}

function watch (page) {
  const errors = []
  page.on('pageerror', error => errors.push(error.message))
  page.on('console', message => { if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(message.text()) })
  return errors
}

async function open (context, hub, room) {
  const page = await context.newPage()
  const errors = watch(page)
  await page.goto(`${hub.url}/#${encodeURIComponent(room)}`)
  return { page, errors }
}

const linked = page => page.locator('#people li:nth-child(2) .dot[data-state=open]').waitFor({ state: 'attached' })

async function chat (one, other) {
  await Promise.all([linked(one), linked(other)])
  await one.locator('#text').fill('a message')
  await one.locator('#text').press('Enter')
  await other.getByRole('log').getByText('a message').waitFor()
}
