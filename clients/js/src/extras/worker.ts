// Runs the WebSocket to the hub in a worker. There, it is not delayed by a busy page, or by a browser that slows down the
// timers of hidden pages.

/** A worker, or the port of a SharedWorker. */
type Port = Pick<MessagePort, 'postMessage' | 'addEventListener'>

/** A message between a page and its worker about the WebSocket with the number `id`. */
type Note =
  | { id: number, open: [url: string, protocols: string | string[]], lock: string | undefined }
  | { id: number, send: string }
  | { id: number, close: number | undefined }
  | { id: number, state: number, event: 'open' | 'message' | 'close', data?: unknown, code?: number, reason?: string }

/**
 * Returns a class for the option `WebSocket` of join(). Its WebSockets run in this worker. For a SharedWorker, give its
 * `port`. The worker must call {@link serveSockets}.
 */
export function workerSocket (port: Worker | MessagePort): typeof WebSocket {
  const sockets = new Map<number, WorkerSocket>()
  const post = (note: Note) => port.postMessage(note)
  // The page holds this lock while it exists, and the worker waits for it. So the worker notices the end of the page,
  // for which there is no reliable event.
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
        // The worker gets the lock when the page has ended.
        void navigator.locks.request(note.lock, () => sockets.forEach(socket => socket.close()))
      }
    } else if ('send' in note) sockets.get(note.id)?.send(note.send)
    else sockets.get(note.id)?.close(note.close)
  })
  if ('start' in port) (port as MessagePort).start()
}
