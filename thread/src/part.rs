//! What the loops of both kinds of threads share.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use proto::BugNote;
use proto::ws::{Event, Reader, Violation};
use tokio::task::JoinError;

use crate::planted;

/// Panics if one of a part's own loops has panicked, since nobody would do its work.
pub fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        resume_unwind(error.into_panic());
    }
}

/// Logs an impossible state.
pub fn log_bug(BugNote { site, place, context }: &BugNote) {
    tracing::error!(site = site.label(), place, context, "bug_found");
}

/// Parses bytes of one socket, and handles each event with the rules. `None` if the parser panicked: its defect concerns
/// these bytes alone.
///
/// # Panics
///
/// When `handle` panics. The rules are shared and may be half changed.
pub fn read_isolated(
    reader: &mut Reader,
    bytes: &mut [u8],
    mut handle: impl FnMut(Event<'_>) -> ControlFlow<()>,
) -> Option<Result<(), Violation>> {
    let mut in_rules = false;
    let read = catch_unwind(AssertUnwindSafe(|| {
        planted("parser");
        reader.read(bytes, |event| {
            in_rules = true;
            let flow = handle(event);
            in_rules = false;
            flow
        })
    }));
    match read {
        Ok(read) => Some(read),
        Err(panic) if in_rules => resume_unwind(panic),
        Err(_) => None,
    }
}
