//! The rules of a hub, without I/O: callers pass inputs in and take outputs out.
//!
//! # Contract
//!
//! [`Router`] has the rules of one shard. A router has no sockets, no clock, no randomness and no tasks. Drive it like
//! this:
//!
//! 1. Call [`Router::handle_input`] with one [`Input`], or [`Router::handle_timeout`].
//! 2. Call [`Router::poll_output`] until it returns `None`, and perform each [`Output`] in order.
//! 3. Wait for the next input, or until [`Router::poll_timeout`].
//!
//! Drain all outputs of an input before the next input. An output may point into the router's arena, which the next
//! input overwrites. The router requests actions by outputs and receives the results as inputs, so nothing has to be
//! mocked: the simulator is a second driver of the same code.
//!
//! ```
//! use std::time::Duration;
//! use proto::{HubId, Input, Keys, MessageKind, Now, Output, PeerId, ResumeKeys, Router, RouterConfig, SessionId};
//!
//! // A real caller draws the id and the keys at random, reads the clock and opens the socket.
//! let hub = HubId(PeerId::from_bytes([9; 20]));
//! let resume_keys = ResumeKeys::new("mesh", b"secret", None);
//! let mut router = Router::new(RouterConfig::single(hub, Keys(1, 2), resume_keys));
//! let now = Now { at: Duration::ZERO, wall_ms: 1_700_000_000_000 };
//! let session = SessionId { slot: 0, generation: 0 };
//! let peer = "0123456789abcdef0123456789abcdef01234567".parse()?;
//!
//! let mut sent = Vec::new();
//! let opened = Input::Opened { session, peer, seat: true, resume: None, owner: false, grant: None };
//! for input in [opened, Input::Message { session, text: r#"{"type":"ping"}"# }] {
//!     router.handle_input(input, now);
//!     while let Some(output) = router.poll_output() {
//!         match output {
//!             Output::Send { kind, .. } => sent.push(kind), // Append the frame to the session's send queue.
//!             _ => {}                                       // Start to read, close, post a letter, ...
//!         }
//!     }
//! }
//! assert_eq!(sent, [MessageKind::Connected, MessageKind::Pong]);
//! # Ok::<_, proto::ParseIdError>(())
//! ```
//!
//! [`Relay`] holds the rules between hubs and has the same contract, with [`RelayInput`] and [`RelayOutput`].
//!
//! # What this crate will never do
//!
//! The rules never wait, and never panic on input of clients or hubs. The rules never read a clock or draw a random
//! number. The caller passes both as arguments (see [`Now`] and [`Keys`]). This crate never depends on tokio, hyper,
//! redis or metrics.

mod budget;
mod bugs;
mod claim;
mod codec;
pub mod envelope;
mod grant;
mod ice;
mod id;
mod isolated;
pub mod keepalive;
mod keys;
pub mod limits;
mod link_auth;
mod outbox;
mod outputs;
mod phase;
pub mod proof;
pub mod proxied;
mod reason;
mod redacted;
mod relay;
mod resume;
mod route;
mod router;
mod secret;
mod sentences;
mod time;
pub mod trace;
mod tuning;
mod turns;
mod wire;
#[cfg(test)]
mod words;
pub mod ws;

pub use budget::{Allowance, Budget, BudgetItem, BudgetOwner, BudgetRates};
pub use bugs::{BugCounts, BugNote, BugSite, Bugs};
pub use claim::Claim;
pub use codec::{Announce, ClientMessage, Discover, Goodbye, RefusedMessage, Signal, parse};
pub use envelope::Envelope;
pub use grant::{Grant, GrantTooLarge, Rights};
pub use ice::{IceServers, Turn};
pub use id::{HubId, HubIncarnation, LinkId, NetworkName, ParseIdError, PeerId, PeerIncarnation, SessionId, ShardId};
pub use isolated::isolated;
pub use keys::Keys;
pub use link_auth::{LINK_SCHEME, LinkAuth, LinkChallenges, LinkCredentials, StaleChallenge};
pub use outbox::Outbox;
pub use phase::SessionPhase;
pub use reason::{CloseReason, ErrorCode, LeaveReason, Outcome};
pub use redacted::Redacted;
pub use relay::{
    Destination, HubView, MeshEvent, PresenceRefusal, Relay, RelayConfig, RelayInput, RelayOutput, RelayStats,
    Transport,
};
pub use resume::{Lineage, ResumeKeys, ResumeOutcome, Right, Secret};
pub use route::{Address, Hop};
pub use router::{
    Acted, Announcement, Asker, Discovery, Flooder, Frame, Input, KickedFrom, Leave, Letter, ListedMember, Meeting,
    MeetingEnd, MeetingKind, Order, Origin, OutcomeLetter, Output, PeerEvent, Router, RouterConfig, RouterStats,
    Sender, SignalLetter, Standing, Stay, ToMesh, ToShard,
};
pub use secret::is_secret;
pub use time::Now;
pub use tuning::{RelayTuning, RouterTuning, Slices};
pub use turns::TurnLengths;
pub use wire::{CLIENT_SUBPROTOCOL, MessageKind, SignalKind, Template};
