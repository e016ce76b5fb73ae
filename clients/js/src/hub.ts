// The connection to the hub. It is kept open until the page leaves the room.
import { pause } from './backoff.js'
import { PigeonError, type ErrorCode } from './errors.js'
import type { HubMessage, HubState, PeerId } from './api.js'

/** Maximum time of an attempt. A hub that first pings the previous connection answers within ten seconds. */
const CONNECT_MS = 15_000
/** Time is counted in ticks, so that the time during which a page slept does not count as silence. */
const TICK_MS = 5_000
/** Ticks without a message after which the client sends a ping, and after which the hub counts as lost. */
const ASK_TICKS = 5
const LOST_TICKS = 8
/** A connection that lasts this long counts as good: the pause after it is short again. */
const GOOD_MS = 10_000
/** Minimum pause before the next attempt at a full or overloaded hub. */
const BUSY_MS = 2_000
/** Number of successive refusals of a token after which the client gives up. */
const MAX_REFUSALS = 3
/** The longest pause that a hub can ask for. */
const MAX_PAUSE_MS = 60_000

export interface HubOptions {
  urls: readonly string[]
  token: string | (() => string | Promise<string>) | undefined
  minMs: number
  maxMs: number
  WebSocket: typeof WebSocket
}

export interface HubHost {
  /** The page's id, and the secret that proves that it had the id before. Called at each attempt. */
  identity (): { id: PeerId, resume?: string | undefined }
  /** Another page has the id. */
  refused (): void
  state (state: HubState): void
  /** The hub has sent `connected`. */
  online (data: any): void
  message (message: HubMessage): void
}

/** Why a connection ended, and the minimum pause before the next attempt. */
interface End { error: PigeonError, floorMs?: number | undefined }

const failure = (...error: ConstructorParameters<typeof PigeonError>): End => ({ error: new PigeonError(...error) })

export class Hub {
  state: HubState = { is: 'connecting' }
  readonly #options: HubOptions
  readonly #host: HubHost
  #socket: WebSocket | undefined
  /** Number of the current attempt: late events of earlier attempts are ignored. */
  #turn = 0
  /** Failures since the last good connection. */
  #failures = 0
  #refusals = 0
  #inUse = 0
  #next = 0
  /** A hub to try first, named by a hub that is about to stop. */
  #named: string | undefined
  #onlineSince = 0
  #quiet = 0
  /** Whether only a pong counts as a sign of life. Other messages may have been sent before the network was lost. */
  #checking = false
  #timer: ReturnType<typeof setTimeout> | undefined
  #ticker: ReturnType<typeof setTimeout> | undefined
  /** The time at which a draining hub wants the client to reconnect. */
  #awayUntil = 0

  constructor (options: HubOptions, host: HubHost) {
    this.#options = options
    this.#host = host
  }

  get online (): boolean {
    return this.state.is === 'online'
  }

  connect (): void {
    const turn = this.#leave()
    this.#become({ is: 'connecting' })
    const url = this.#url()
    this.#later(CONNECT_MS, () => this.#ended(failure('hub-unreachable', url)))
    void this.#open(url, turn)
  }

  /** Connects at once, instead of after the current pause. */
  retry (): void {
    if (this.state.is === 'waiting') this.connect()
  }

  /** Sends a ping, because the network may have changed. */
  check (): void {
    if (!this.online) return this.retry()
    // The next tick comes after a full interval, and is the last one to wait for.
    this.#checking = true
    this.#tick(LOST_TICKS - 1)
    this.send({ type: 'ping' })
  }

  /** False if it was not sent, because there is no connection. */
  send (message: HubMessage): boolean {
    if (!this.online || this.#socket?.readyState !== 1) return false
    this.#socket.send(JSON.stringify(message))
    return true
  }

  /** Closes the connection for good. */
  close (because?: PigeonError): void {
    this.#leave()
    this.#become({ is: 'closed', ...(because && { because }) })
  }

  /** Closes the connection until connect() is called. */
  suspend (): void {
    this.#leave()
    this.state = { is: 'connecting' }
  }

  /** The address of the next attempt. */
  #url (): string {
    const named = this.#named
    this.#named = undefined
    return named ?? this.#options.urls[this.#next++ % this.#options.urls.length]!
  }

