// A client of the hub, based on npm `ws`. The client keeps a list of the received messages.
import { readFileSync } from 'node:fs'
import Ajv from 'ajv/dist/2020.js'
import WebSocket from 'ws'
import { peerId, within } from './hub.mjs'

const DEADLINE_MS = 5_000

const schema = name => JSON.parse(readFileSync(new URL(`../../docs/schema/${name}.schema.json`, import.meta.url), 'utf8'))
const ajv = new Ajv({ strict: false })

/** Functions that return whether a message of a hub or of a client is valid according to docs/schema. */
export const isFromHub = ajv.compile(schema('hub'))
export const isFromClient = ajv.compile(schema('client'))

export class Client {
  /** Opens a WebSocket. Rejects with `{ status, body }` if the hub does not answer with an upgrade. */
  static async open (hub, { id = peerId(), path = '/ws', query = {}, options = {} } = {}) {
    const socket = new WebSocket(`${hub.ws}${path}?${new URLSearchParams({ peerId: id, ...query })}`, { perMessageDeflate: false, ...options })
    const client = new Client(id, socket)
    await within(DEADLINE_MS, 'an answer to the upgrade', new Promise((resolve, reject) => {
      socket.once('open', resolve)
      socket.once('unexpected-response', (request, response) => {
        let body = ''
        response.setEncoding('utf8').on('data', text => { body += text }).on('end', () => {
          const refused = new Error(`refused: ${response.statusCode} ${body}`)
          reject(Object.assign(refused, { status: response.statusCode, body: body.trim(), headers: response.headers }))
        })
      })
      socket.once('error', reject)
    }))
    return client
  }

  /** Opens a WebSocket and receives `connected`. */
  static async connect (hub, options) {
    const client = await Client.open(hub, options)
    client.connected = await client.next('connected')
    return client
  }

  /**
   * Connects and announces. When it returns, the hub has processed the announcement, because it has answered a later
   * ping.
   */
  static async join (hub, networkName, data, options) {
    const client = await Client.connect(hub, options)
    client.announce(networkName, data)
    client.roster = await client.fence()
    return client
  }

  constructor (id, socket) {
    this.id = id
    this.socket = socket
    this.frames = []
    this.waiting = []
    this.closed = new Promise(resolve => socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })))
    socket.on('error', () => {})
    socket.on('message', (bytes, binary) => {
      const raw = bytes.toString()
      const message = JSON.parse(raw)
      // Each message of each test is validated. The test's next read throws the error.
      if (!isFromHub(message)) this.strange ??= new Error(`the schema does not allow ${raw}: ${ajv.errorsText(isFromHub.errors)}`)
      this.frames.push({ raw, binary, message, at: Date.now() })
      this.waiting.splice(0).forEach(wake => wake())
    })
  }

  send (message) { this.socket.send(typeof message === 'string' ? message : JSON.stringify(message)) }

  announce (networkName, data) { this.send({ type: 'announce', networkName, data }) }

  signal (type, targetPeerId, data, more) { this.send({ type, targetPeerId, data, ...more }) }

  /** The next frame, which must have this type. */
  async next (type, ms = DEADLINE_MS) {
    const frame = await this.#take(() => true, `${type} for ${this.id}`, ms)
    if (frame.message.type !== type) throw new Error(`${this.id} awaited ${type} and got ${frame.raw}`)
    return frame
  }

  /** The first frame that `wanted` accepts. Earlier frames stay queued. */
  find (wanted, what, ms = DEADLINE_MS) { return this.#take(wanted, what, ms) }

  /** Sends a ping, and returns all frames that arrive before its answer. */
  async fence () {
    this.send({ type: 'ping' })
    await this.#until(() => this.frames.some(frame => frame.message.type === 'pong'), 'pong', DEADLINE_MS)
    const before = this.frames.splice(0, 1 + this.frames.findIndex(frame => frame.message.type === 'pong'))
    return before.slice(0, -1)
  }

  /**
   * Lets `other` send a signal to this client, and returns all frames that arrive before the signal. The returned
   * frames include the effects of all earlier messages of `other`, because messages of one sender keep their order.
   */
  async hearUntil (other, networkName) {
    const mark = peerId()
    other.signal('answer', this.id, { mark }, { networkName })
    const isMark = frame => frame.message.data?.mark === mark
    await this.#until(() => this.frames.some(isMark), 'the marked signal', DEADLINE_MS)
    return this.frames.splice(0, 1 + this.frames.findIndex(isMark)).slice(0, -1)
  }

  close (code = 1000) { this.socket.close(code); return this.closed }

  async end (ms = DEADLINE_MS) { return await within(ms, () => `the close of ${this.id}`, this.closed) }

  async #take (wanted, what, ms) {
    await this.#until(() => this.frames.some(wanted), what, ms)
    if (this.strange) throw this.strange
    return this.frames.splice(this.frames.findIndex(wanted), 1)[0]
  }

  async #until (done, what, ms) {
    const deadline = Date.now() + ms
    while (!done()) {
      const woken = new Promise(resolve => this.waiting.push(resolve))
      await within(Math.max(1, deadline - Date.now()), () => `${what}; there is ${this.frames.map(frame => frame.raw).join('\n') || 'nothing'}`, woken)
    }
  }
}
