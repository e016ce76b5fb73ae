//! Code shared by the loops of shard and mesh threads.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use proto::BugNote;
use proto::limits::TICK;
use proto::ws::{Event, FrameReader, Violation};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinError;

use crate::planted;

/// Panics if one of a part's tasks has panicked, because no other task does its work.
pub fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        resume_unwind(error.into_panic());
    }
}

/// Logs an impossible state.
pub fn log_bug(BugNote { site, place, context }: &BugNote) {
    tracing::error!(site = site.label(), place, context, "bug_found");
}

/// Processes letters from other threads until the mailbox is closed. `process` takes as many letters as fit into one
/// turn. The next turn begins when all other ready tasks have had a turn and `is_held` returns false.
pub async fn read_mail<L>(
    mut mailbox: mpsc::Receiver<Vec<L>>,
    mut process: impl FnMut(&mut std::vec::IntoIter<L>),
    is_held: impl Fn() -> bool,
) {
    while let Some(letters) = mailbox.recv().await {
        let mut letters = letters.into_iter();
        while !letters.as_slice().is_empty() {
            process(&mut letters);
            // Sessions and links that have data to read get their turn.
            tokio::task::yield_now().await;
            while is_held() {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Calls `tick` once per [`TICK`], without end. A late tick delays all later ticks, so two ticks never follow each
/// other immediately.
pub async fn each_tick(mut tick: impl FnMut()) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tick();
    }
}

/// Reads once from a socket into `buffer`. Returns the number of bytes, or 0 at the end of the stream.
///
/// # Errors
///
/// Errors of the socket.
pub fn poll_read(
    socket: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Parses bytes of one socket, and passes each event to `handle`. Returns `None` if the parser panicked. A panic of the
/// parser affects only this socket.
///
/// # Panics
///
/// If `handle` panics, because the state of the rules is shared and may be half changed.
pub fn read_isolated(
    reader: &mut FrameReader,
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
