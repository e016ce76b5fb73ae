/** Ends a subscription. */
export type Off = () => void

/** An object with events. `E` maps the name of each event to its arguments. */
export class Emitter<E extends { [K in keyof E]: unknown[] }> {
  readonly #listeners = new Map<keyof E, Set<(...args: any[]) => void>>()

  /** Calls `listener` at each event of this name, until the returned function is called. */
  on<K extends keyof E> (name: K, listener: (...args: E[K]) => void): Off {
    const listeners = this.#listeners.get(name) ?? new Set()
    this.#listeners.set(name, listeners)
    listeners.add(listener as (...args: any[]) => void)
    return () => { listeners.delete(listener as (...args: any[]) => void) }
  }

  /** Resolves with the next event of this name. */
  once<K extends keyof E> (name: K): Promise<E[K]> {
    return new Promise(resolve => {
      const off = this.on(name, (...args) => { off(); resolve(args) })
    })
  }

  /** @internal Calls the listeners. Returns false if there are none. */
  emit<K extends keyof E> (name: K, ...args: E[K]): boolean {
    const listeners = [...this.#listeners.get(name) ?? []]
    for (const listener of listeners) {
      try {
        listener(...args)
      } catch (error) {
        // An exception of a listener reaches window.onerror. The next listener is still called.
        queueMicrotask(() => { throw error })
      }
    }
    return listeners.length > 0
  }

  /** @internal Removes all listeners, so that none receives a further event. */
  silence (): void {
    this.#listeners.clear()
  }
}
