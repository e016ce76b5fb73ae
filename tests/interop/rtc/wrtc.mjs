import wrtc from '@roamhq/wrtc'

export class RTCPeerConnection extends wrtc.RTCPeerConnection {
  #last = Promise.resolve()

  // Browsers call these functions one after another, allow an offer or answer to be missing, and withdraw their own offer
  // when they receive another one.
  #next (task) {
    return this.#last = this.#last.catch(() => {}).then(task)
  }

  setLocalDescription (description) {
    return this.#next(async () => {
      description ??= this.signalingState === 'have-remote-offer' ? await this.createAnswer() : await this.createOffer()
      await super.setLocalDescription(description)
    })
  }

  setRemoteDescription (description) {
    return this.#next(async () => {
      if (description.type === 'offer' && this.signalingState === 'have-local-offer') {
        await super.setLocalDescription({ type: 'rollback' })
      }
      await super.setRemoteDescription(description)
    })
  }
}
