//! What the fuzz targets do with their bytes. `proto/tests/fuzz.rs` does the same with a few random ones in every test run.

mod client_message;
mod proxied;
mod router;
mod ws_frames;

pub use client_message::client_message;
pub use proxied::proxied;
pub use router::router;
pub use ws_frames::ws_frames;
