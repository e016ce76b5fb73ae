/**
 * Features that not every page needs: media, a passphrase, and the route to a peer.
 *
 * @module extras
 */
export { publish, streams, type Publication, type PublishOptions, type StreamEvents, type Streams } from './media.js'
export { passphrase } from './passphrase.js'
export { route, type Route } from './route.js'
export { serveSockets, workerSocket } from './worker.js'
