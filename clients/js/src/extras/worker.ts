// The WebSocket to the hub in a worker: a page that is busy, or whose timers the browser slows down, does not delay it.

/** A worker, or the port of a SharedWorker. */
type Port = Pick<MessagePort, 'postMessage' | 'addEventListener'>

/** What a page and its worker tell each other about the WebSocket with this number. */
type Note =
  | { id: number, open: [url: string, protocols: string | string[]], lock: string | undefined }
  | { id: number, send: string }
  | { id: number, close: number | undefined }
  | { id: number, state: number, event: 'open' | 'message' | 'close', data?: unknown, code?: number, reason?: string }

/**
 * Returns a class for the option `WebSocket` of join(): its WebSockets run in this worker, or in this SharedWorker by its
 * `port`. The worker must call {@link serveSockets}.
 */
export function workerSocket (port: Worker | MessagePort): typeof WebSocket {
  const sockets = new Map<number, WorkerSocket>()
  const post = (note: Note) => port.postMessage(note)
  // The worker waits for this lock, which the page holds while it lives: a page can end without an event.
  const lock = globalThis.navigator?.locks && crypto.randomUUID?.()
  if (lock) void navigator.locks.request(lock, () => new Promise(() => {}))
  let last = 0

  class WorkerSocket {
    readyState = 0
    onopen: ((event: object) => void) | null = null
    onmessage: ((event: object) => void) | null = null
    onclose: ((event: object) => void) | null = null
    readonly #id = ++last

    constructor (url: string | URL, protocols: string | string[] = []) {
      sockets.set(this.#id, this)
      post({ id: this.#id, open: [String(url), protocols], lock })
    }

    send (data: string): void {
      post({ id: this.#id, send: data })
    }

    close (code?: number): void {
      this.readyState = 2
      post({ id: this.#id, close: code })
    }
  }

  port.addEventListener('message', ({ data: note }: any) => {
    const socket = sockets.get(note.id)
    if (!socket || !note.event) return
    socket.readyState = note.state
    if (note.event === 'close') sockets.delete(note.id)
    socket[`on${note.event as 'open'}`]?.(note)
  })
  if ('start' in port) port.start()
  return WorkerSocket as unknown as typeof WebSocket
}

/**
 * Runs the WebSockets of {@link workerSocket} in this worker: `serveSockets(self)` in a Worker, or
 * `onconnect = ({ ports: [port] }) => serveSockets(port)` in a SharedWorker.
 */
export function serveSockets (port: Port): void {
  const sockets = new Map<number, WebSocket>()
  let watched = false
  port.addEventListener('message', ({ data: note }: any) => {
    if (note.open) {
      const socket = new WebSocket(...note.open as [string, string[]])
      sockets.set(note.id, socket)
      const tell = (event: string, more: object) => port.postMessage({ id: note.id, state: socket.readyState, event, ...more })
      socket.onopen = () => tell('open', {})
      socket.onmessage = ({ data }) => tell('message', { data })
      socket.onclose = ({ code, reason }) => {
        sockets.delete(note.id)
        tell('close', { code, reason })
      }
      if (note.lock && !watched) {
        watched = true
        // The page is gone.
        void navigator.locks.request(note.lock, () => sockets.forEach(socket => socket.close()))
      }
    } else if ('send' in note) sockets.get(note.id)?.send(note.send)
    else sockets.get(note.id)?.close(note.close)
  })
  if ('start' in port) (port as MessagePort).start()
}
