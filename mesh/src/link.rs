//! One link: what the core keeps of it, and the task that owns its socket.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proto::envelope::Hello;
use proto::limits::LEGACY_PATIENCE;
use proto::ws::Reader;
use proto::{HubId, HubIncarnation, LinkId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::core::Core;
use crate::dial::TargetId;
use crate::queue::LinkQueue;
use crate::stats::{LinkEnd, LinkView};
use crate::stream::Stream;

/// How far a link's life has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The other side has not said who it is.
    Greeting,
    /// It has dialed, and both have said; it is for it to say that it goes on.
    Answered(Box<Hello>),
    /// In use.
    Ready,
    /// Told to go, and still heard: what was under way counts.
    Retiring,
    /// Only its close frame or end is waited for, and that the last bytes leave.
    Closing,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// Who; of an accepted link, as its request said.
    pub(crate) hub: Option<HubId>,
    /// The life in which the other hub said hello.
    pub(crate) incarnation: HubIncarnation,
    /// The process that said it; 0: a hub before 2.1.
    pub(crate) process: u64,
    pub(crate) address: SocketAddr,
    /// What was dialed.
    pub(crate) target: Option<(TargetId, String)>,
    pub(crate) legacy: bool,
    pub(crate) phase: Phase,
    /// The relay has been told of it, and not of its end.
    pub(crate) up: bool,
    /// When both ends had agreed to use it, if they have.
    pub(crate) ready_at: Option<Duration>,
    /// Why it ends, once it does.
    pub(crate) end: Option<LinkEnd>,
    /// What the other side said to that.
    pub(crate) why: String,
    /// Nothing more comes: the socket closes when the queue is empty.
    pub(crate) other_done: bool,
    /// What came was not of the form: what comes behind it cannot be understood.
    pub(crate) deaf: bool,
    pub(crate) queue: LinkQueue,
    pub(crate) reader: Reader,
    /// Something came with the upgrade and has not been read.
    pub(crate) replay: bool,
    /// The link's task.
    pub(crate) waker: Option<Waker>,
    /// Waits until links are read again.
    pub(crate) parked: bool,
    pub(crate) last_heard: Duration,
    /// When something was last written, or began to wait.
    pub(crate) last_progress: Duration,
    pub(crate) next_ping: Duration,
    pub(crate) rtt: Option<Duration>,
    /// The relay has been told that too much waits.
    pub(crate) saturated: bool,
    /// The relay has more to say.
    pub(crate) backlog: bool,
    pub(crate) since: Duration,
    /// When a phase that has a time ends.
    pub(crate) deadline: Option<Duration>,
}

impl Link {
    pub(crate) fn dialed(&self) -> bool {
        self.target.is_some()
    }

    /// Whether a close frame has been queued: nothing may follow it.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Retiring | Phase::Closing)
    }

    /// Whether what comes cannot be understood any more.
    pub(crate) fn is_deaf(&self) -> bool {
        self.other_done || self.deaf
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether what a Go hub says when it dials has been read.
    ///
    /// It says that its peers are there before it reads anything, and so before it answers the first ping. What is announced to it
    /// later it repeats: only before that are its own words and repetitions told apart for certain.
    pub(crate) fn has_been_heard_out(&self, now: Duration) -> bool {
        !self.legacy || self.dialed() || self.rtt.is_some() || now >= self.since + LEGACY_PATIENCE
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn view(&self, link: LinkId) -> LinkView {
        LinkView {
            link,
            hub: self.hub,
            address: self.address,
            url: self.target.as_ref().map(|(_, url)| url.clone()),
            dialed: self.dialed(),
            ready: self.is_ready(),
            rtt: self.rtt,
            queued_bytes: self.queue.len_bytes(),
            saturated: self.saturated,
            legacy: self.legacy,
            since: self.since,
        }
    }
}

/// Reads of one link in a row, before others have their turn.
const READS_PER_TURN: usize = 4;

/// Runs a link until its socket is closed.
pub(crate) async fn run(core: Rc<RefCell<Core>>, id: LinkId, mut stream: Stream) {
    std::future::poll_fn(|cx| {
        let done = drive(&core, id, &mut stream, cx);
        if done.is_ready() {
            // The end of the stream, if the socket takes one at once; else its close says the same.
            _ = Pin::new(&mut stream).poll_shutdown(cx);
        }
        done
    })
    .await;
}

fn drive(core: &RefCell<Core>, id: LinkId, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
    let mut core = core.borrow_mut();
    if write(&mut core, id, stream, cx).is_err() {
        core.lost(id);
        return Poll::Ready(());
    }
    for _ in 0..READS_PER_TURN {
        let busy = core.is_stalled();
        let Some(link) = core.link_mut(id) else { return Poll::Ready(()) };
        if link.other_done {
            return Poll::Pending;
        }
        if busy && !matches!(link.phase, Phase::Closing) {
            core.park(id);
            return Poll::Pending;
        }
        if std::mem::take(&mut link.replay) {
            core.received(id, &mut []);
            continue;
        }
        let mut buffer = core.take_read_buffer();
        let mut into = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut *stream).poll_read(cx, &mut into);
        let n = into.filled().len();
        match polled {
            Poll::Pending => {
                core.restore_read_buffer(buffer);
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) if n > 0 => core.received(id, &mut buffer[..n]),
            Poll::Ready(Ok(()) | Err(_)) => core.lost(id),
        }
        core.restore_read_buffer(buffer);
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Writes what waits, until there is nothing or the socket takes no more.
fn write(core: &mut Core, id: LinkId, stream: &mut Stream, cx: &mut Context<'_>) -> std::io::Result<()> {
    loop {
        let Some(link) = core.link_mut(id) else { return Ok(()) };
        if link.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            link.waker = Some(cx.waker().clone());
        }
        let bytes = link.queue.unwritten();
        if bytes.is_empty() {
            break;
        }
        match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => core.wrote(id, n),
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    if let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_flush(cx) {
        return Err(error);
    }
    core.rested(id);
    Ok(())
}
