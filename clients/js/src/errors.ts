import type { Peer } from './api.js'

/** The kinds of errors, for programs. */
export type ErrorCode =
  // Errors of the hub.
  | 'hub-unreachable' | 'hub-full' | 'hub-leaving' | 'unauthorized' | 'forbidden' | 'kicked' | 'bad-url' | 'id-in-use' | 'protocol' | 'unsupported'
  // Errors of a link to a peer.
  | 'peer-gone' | 'ice-failed' | 'negotiation' | 'passphrase'
  // Errors of calls, and of messages to the hub.
  | 'too-large' | 'queue-full' | 'not-serializable' | 'refused' | 'timeout' | 'left'

/** The page that explains each code in its own section. */
const DOCS = 'https://github.com/PeerPigeon/PeerPigeon-Rust/blob/main/docs/client.md#'

/** An error of this client. `message` contains the code and what happened. `hint` is the URL of an explanation that says what to do. */
export class PigeonError extends Error {
  override readonly name = 'PigeonError'
  /** For programs; see {@link ErrorCode}. */
  declare readonly code: ErrorCode
  /** Whether the error is final, so that the client makes no further attempt. */
  declare readonly final: boolean
  /** URL of an explanation of the error, which says what to do. */
  declare readonly hint: string
  /** The peer that the error concerns, if any. */
  declare readonly peer?: Peer

  constructor (code: ErrorCode, detail: string | number, more: { final?: boolean, cause?: unknown } = {}) {
    super(code + ': ' + detail, more)
    this.code = code
    this.final = !!more.final
    this.hint = DOCS + code
  }
}
