// Events and storage of the page that contains the room. Outside a browser there is no page.
export interface PageHost {
  /** Called when the user leaves the page. The browser may keep the page, and show it again later. */
  hide (): void
  /** Called when a page that the browser has kept is shown again. */
  show (): void
  /** Called when the network may have changed. */
  wake (): void
}

/** Watches the page until `signal` aborts. */
export function watchPage (host: PageHost, signal: AbortSignal): void {
  if (!globalThis.document) return
  const on = (name: string, listener: (event: any) => void, target: EventTarget = globalThis) => target.addEventListener(name, listener, { signal })
  const wake = () => host.wake()
  on('pagehide', () => host.hide())
  on('pageshow', event => { if (event.persisted) host.show() })
  on('online', wake)
  on('visibilitychange', () => { if (!document.hidden) wake() })
  // The browser fires `resume` after it has frozen the page. The page can still be hidden then.
  on('resume', wake, document)
}

/** The identity that a page keeps over a reload: its id and its resume secret. */
export interface Identity { id: string, resume?: string | undefined }

/**
 * Removes and returns the identity that the previous page of this tab has stored. A page stores its identity only when
 * the user leaves it. While a page is open, nothing is stored. Therefore a duplicated tab, which gets a copy of the
 * storage, finds no identity there.
 */
export function pickUp (room: string): Identity | undefined {
  try {
    const identity = JSON.parse(sessionStorage.getItem(room)!) // null if there is none
    sessionStorage.removeItem(room)
    return identity
  } catch {
    // The runtime has no storage, or the page may not use it.
    return undefined
  }
}

/** Stores an identity for the next page of this tab, if the hub has sent a resume secret for it. */
export function putDown (room: string, identity: Identity): void {
  try {
    if (identity.resume) sessionStorage.setItem(room, JSON.stringify(identity))
  } catch {}
}

/** 40 random hexadecimal digits. */
export function randomId (): string {
  return crypto.getRandomValues(new Uint8Array(20)).reduce((id, byte) => id + (256 + byte).toString(16).slice(1), '' as any)
}
