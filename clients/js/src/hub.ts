// The connection to the hub. The client keeps the connection open until the page leaves the room.
import { pause } from './backoff.js'
import { PigeonError, type ErrorCode } from './errors.js'
import type { HubMessage, HubState, Options, PeerId } from './api.js'

/** Maximum time of an attempt. A hub may need up to ten seconds for its answer, if it first pings a previous connection. */
const CONNECT_MS = 15_000
/** Silence is measured in ticks of a timer. So the time during which a page slept does not count as silence. */
const TICK_MS = 5_000
/** Number of ticks without a message after which the client sends a ping (ASK) or considers the hub lost (LOST). */
const ASK_TICKS = 5
const LOST_TICKS = 8
/** After a connection that lasted at least this long, the pauses between attempts begin short again. */
const GOOD_MS = 10_000
/** Minimum pause before the next attempt at a full or overloaded hub. */
const BUSY_MS = 2_000
/** Number of successive refusals of a function's tokens after which the client gives up. */
const MAX_REFUSALS = 3
/** Pause before a function that has failed to return a new token is called again. */
const RENEW_MS = 2_000
/** The meaning of close codes. With any other code, the connection is lost. */
const CODES: Record<number, ErrorCode> = {
  1008: 'hub-full', 1013: 'hub-full', 1012: 'hub-leaving', 4001: 'id-in-use', 4009: 'id-in-use',
  4012: 'unauthorized', 4401: 'unauthorized', 4403: 'forbidden', 4011: 'kicked'
}
/** The least close code that is final: after a known close code from this one on, the client makes no further attempt. */
const FINAL = 4011
/** The longest pause that a hub can ask for. */
const MAX_PAUSE_MS = 60_000

/** The functions of the room that its connection uses. */
export interface HubHost {
  readonly options: Pick<Options, 'token' | 'retry'> & { readonly WebSocket: typeof WebSocket }
  /** The page's id, and its resume secret, which proves that the page had the id before. Read at each attempt. */
  readonly identity: { id: PeerId, resume?: string | undefined }
  /** Called when another page has the id. Returns whether the client must give up, because the program has chosen the id. */
  refused (): boolean
  hubChanged (state: HubState): void
  /** Called when the hub has sent `connected`. */
  welcomed (data: any): void
  receive (message: HubMessage): void
}

export class Hub {
  state: HubState = { is: 'connecting' }
  readonly #urls: readonly string[]
  readonly #host: HubHost
  #socket: WebSocket | undefined
  /** Number of the current attempt. Events of earlier attempts are ignored. */
  #turn = 0
  /** Failures since the last good connection. */
  #failures = 0
  #refusals = 0
  #inUse = 0
  #next = 0
  /** The hub for the next attempt, if a hub that is about to stop has named one. */
  #named: string | undefined
  #onlineSince = 0
  #quiet = 0
  /** Whether only a pong shows that the hub is alive. Other messages may have been sent before the network was lost. */
  #checking = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #ticker: ReturnType<typeof setTimeout> | undefined
  /** Minimum pause that a draining hub has asked for, after it closes the connection. */
  #awayMs = 0
  /** Whether the next attempt offers no subprotocol. Hubs before 2.1 select no subprotocol, and browsers then refuse the connection. */
  #plain = false

  constructor (urls: readonly string[], host: HubHost) {
    this.#urls = urls
    this.#host = host
  }

  get online (): boolean {
    return this.state.is === 'online'
  }

  connect (): void {
    const turn = this.#leave()
    this.#become({ is: 'connecting' })
    const url = this.#named ?? this.#urls[this.#next++ % this.#urls.length]!
    this.#named = undefined
    this.#later(CONNECT_MS, () => this.#ended('hub-unreachable', url))
    void this.#open(url, turn)
  }

  /** Connects at once, instead of after the current pause. */
  retry (): void {
    if (this.state.is === 'waiting') this.connect()
  }

  /** Sends a ping, because the network may have changed. */
  check (): void {
    if (!this.online) return this.retry()
    // If no pong arrives before the next tick, the hub counts as lost.
    this.#checking = true
    this.#tick(LOST_TICKS - 1)
    this.send({ type: 'ping' })
  }

