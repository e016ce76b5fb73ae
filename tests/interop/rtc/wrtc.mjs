import wrtc from '@roamhq/wrtc'

export class RTCPeerConnection extends wrtc.RTCPeerConnection {
  // In this library, the argument is required.
  async setLocalDescription (description) {
    description ??= this.signalingState === 'have-remote-offer' ? await this.createAnswer() : await this.createOffer()
    return super.setLocalDescription(description)
  }
}
