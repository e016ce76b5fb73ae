//! Isolation of parsers: a defect in a parser affects only the sender of its input.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a parser. Returns `None` if it panicked. The panic hook has reported the panic.
///
/// A parser owns nothing but its input, so a panic leaves nothing half changed. Do not use it for the rules: all peers
/// of a shard share their state, and a panic may leave it half changed.
pub fn isolated<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
