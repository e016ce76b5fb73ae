// Events and storage of the page that contains the room, if there is one.
export interface PageHost {
  /** The page is left. A browser may keep it, and show it again. */
  hide (): void
  /** A page that was kept is shown again. */
  show (): void
  /** The network may have changed. */
  wake (): void
}

/** Watches until `signal` aborts. */
export function watchPage (host: PageHost, signal: AbortSignal): void {
  if (!globalThis.document) return
  const on = (name: string, listener: (event: any) => void) => addEventListener(name, listener, { signal })
  on('pagehide', () => host.hide())
  on('pageshow', ({ persisted }: PageTransitionEvent) => { if (persisted) host.show() })
  on('online', () => host.wake())
  on('visibilitychange', () => { if (!document.hidden) host.wake() })
  // The page was frozen. This event can occur while the page stays hidden.
  document.addEventListener('resume', () => host.wake(), { signal })
}

/** The identity of this page before a reload. */
export interface Identity { id: string, resume?: string | undefined }

/**
 * Removes and returns the identity that the previous page of this tab has stored. A page stores its identity when the
 * user leaves it, and removes the stored one when it loads. While the page is open nothing is stored, so a duplicated
 * tab, which gets a copy of the storage, finds no identity.
 */
export function pickUp (room: string): Identity | undefined {
  try {
    const identity = JSON.parse(sessionStorage.getItem(room)!) // null if there is none
    sessionStorage.removeItem(room)
    return identity
  } catch {
    // There is no storage, or the page may not use it.
    return undefined
  }
}

/** Keeps an identity for the next load of this tab, if the hub has given a proof of it. */
export function putDown (room: string, identity: Identity): void {
  try {
    if (identity.resume) sessionStorage.setItem(room, JSON.stringify(identity))
  } catch {}
}

/** 40 random hexadecimal digits. */
export function randomId (): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(20)), byte => byte.toString(16).padStart(2, '0')).join('')
}
