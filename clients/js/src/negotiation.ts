// Perfect negotiation (W3C WebRTC, section 10.7) for one RTCPeerConnection. Both sides may offer at any time. If both
// do so at once, the polite side withdraws its offer.

/** A session description or candidate, with the tags of its connections. */
export interface Signal {
  type?: RTCSdpType
  sdp?: string
  candidate?: string
  /** The tag of the sender's connection, and of the receiver's where the sender knows it. */
  from?: number
  to?: number
  /** The sender has its maximum number of links, and does not answer this offer. */
  full?: true
}

export type SignalType = 'offer' | 'answer' | 'ice-candidate'

/** Time for which one side waits for the other side's first offer. */
const OFFER_MS = 3_000

export interface NegotiationOptions {
  polite: boolean
  /** Distinguishes this connection from others that its side has made for this peer. Later ones have greater tags. */
  tag: number
  /** Whether to wait for the other side's offer first. */
  wait: boolean
  send: (type: SignalType, data: Signal) => void
  fail: (cause: unknown) => void
}

export class Negotiation {
  declare readonly tag: number
  /** The tag of the other side's connection, once it is known. */
  declare remote: number | undefined
  readonly #pc: RTCPeerConnection
  readonly #options: NegotiationOptions
  readonly #patience: ReturnType<typeof setTimeout> | undefined
  #waiting: boolean
  #wanted = false
  #offering = false
  #ignoring = false
  #answering = false
  #stop!: () => void
  /** The promises of a closed connection never settle. */
  readonly #stopped = new Promise<void>(resolve => { this.#stop = resolve })

  constructor (pc: RTCPeerConnection, options: NegotiationOptions) {
    this.#pc = pc
    this.#options = options
    this.tag = options.tag
    this.#waiting = options.wait
    if (options.wait) this.#patience = setTimeout(() => this.#start(), OFFER_MS)
    pc.onnegotiationneeded = () => this.#offer()
    pc.onicecandidate = ({ candidate }) => { if (candidate) this.#send('ice-candidate', candidate.toJSON() as Signal) }
  }

  /** Offers now, if there is something to offer, and no longer waits for the other side. */
  #start (): void {
    this.#waiting = false
    if (this.#wanted) void this.#offer()
  }

  /** Whether an offer has been sent that has no answer yet. */
  get pending (): boolean {
    return this.#pc.signalingState === 'have-local-offer'
  }

  /** Sends the last description again, which may have been lost. */
  repeat (): void {
    if (this.#open) this.#describe()
  }

  /** Takes a signal of the other side. Resolves when the next signal can be processed. */
  take (type: SignalType, signal: Signal): Promise<void> {
    if (!this.#open) return Promise.resolve()
    const taken = type === 'ice-candidate' ? this.#candidate(signal) : this.#description({ type, sdp: signal.sdp ?? '' })
    return Promise.race([this.#stopped, taken.catch(cause => this.#failed(cause))])
  }

  /** The connection is being closed. */
  stop (): void {
    clearTimeout(this.#patience)
    this.#pc.onnegotiationneeded = this.#pc.onicecandidate = null
    this.#stop()
  }

  async #offer (): Promise<void> {
    this.#wanted = true
    if (this.#waiting || !this.#open) return
    this.#wanted = false
    try {
      this.#offering = true
      await this.#pc.setLocalDescription()
      // The description is an answer if an offer of the other side has just arrived.
      if (this.#open) this.#describe()
    } catch (cause) {
      this.#failed(cause)
    } finally {
      this.#offering = false
    }
  }

  async #description (description: RTCSessionDescriptionInit): Promise<void> {
    const pc = this.#pc
    const ready = !this.#offering && (pc.signalingState === 'stable' || this.#answering)
    const collision = description.type === 'offer' && !ready
    this.#ignoring = collision && !this.#options.polite
    if (this.#ignoring) return
    // An answer to a withdrawn offer.
    if (description.type === 'answer' && pc.signalingState === 'stable') return
    this.#answering = description.type === 'answer'
    try {
      await pc.setRemoteDescription(description)
    } finally {
      this.#answering = false
    }
    // The browser fires `negotiationneeded` again for everything that is still to be negotiated.
    this.#waiting = this.#wanted = false
    if (description.type !== 'offer') return
    await pc.setLocalDescription()
    if (this.#open) this.#describe()
  }

  async #candidate (candidate: Signal): Promise<void> {
    // The value is read now, because the description of this candidate may be refused during the wait.
    const ignoring = this.#ignoring
    try {
      await this.#pc.addIceCandidate(candidate as RTCIceCandidateInit)
    } catch (error) {
      // An invalid candidate is not a failure: ICE uses the others.
      if (!ignoring && (error as Error).name !== 'OperationError') throw error
    }
  }

  get #open (): boolean {
    return this.#pc.signalingState !== 'closed'
  }

  #failed (cause: unknown): void {
    if (this.#open) this.#options.fail(cause)
  }

  #describe (): void {
    const { type, sdp } = this.#pc.localDescription!
    this.#send(type as SignalType, { type, sdp })
  }

  #send (type: SignalType, data: Signal): void {
    this.#options.send(type, { ...data, from: this.tag, to: this.remote } as Signal)
  }
}
