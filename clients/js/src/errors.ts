import type { Peer } from './api.js'

/** The kinds of errors, for programs. */
export type ErrorCode =
  // Errors of the hub.
  | 'hub-unreachable' | 'hub-full' | 'hub-leaving' | 'unauthorized' | 'forbidden' | 'kicked' | 'bad-url' | 'id-in-use' | 'protocol' | 'unsupported'
  // Errors of a link to a peer.
  | 'peer-gone' | 'ice-failed' | 'negotiation' | 'passphrase'
  // Errors of a call of yours.
  | 'too-large' | 'queue-full' | 'not-serializable' | 'refused' | 'timeout' | 'left'

/** Where each code is explained. */
const DOCS = 'https://github.com/PeerPigeon/PeerPigeon-Rust/blob/main/docs/client.md#'

/** Every error of this client. `message` has the code and what happened. `hint` is the URL of the section that says what to do. */
export class PigeonError extends Error {
  override readonly name = 'PigeonError'
  /** For programs; see {@link ErrorCode}. */
  declare readonly code: ErrorCode
  /** Whether the error is final: the client makes no further attempt. */
  declare readonly final: boolean
  /** URL of the section that says what to do. */
  declare readonly hint: string
  /** The peer that the error concerns, if any. */
  declare readonly peer?: Peer

  constructor (code: ErrorCode, detail: string | number, more: { final?: boolean, cause?: unknown } = {}) {
    super(`${code}: ${detail}`, more)
    this.code = code
    this.final = !!more.final
    this.hint = DOCS + code
  }
}
