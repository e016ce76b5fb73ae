import { PigeonError } from './errors.js'
import { frame, type Packed } from './frames.js'

/** Number of buffered bytes in the transport at which a lane stops sending. This number is enough for a fast network, and far below the number at which browsers close a channel. */
const HIGH_WATER = 1024 * 1024
/** Number of buffered bytes in the transport at which a lane continues. */
const LOW_WATER = 256 * 1024

interface Waiting {
  readonly packed: Packed
  readonly done: () => void
  readonly fail: (error: PigeonError) => void
}

/**
 * The queue of messages to one peer on one channel. The queue outlives the data channel: unsent messages go to the
 * next channel.
 */
export class Lane {
  #queue: Waiting[] = []
  #queued = 0
  /** Number of bytes of the first message that the transport has accepted. */
  #offset = 0
  #channel: RTCDataChannel | undefined
  readonly #maxBytes: number

  constructor (maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Resolves when the transport has accepted the message. */
  send (packed: Packed): Promise<void> {
    return new Promise((done, fail) => {
      if (this.#queued + packed.bytes.length > this.#maxBytes) throw new PigeonError('queue-full', this.#queued)
      this.#queue.push({ packed, done, fail })
      this.#queued += packed.bytes.length
      this.#pump()
    })
  }

  /** Uses this data channel from now on. If a message was sent in part on the previous channel, it is sent again from its start. */
  attach (channel: RTCDataChannel): void {
    this.#channel = channel
    this.#offset = 0
    channel.bufferedAmountLowThreshold = LOW_WATER
    const pump = channel.onbufferedamountlow = () => this.#pump()
    channel.addEventListener('open', pump)
    pump()
  }

  /** Fails all queued messages. */
  fail (error: PigeonError): void {
    this.#channel = undefined
    this.#queued = this.#offset = 0
    this.#queue.splice(0).forEach(waiting => waiting.fail(error))
  }

  #pump (): void {
    const channel = this.#channel
    try {
      for (let first; (first = this.#queue[0]) && channel?.readyState === 'open' && channel.bufferedAmount < HIGH_WATER;) {
        const { packed } = first
        if (packed.line) {
          channel.send(packed.line)
          this.#offset = packed.bytes.length
        } else {
          const next = frame(packed, this.#offset)
          channel.send(next)
          this.#offset += next.length - 1
        }
        if (this.#offset < packed.bytes.length) continue
        this.#queue.shift()
        this.#queued -= packed.bytes.length
        this.#offset = 0
        first.done()
      }
    } catch {
      // The channel has closed meanwhile. The message is sent again from its start on the next channel.
      this.#offset = 0
    }
  }
}
