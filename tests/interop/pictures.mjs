// Takes the screenshots for the README from a real run with three hubs, load tests and the playground. Needs Chromium.
//
//   HUB_BIN=target/release/peerpigeon node tests/interop/pictures.mjs [SECONDS]     default: 240 s of load
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { launch } from './browser.mjs'
import { startMesh } from './hub.mjs'

const TOKEN = 'token-of-the-pictures'
const seconds = Number(process.argv[2] ?? 240)
const docs = name => fileURLToPath(new URL(`../../docs/${name}`, import.meta.url))
const wait = ms => new Promise(resolve => setTimeout(resolve, ms))

const hubs = await startMesh(3, { env: { ADMIN_TOKEN: TOKEN, SHARDS: '2' } })
const browser = await launch()
const load = (...args) => spawn(process.env.HUB_BIN, ['load-test', ...hubs.flatMap(({ ws }) => ['--hub', ws]), ...args], { stdio: 'inherit' })

// Two people chat in a room of the playground.
const people = await browser.newContext({ viewport: { width: 1120, height: 760 }, colorScheme: 'light' })
const [ann, bob] = [await people.newPage(), await people.newPage()]
for (const page of [ann, bob]) await page.goto(`${hubs[0].url}/#lobby`)
for (const page of [ann, bob]) await page.locator('#people li:nth-child(2) .dot[data-state=open]').waitFor({ state: 'attached' })
const say = async (page, words) => { await page.fill('#text', words); await page.press('#text', 'Enter') }
await say(ann, 'Hello! This goes directly from my browser to yours.')
await bob.getByText('Hello!').waitFor()
await say(bob, 'And the hub only introduced us.')
await ann.getByText('introduced us').waitFor()
await ann.locator('#findings .ok').first().waitFor()
await wait(2000)
await ann.screenshot({ path: docs('playground.png') })

// During the load tests, peers join and leave, and send offers.
const loads = [load('--scenario', 'churn', '--peers', '150', '--duration', `${seconds}s`, '--interval', '20s'), load('--scenario', 'join', '--peers', '300', '--networks', '20', '--duration', `${seconds}s`, '--interval', '4s', '--ramp', '20')]
await wait(seconds * 900)
const operator = await browser.newContext({ viewport: { width: 1120, height: 1620 }, colorScheme: 'light' })
const page = await operator.newPage()
await page.goto(`${hubs[0].url}/dashboard`)
await page.fill('input[name=token]', TOKEN)
await page.click('button')
await page.waitForFunction(() => globalThis.isDrawn?.())
await wait(3000)
await page.screenshot({ path: docs('dashboard.png') })
await browser.close()
await Promise.all(loads.map(child => child.exitCode === null && once(child, 'exit')))
await Promise.all(hubs.map(hub => hub.kill()))
