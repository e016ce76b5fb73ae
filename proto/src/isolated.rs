//! Isolates parsers, so that a panic of a parser affects only the sender of the input.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a parser. Returns `None` if it panicked. The panic hook has reported the panic.
///
/// A parser changes no state outside its own call, so a panic leaves no state half changed. Do not use this function
/// for the rules. All peers of a shard share the state of the rules, which a panic could leave half changed.
pub fn isolated<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
