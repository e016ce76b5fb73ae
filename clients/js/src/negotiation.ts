// Perfect negotiation (W3C WebRTC, section 10.7) for one RTCPeerConnection. Both sides may offer at any time. If two
// offers collide, the polite side withdraws its own.

/** A session description or a candidate. The tags of a signal name the sender's connection and the receiver's connection. */
export interface Signal {
  type?: RTCSdpType
  sdp?: string
  candidate?: string
  /** The tag of the sender's connection. */
  from?: number
  /** The tag of the receiver's connection, if the sender knows it. */
  to?: number
  /** The sender has its maximum number of links, and does not answer this offer. */
  full?: true
}

export type SignalType = 'offer' | 'answer' | 'ice-candidate'

/** Time for which one side waits for the other side's first offer. */
const OFFER_MS = 3_000

/** The functions of the link that its negotiations use. */
export interface NegotiationHost {
  readonly polite: boolean
  relay (type: SignalType, data: Signal): void
  fault (cause: unknown): void
}

export class Negotiation {
  /** Distinguishes this connection from other connections of this side to the same peer. Later connections have greater tags. */
  declare readonly tag: number
  /** The tag of the other side's connection, once it is known. */
  declare remote: number | undefined
  readonly #pc: RTCPeerConnection
  readonly #link: NegotiationHost
  readonly #patience: ReturnType<typeof setTimeout> | undefined
  #waiting: boolean
  #wanted = false
  #offering = false
  #ignoring = false
  #answering = false
  #stop!: () => void
  /** Settles when the connection is closed. Promises of a closed RTCPeerConnection never settle, so tasks also wait for this one. */
  readonly #stopped = new Promise<void>(resolve => { this.#stop = resolve })

  /** With `wait`, the negotiation first waits for the other side's offer. */
  constructor (pc: RTCPeerConnection, link: NegotiationHost, tag: number, wait: boolean) {
    this.#pc = pc
    this.#link = link
    this.tag = tag
    this.#waiting = wait
    if (wait) this.#patience = setTimeout(() => this.#start(), OFFER_MS)
    pc.onnegotiationneeded = () => this.#offer()
    pc.onicecandidate = ({ candidate }) => { if (candidate) this.#send('ice-candidate', candidate.toJSON() as Signal) }
  }

  /** Stops waiting for an offer of the other side, and offers if there is something to negotiate. */
  #start (): void {
    this.#waiting = false
    if (this.#wanted) void this.#offer()
  }

  /** Whether an offer has been sent that has no answer yet. */
  get pending (): boolean {
    return this.#pc.signalingState === 'have-local-offer'
  }

  /** Sends the last description again, because it may have been lost. */
  repeat (): void {
    if (this.#open) this.#describe()
  }

  /** Processes a signal of the other side. Resolves when the next signal can be processed. */
  take (type: SignalType, signal: Signal): Promise<void> {
    if (!this.#open) return Promise.resolve()
    const taken = type === 'ice-candidate' ? this.#candidate(signal) : this.#description({ type, sdp: signal.sdp ?? '' })
    return Promise.race([this.#stopped, taken.catch(cause => this.#failed(cause))])
  }

  /** Ends the negotiation, because the connection is about to be closed. */
  stop (): void {
    clearTimeout(this.#patience)
    this.#pc.onnegotiationneeded = this.#pc.onicecandidate = null
    this.#stop()
  }

  async #offer (): Promise<void> {
    this.#wanted = this.#waiting
    if (this.#waiting || !this.#open) return
    try {
      this.#offering = true
      await this.#pc.setLocalDescription()
      // If an offer of the other side has just arrived, this description is an answer.
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
    this.#ignoring = collision && !this.#link.polite
    if (this.#ignoring) return
    // The answer is for an offer that was withdrawn.
    if (description.type === 'answer' && pc.signalingState === 'stable') return
    this.#answering = description.type === 'answer'
    try {
      await pc.setRemoteDescription(description)
    } finally {
      this.#answering = false
    }
    // If anything is still to be negotiated, the browser fires `negotiationneeded` again.
    this.#waiting = this.#wanted = false
    if (description.type !== 'offer') return
    await pc.setLocalDescription()
    if (this.#open) this.#describe()
  }

  async #candidate (candidate: Signal): Promise<void> {
    // The value is read before the wait, because it may change when the next description arrives.
    const ignoring = this.#ignoring
    try {
      await this.#pc.addIceCandidate(candidate as RTCIceCandidateInit)
    } catch (error) {
      // An invalid candidate is not a failure, because ICE can use the other candidates.
      if (!ignoring && (error as Error).name !== 'OperationError') throw error
    }
  }

  get #open (): boolean {
    return this.#pc.signalingState !== 'closed'
  }

  #failed (cause: unknown): void {
    if (this.#open) this.#link.fault(cause)
  }

  #describe (): void {
    const { type, sdp } = this.#pc.localDescription!
    this.#send(type as SignalType, { type, sdp })
  }

  #send (type: SignalType, data: Signal): void {
    this.#link.relay(type, { ...data, from: this.tag, to: this.remote } as Signal)
  }
}