  async #open (base: string, turn: number): Promise<void> {
    let url: URL
    let socket: WebSocket
    try {
      const { token } = this.#options
      const { id, resume } = this.#host.identity()
      url = new URL(base)
      const shown = { peerId: id, resume, token: typeof token === 'function' ? await token() : token }
      for (const [name, value] of Object.entries(shown)) if (value) url.searchParams.set(name, value)
      if (turn !== this.#turn) return
      socket = this.#socket = new this.#options.WebSocket(url)
    } catch (cause) {
      if (turn === this.#turn) this.#ended(failure('hub-unreachable', base, { cause }))
      return
    }
    let opened = false
    socket.onopen = () => { opened = true }
    socket.onmessage = ({ data }) => { if (turn === this.#turn) this.#heard(String(data), base) }
    socket.onclose = async ({ code, reason }) => {
      if (turn !== this.#turn) return
      const end = opened ? this.#judge(code, reason) : await this.#ask(url, base)
      if (turn === this.#turn) this.#ended(end)
    }
  }

  #heard (text: string, base: string): void {
    const message: HubMessage = JSON.parse(text)
    this.#checking &&= message.type !== 'pong'
    if (!this.#checking) this.#quiet = 0
    if (message.type === 'connected') this.#hello(message)
    else if (message.type === 'go-away') this.#goAway(message.data ?? {}, base)
    else this.#host.message(message)
  }

  #hello (message: HubMessage): void {
    clearTimeout(this.#timer)
    this.#refusals = this.#inUse = 0
    this.#onlineSince = Date.now()
    this.#tick(0)
    this.state = { is: 'online' }
    this.#host.online(message.data ?? {})
    this.#host.state(this.state)
  }

  /** The hub stops. Each peer reconnects at a random moment, so that not all peers do so at once. */
  #goAway ({ reconnectInMs, hubs }: { reconnectInMs?: number, hubs?: unknown }, base: string): void {
    const inMs = Math.min(reconnectInMs! || 0, MAX_PAUSE_MS)
    this.#awayUntil = Date.now() + inMs
    // The client never moves from an encrypted hub to an unencrypted one.
    const named = Array.isArray(hubs) ? hubs.filter(hub => String(hub).startsWith(base.split(':')[0]!)) : []
    if (named.length === 0) return
    this.#named = address(named[Math.floor(Math.random() * named.length)])
    this.#later(Math.random() * inMs, () => this.connect())
  }

  #tick (quiet: number): void {
    this.#quiet = quiet
    clearTimeout(this.#ticker)
    this.#ticker = setTimeout(() => {
      if (!this.online) return
      if (Date.now() - this.#onlineSince > GOOD_MS) this.#failures = 0
      if (++this.#quiet >= LOST_TICKS) {
        this.#ended(failure('hub-unreachable', 'no answer'))
      } else {
        if (this.#quiet >= ASK_TICKS) this.send({ type: 'ping' })
        this.#tick(this.#quiet)
      }
    }, TICK_MS)
  }

  #judge (code: number, reason: string): End {
    const end = (errorCode: ErrorCode, floorMs?: number) => ({ error: new PigeonError(errorCode, reason || code), floorMs })
    if (code === 1012) return end('hub-leaving', this.#awayUntil - Date.now())
    if (code === 1008 || code === 1013) return end('hub-full', BUSY_MS)
    if (code !== 4001 && code !== 4009) return end('hub-unreachable')
    // The first time, the hub may still take this page's previous connection for alive. The second time, another page
    // has the id.
    if (code === 4001 || ++this.#inUse > 1) {
      this.#inUse = 0
      this.#host.refused()
    }
    return end('id-in-use')
  }

  /**
   * Finds out why a handshake failed, which browsers do not report. The hub answers an ordinary request for the same
   * address with the reason. The time limit is that of the attempt.
   */
  async #ask (url: URL, base: string): Promise<End> {
    try {
      const { status, headers } = await fetch(url.href.replace(/^ws/, 'http'))
      const floorMs = Math.min(+headers.get('retry-after')! * 1000, MAX_PAUSE_MS)
      if (status === 401 || status === 403) return { ...this.#unauthorized(base), floorMs }
      if (status === 429 || status === 503) return { ...failure('hub-full', base), floorMs: Math.max(floorMs, BUSY_MS) }
    } catch {}
    return failure('hub-unreachable', base)
  }

  /** A token from a function may have expired meanwhile, so the function is called again. */
  #unauthorized (base: string): End {
    const final = ++this.#refusals >= (typeof this.#options.token === 'function' ? MAX_REFUSALS : 1)
    return failure('unauthorized', base, { final })
  }

  #ended ({ error, floorMs = 0 }: End): void {
    if (error.final) return this.close(error)
    const first = this.#failures === 0 && this.#onlineSince > 0
    this.#leave()
    this.#onlineSince = 0
    const { minMs, maxMs } = this.#options
    // The first attempt after a good connection follows at once, and further ones at most twice a second.
    const ms = Math.max(floorMs, pause(this.#failures++, minMs, maxMs, first ? 0 : minMs)) + (floorMs && Math.random() * minMs)
    this.#later(ms, () => this.connect())
    this.#become({ is: 'waiting', retryAt: Date.now() + ms, because: error })
  }

  /** Ends this turn and its connection. */
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
    this.#host.state(state)
  }
}

/** The WebSocket address of a hub: `wss://host`, `https://host`, or relative to the page. Throws if it is invalid. */
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
