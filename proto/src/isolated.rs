//! Isolation of parsers: a parser that panics affects only the sender of its input.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a parser. Returns `None` if it panicked. The panic hook has reported the panic.
///
/// A parser owns nothing but its input, so a panic leaves nothing half changed. Do not use this function for the rules:
/// all peers of a shard share the state of the rules, and a panic may leave it half changed.
pub fn isolated<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
