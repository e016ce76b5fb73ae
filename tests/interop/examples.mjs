// Tests of the pages in examples/. Each page is opened in several tabs.
import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { build } from '../../clients/js/node_modules/esbuild/lib/main.js'
import { serve } from './browser.mjs'
import { AXE } from './playground.mjs'

const DIRECTORY = new URL('../../examples/', import.meta.url)

const EXAMPLES = {
  async 'chat.html' ([ann, bob]) {
    await ann.getByText('is here').waitFor()
    await ann.locator('#nick').fill('Ann')
    await ann.locator('#nick').blur()
    await bob.getByText('is now Ann').waitFor()
    await ann.locator('#text').fill('hello')
    await ann.locator('#text').press('Enter')
    await bob.getByText('Ann: hello').waitFor()
  },
  async 'cursors.html' ([ann, bob]) {
    await bob.locator('.cursor').waitFor({ state: 'attached' })
    // The mouse moves until a message arrives, because messages of this channel may be lost.
    for (let x = 10; !await bob.locator('.cursor').isVisible(); x += 1) await ann.mouse.move(x % 300, 100)
    await ann.close()
    await bob.locator('.cursor').waitFor({ state: 'detached' })
  },
  async 'files.html' ([ann, bob]) {
    await ann.getByText('1 others').waitFor()
    const buffer = Buffer.from(Array.from({ length: 1_500_000 }, (_, index) => index * 7 % 251))
    await ann.locator('#pick').setInputFiles({ name: 'large.bin', mimeType: 'application/octet-stream', buffer })
    await bob.getByRole('button', { name: 'Accept' }).click()
    await ann.getByText('sent').waitFor()
    const download = bob.waitForEvent('download')
    await bob.getByRole('link', { name: 'Save' }).click()
    const parts = []
    for await (const part of await (await download).createReadStream()) parts.push(part)
    assert.equal(Buffer.compare(Buffer.concat(parts), buffer), 0)
    await bob.locator('#pick').setInputFiles({ name: 'unwanted', mimeType: 'text/plain', buffer: Buffer.from('no') })
    await ann.getByRole('button', { name: 'Refuse' }).click()
    await bob.getByText('refused').waitFor()
  },
  async 'text.html' (tabs) {
    const all = async text => { for (const tab of tabs) await tab.waitForFunction(text => document.querySelector('#editor').value === text, text) }
    const [ann, bob, carl] = tabs
    for (const tab of tabs) await tab.getByText('2 others are here.').waitFor()
    await ann.locator('#editor').pressSequentially('The pigeon flies.')
    await all('The pigeon flies.')
    // Three tabs write at the same time. Each keeps its own position in the text, and no text is lost.
    await bob.locator('#editor').evaluate(area => area.setSelectionRange(4, 4))
    await Promise.all([
      bob.locator('#editor').pressSequentially('quick grey '),
      carl.locator('#editor').evaluate(area => area.setSelectionRange(0, 0)).then(() => carl.locator('#editor').pressSequentially('Look: ')),
      ann.locator('#editor').pressSequentially(' It comes home.')
    ])
    await all('Look: The quick grey pigeon flies. It comes home.')
    await bob.locator('#editor').evaluate(area => { area.setRangeText('', 0, 6); area.dispatchEvent(new Event('input')) })
    await all('The quick grey pigeon flies. It comes home.')
    // A tab that joins later receives the whole text from the other tabs.
    await ann.reload()
    await all('The quick grey pigeon flies. It comes home.')
  },
  async 'camera.html' (tabs) {
    for (const tab of tabs) {
      await tab.waitForFunction(count => document.querySelectorAll('video').length === count, tabs.length)
      await tab.waitForFunction(() => [...document.querySelectorAll('video')].every(({ currentTime }) => currentTime > 0))
    }
    await tabs[0].close()
    await tabs[1].waitForFunction(count => document.querySelectorAll('video').length === count, tabs.length - 1)
  }
}

const TABS = { 'camera.html': 3, 'text.html': 3 }

/** Bundles Yjs as a local file, which replaces the remote file that the example loads. */
async function yjs () {
  const { outputFiles: [{ text }] } = await build({ entryPoints: ['yjs'], absWorkingDir: import.meta.dirname, bundle: true, format: 'esm', write: false })
  return text
}

export async function examples (browser, hub) {
  const files = (await readdir(DIRECTORY)).filter(name => name.endsWith('.html'))
  assert.deepEqual(files.sort(), Object.keys(EXAMPLES).sort())
  const web = await serve(Object.fromEntries(files.map(name => [`/${name}`, new URL(name, DIRECTORY)])))
  const bundled = await yjs()
  for (const name of files) {
    const context = await browser.newContext({ permissions: ['camera', 'microphone'] })
    await context.route('https://esm.sh/yjs@*', route => route.fulfill({ contentType: 'text/javascript', headers: { 'access-control-allow-origin': '*' }, body: bundled }))
    const errors = []
    const tabs = await Promise.all(Array.from({ length: TABS[name] ?? 2 }, async () => {
      const page = await context.newPage()
      page.on('pageerror', error => errors.push(`${name}: ${error.message}`))
      await page.goto(`${web.origin}/${name}?hub=${hub.ws}`)
      return page
    }))
    await EXAMPLES[name](tabs)
    const page = tabs.find(tab => !tab.isClosed())
    await page.addScriptTag({ path: AXE })
    const { violations } = await page.evaluate(() => globalThis.axe.run())
    assert.deepEqual(violations.map(({ id, nodes }) => `${name}: ${id}: ${nodes.map(({ html }) => html).join(' ')}`), [])
    assert.deepEqual(errors, [])
    await context.close()
  }
  web.close()
}