  /** Sends a message if there is a connection. */
  send (message: HubMessage): void {
    if (this.online && this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message))
  }

  /** Closes the connection for good. */
  close (because: PigeonError): void {
    this.#leave()
    this.#become({ is: 'closed', because })
  }

  /** Closes the connection, without further attempts until connect() is called. */
  suspend (): void {
    this.#leave()
    this.state = { is: 'connecting' }
  }

  async #open (base: string, turn: number): Promise<void> {
    try {
      const { id, resume } = this.#host.identity
      const url = new URL(base)
      let { token } = this.#host.options
      if (typeof token === 'function') token = await token()
      // Proxies log URLs. Therefore a token is sent as a subprotocol, unless it has characters that subprotocols cannot
      // have.
      const hides = !this.#plain && /^[\w.-]+$/.test(token ?? '')
      for (const [name, value] of Object.entries({ peerId: id, resume, token: hides ? '' : token })) if (value) url.searchParams.set(name, value)
      if (turn !== this.#turn) return
      const socket = this.#socket = new this.#host.options.WebSocket(url, this.#plain ? [] : hides ? ['peerpigeon', 'bearer.' + token] : 'peerpigeon')
      let opened = false
      socket.onopen = () => { opened = true }
      socket.onmessage = ({ data }) => { if (turn === this.#turn) this.#heard(data, base) }
      socket.onclose = ({ code, reason }) => {
        if (turn !== this.#turn) return
        if (!opened) this.#plain = !this.#plain
        this.#judge(code, reason || base)
      }
    } catch (cause) {
      if (turn === this.#turn) this.#ended('hub-unreachable', base, { cause })
    }
  }

  #heard (text: string, base: string): void {
    const message: HubMessage = JSON.parse(text)
    message.data ??= {}
    this.#checking &&= message.type !== 'pong'
    if (!this.#checking) this.#quiet = 0
    if (message.type === 'connected') this.#hello(message.data)
    else if (message.type === 'go-away') this.#goAway(message.data, base)
    else if (message.type === 'token-expires') void this.#renew()
    else this.#host.receive(message)
  }

  #hello (data: any): void {
    clearTimeout(this.#timer)
    this.#refusals = this.#inUse = 0
    this.#onlineSince = Date.now()
    this.#tick(0)
    this.state = { is: 'online' }
    this.#host.welcomed(data)
    this.#host.hubChanged(this.state)
  }

  /** Sends a new token before the current token expires. If the token function fails, it is called again, until the hub closes the connection at the expiry. The next attempt to connect then calls the function. */
  async #renew (): Promise<void> {
    const { token } = this.#host.options
    try {
      if (typeof token === 'function') this.send({ type: 'auth', data: { token: await token() } })
    } catch {
      if (this.online) this.#later(RENEW_MS, () => this.#renew())
    }
  }

  /** Handles the message of a hub that stops. The client connects to another hub at a random moment before the hub closes the connection, so that not all peers do so together. (Hubs before 2.1 send the time until the close as `reconnectInMs`.) */
  #goAway ({ reconnectInMs = 0, closeInMs = reconnectInMs, hubs = [] }: { reconnectInMs?: number, closeInMs?: number, hubs?: string[] }, base: string): void {
    this.#awayMs = reconnectInMs
    // The client never moves from an encrypted hub to an unencrypted one.
    const named = hubs.filter(hub => hub.startsWith(base.slice(0, 3)))
    const hub = named[Math.random() * named.length | 0]
    if (!hub) return
    this.#named = address(hub)
    this.#later(Math.random() * closeInMs, () => this.connect())
  }

  #tick (quiet: number): void {
    this.#quiet = quiet
    clearTimeout(this.#ticker)
    this.#ticker = setTimeout(() => {
      if (!this.online) return
      if (Date.now() - this.#onlineSince > GOOD_MS) this.#failures = 0
      if (++this.#quiet >= LOST_TICKS) {
        this.#ended('hub-unreachable', 'no answer')
      } else {
        if (this.#quiet >= ASK_TICKS) this.send({ type: 'ping' })
        this.#tick(this.#quiet)
      }
    }, TICK_MS)
  }

  #judge (code: number, reason: string): void {
    const kind = CODES[code] ?? 'hub-unreachable'
    // If the token came from a function, the next attempt calls the function again, because the token may have expired.
    const renews = kind === 'unauthorized' && typeof this.#host.options.token === 'function' && ++this.#refusals < MAX_REFUSALS
    let final = code >= FINAL && code in CODES && !renews
    // After the first 4009, the id may still belong to a dead connection of this page that the hub has not noticed yet.
    // After the second 4009, another page has the id.
    if (code === 4001 || code === 4009 && ++this.#inUse > 1) {
      this.#inUse = 0
      final = this.#host.refused()
    }
    // The reason of code 1013 can begin with `retry after <n> s`.
    const floorMs = kind === 'hub-full' ? Math.max(BUSY_MS, 1000 * parseInt(reason.slice(12)) || 0) : this.#awayMs
    this.#ended(kind, `${reason} (${code})`, { final }, floorMs)
  }

  /** Handles the end of a connection or an attempt. `floorMs` is the minimum pause before the next attempt. */
  #ended (code: ErrorCode, detail: string, more?: { final?: boolean, cause?: unknown }, floorMs = 0): void {
    const because = new PigeonError(code, detail, more)
    if (because.final) return this.close(because)
    const first = !this.#failures && this.#onlineSince
    this.#leave()
    this.#onlineSince = this.#awayMs = 0
    const { minMs = 500, maxMs = 15_000 } = this.#host.options.retry ?? {}
    // The first attempt after a good connection may follow immediately. Further attempts are at least `minMs` apart.
    const ms = Math.max(Math.min(floorMs, MAX_PAUSE_MS), pause(this.#failures++, minMs, maxMs, first ? 0 : minMs)) + (floorMs && Math.random() * minMs)
    this.#later(ms, () => this.connect())
    this.#become({ is: 'waiting', retryAt: Date.now() + ms, because })
  }

  /** Ends the current attempt and its connection. Returns the number of the next attempt. */
  #leave (): number {
    clearTimeout(this.#timer)
    clearTimeout(this.#ticker)
    const socket = this.#socket
    this.#socket = undefined
    this.#checking = false
    socket?.close(1000)
    return ++this.#turn
  }

  #later (ms: number, act: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(act, ms)
  }

  #become (state: HubState): void {
    this.state = state
    this.#host.hubChanged(state)
  }
}

/** Returns the WebSocket address of a hub from `wss://host`, `https://host`, or a URL relative to the page. Throws if the URL is invalid. */
export function address (hub: string): string {
  try {
    const url = new URL(hub, globalThis.location?.href)
    url.protocol = url.protocol.replace('http', 'ws')
    if (url.pathname === '/') url.pathname = '/ws'
    url.hash = ''
    if (url.protocol.startsWith('ws')) return url.href
  } catch {}
  throw new PigeonError('bad-url', hub, { final: true })
}
