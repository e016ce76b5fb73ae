//! The functions of the fuzz targets that need no crate of the hub except `proto`. `proto/tests/fuzz.rs` runs them with
//! their corpora in every test run.

mod client_message;
mod envelopes;
mod proxied;
mod relay;
mod router;
mod ws_frames;

pub use client_message::client_message;
pub use envelopes::envelopes;
pub use proxied::proxied;
pub use relay::{relay, relay_heals};
pub use router::router;
pub use ws_frames::ws_frames;
