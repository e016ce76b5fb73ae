//! Isolation of parsers: a defect in one affects only the sender of its input.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a parser. `None` if it panicked; the panic hook has reported it.
///
/// A parser owns nothing but its input, so a panic leaves nothing half changed. Do not use it for the rules: all peers
/// of a shard share them, and a panic may leave them half changed.
pub fn isolated<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
