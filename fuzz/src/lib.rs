//! The bodies of the fuzz targets. `proto/tests/fuzz.rs` runs them with random bytes in every test run.

mod client_message;
mod proxied;
mod router;
mod ws_frames;

pub use client_message::client_message;
pub use proxied::proxied;
pub use router::router;
pub use ws_frames::ws_frames;
