// Tests of the operators' page at /admin in Chromium: login, orders, requests of other sites' pages, and logout.
import assert from 'node:assert/strict'
import { launch, serve } from './browser.mjs'
import { Client } from './client.mjs'
import { HUBS_AT, hubTest } from './hub.mjs'

const TOKEN = 'a-token-of-the-operators'
const options = { env: { ADMIN_TOKEN: TOKEN }, timeout: 60_000, skip: HUBS_AT && 'these hubs have other tokens' }

/**
 * Opens a tab of an operator. `violations` are the browser's messages about violations of the Content-Security-Policy.
 */
async function operator (browser) {
  const context = await browser.newContext()
  const page = await context.newPage()
  const violations = []
  page.on('console', message => { if (/Content.Security.Policy/i.test(message.text())) violations.push(message.text()) })
  return { context, page, violations }
}

async function logIn (page, token) {
  await page.getByLabel('ADMIN_TOKEN').fill(token)
  const [answer] = await Promise.all([page.waitForNavigation(), page.getByRole('button', { name: 'Log in' }).click()])
  return answer.status()
}

hubTest('an operator logs in with the form, kicks a peer, and logs out', options, async hub => {
  const browser = await launch()
  try {
    const { context, page, violations } = await operator(browser)
    assert.equal((await page.goto(`${hub.url}/stats`)).status(), 401)
    assert.equal(await logIn(page, 'a-guess'), 401)
    assert.equal(await page.getByRole('alert').textContent(), 'the token is wrong: send ADMIN_TOKEN of this hub')
    assert.deepEqual(await context.cookies(), [])

    // After the login, the browser shows the page that it requested before the login.
    assert.equal(await logIn(page, TOKEN), 200)
    assert.equal(page.url(), `${hub.url}/stats`)
    assert.equal(JSON.parse(await page.locator('body').innerText()).isRunning, true)
    const [cookie, ...others] = await context.cookies()
    assert.deepEqual(others, [])
    const { httpOnly, sameSite, secure, path } = cookie
    assert.deepEqual({ httpOnly, sameSite, secure, path }, { httpOnly: true, sameSite: 'Strict', secure: hub.url.startsWith('https'), path: '/' })
    assert.equal(await page.evaluate(() => document.cookie), '', 'scripts must not see the cookie')

    const peer = await Client.connect(hub)
    await page.goto(`${hub.url}/admin`)
    await page.locator('form[action="/admin/kick"]').getByLabel('Peer id').fill(peer.id)
    await page.getByRole('button', { name: 'Kick a peer' }).click()
    assert.equal(await page.getByRole('status').textContent(), 'the peer was disconnected')
    assert.equal((await peer.closed).code, 4011)
    await page.getByRole('link', { name: 'Back' }).click()

    const styled = await page.evaluate(() => getComputedStyle(document.body).maxWidth)
    assert.notEqual(styled, 'none', 'the policy must allow the style')
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByLabel('ADMIN_TOKEN').waitFor()
    assert.deepEqual(await context.cookies(), [])
    // After the logout, a copy of the cookie is invalid, too.
    await context.addCookies([cookie])
    assert.equal((await page.goto(`${hub.url}/stats`)).status(), 401)
    assert.deepEqual(violations, [])
  } finally {
    await browser.close()
  }
})

hubTest('pages of other sites cannot use the login of an operator', options, async hub => {
  const form = `<!doctype html><form method="post" action="${hub.url}/admin/undrain"><button>Win a prize</button></form>`
  const web = await serve({ '/': form })
  const browser = await launch()
  try {
    const { page } = await operator(browser)
    await page.goto(`${hub.url}/admin`)
    assert.equal(await logIn(page, TOKEN), 200)
    const send = async origin => {
      await page.goto(origin)
      const [answer] = await Promise.all([page.waitForNavigation(), page.getByRole('button').click()])
      return { status: answer.status(), text: await page.locator('body').innerText() }
    }
    // localhost is another site than 127.0.0.1, so the browser does not send the cookie.
    const strange = await send(web.origin.replace('127.0.0.1', 'localhost'))
    assert.equal(strange.status, 401)
    // Another port of the same host is the same site, so the browser sends the cookie. The hub refuses the request
    // because of its Origin header.
    const near = await send(web.origin)
    if (hub.url.startsWith('https')) {
      assert.equal(near.status, 401, 'http and https are different sites')
    } else {
      assert.equal(near.status, 403)
      assert.match(near.text, /Origin/)
    }
    // No page may show the operators' page in a frame, where it could trick the user into clicking.
    await page.goto(`${hub.url}/admin`)
    assert.equal((await page.reload()).headers()['x-frame-options'], 'DENY')
    assert.equal(await page.getByRole('button', { name: 'Undrain' }).count(), 1, 'the operator must still be logged in')
  } finally {
    await browser.close()
    web.close()
  }
})
