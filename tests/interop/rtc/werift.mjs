export { RTCPeerConnection } from 'werift'
