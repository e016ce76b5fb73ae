//! Parsers, kept apart: a defect in one concerns its input alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a parser. `None` if it panicked; the panic hook has reported it.
///
/// A parser owns nothing but its input, so whatever it left half done is gone with it. A panic in the rules is different: they are shared
/// by all peers of a shard, may be half changed, and must not be caught.
pub fn isolated<T>(parse: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(parse)).ok()
}
