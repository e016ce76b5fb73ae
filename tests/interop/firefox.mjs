// Runs headless Firefox, if it is installed, and controls it with WebDriver BiDi
// (https://w3c.github.io/webdriver-bidi).
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import WebSocket from 'ws'
import { within } from './hub.mjs'

const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr'

// A test machine may have no network. Without a network, loopback is the only address, and mDNS names cannot be
// resolved.
const PREFERENCES = { 'media.peerconnection.ice.loopback': true, 'media.peerconnection.ice.obfuscate_host_addresses': false, 'browser.shell.checkDefaultBrowser': false }

export const hasFirefox = existsSync(FIREFOX)

export async function launchFirefox () {
  const profile = mkdtempSync(join(tmpdir(), 'firefox-'))
  writeFileSync(join(profile, 'user.js'), Object.entries(PREFERENCES).map(([name, value]) => `user_pref("${name}", ${value});\n`).join(''))
  const child = spawn(FIREFOX, ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port', '0'], { stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = once(child, 'exit')
  const address = new Promise(resolve => {
    createInterface(child.stderr).on('line', line => {
      const found = /WebDriver BiDi listening on (ws:\S+)/.exec(line)
      if (found) resolve(found[1])
    })
  })
  const socket = new WebSocket(`${await within(30_000, 'an address of Firefox', address)}/session`)
  await once(socket, 'open')
  let last = 0
  const waiting = new Map()
  socket.on('message', text => {
    const { id, type, result, error, message } = JSON.parse(text)
    const { done, failed } = waiting.get(id) ?? {}
    waiting.delete(id)
    if (type === 'error') failed?.(new Error(`${error}: ${message}`))
    else done?.(result)
  })
  const call = (method, params) => within(60_000, method, new Promise((done, failed) => {
    waiting.set(++last, { done, failed })
    socket.send(JSON.stringify({ id: last, method, params }))
  }))
  await call('session.new', { capabilities: {} })
  return {
    /** Opens a tab. The returned page has the functions of a Playwright page that the class `Tab` needs. */
    async open (url) {
      const { context } = await call('browsingContext.create', { type: 'tab' })
      await call('browsingContext.navigate', { context, url, wait: 'complete' })
      const evaluate = async (work, argument) => {
        const expression = typeof work === 'function' ? `(${work})(${JSON.stringify(argument) ?? ''})` : work
        const params = { expression: `Promise.resolve(${expression}).then(JSON.stringify)`, target: { context }, awaitPromise: true }
        const { result, exceptionDetails } = await call('script.evaluate', params)
        if (exceptionDetails) throw new Error(exceptionDetails.text)
        return result.type === 'string' ? JSON.parse(result.value) : undefined
      }
      return { on () {}, evaluate }
    },
    async close () {
      socket.close()
      child.kill('SIGKILL')
      await exited
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
    }
  }
}
