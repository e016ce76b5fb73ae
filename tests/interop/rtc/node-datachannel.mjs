import { PeerConnection } from 'node-datachannel'
import { RTCPeerConnection as Polyfill } from 'node-datachannel/polyfill'

const encode = encodeURIComponent
const addresses = ({ urls, username, credential }) =>
  [urls].flat().map(url => username ? url.replace(':', `:${encode(username)}:${encode(credential)}@`) : url)

export class RTCPeerConnection extends Polyfill {
  #native
  #started = false

  constructor (configuration) {
    const iceServers = configuration.iceServers.flatMap(addresses)
    const native = new PeerConnection('', { ...configuration, iceServers, disableAutoNegotiation: true })
    super({ ...configuration, peerConnection: native })
    this.#native = native
  }

  createDataChannel (...options) {
    if (!this.#started) queueMicrotask(() => this.onnegotiationneeded?.())
    this.#started = true
    return super.createDataChannel(...options)
  }

  async setLocalDescription () {
    this.#native.setLocalDescription(this.signalingState === 'have-remote-offer' ? 'answer' : 'offer')
  }

  // The library cannot restart ICE. The client makes a new connection some seconds later.
  restartIce () {}
}
