//! The state of one link.

use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use proto::envelope::Hello;
use proto::limits::{CLOSE_LINGER, LEGACY_PATIENCE, LINK_HELLO_TIMEOUT, LINK_PING_INTERVAL};
use proto::ws::{FrameReader, Speaker};
use proto::{Bugs, HubId, HubIncarnation, LinkAuth, LinkId, bug};

use crate::core::{LinkTrace, NewLink};
use crate::dial::TargetId;
use crate::queue::LinkQueue;
use crate::stats::{LinkEnd, LinkView};

/// The phase of a link:
///
/// ```text
///             hello sent back            confirmed            replaced, or this hub stops
///           ┌─────────────────▶ Answered ─────────┐        ┌─────────────────▶ Retiring
///           │  (accepted)          │              ▼        │                      │
/// ──▶ Greeting ───────────────────────────────▶ Ready ─────┤                      │
///           │   (dialed, legacy)   │                       │                      │
///           └──────────────────────┴───────────┬───────────┴──────────────────────┘
///                                              ▼   refused, closed, malformed
///                                           Closing ──▶ removed
/// ```
///
/// A link whose socket has failed is removed in any phase.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The other side has not sent its hello yet.
    Greeting,
    /// An accepted link: both sides have sent their hellos, and the dialer must confirm.
    Answered(Box<Hello>),
    /// The link is in use.
    Ready,
    /// Another link replaces this one, or this hub stops. Envelopes received on the link are still processed.
    Retiring,
    /// This end writes its last bytes, and waits for the other end's close frame or for the end of the stream.
    Closing,
}

impl Phase {
    /// Whether `next` can follow this phase. A closing link may be closed again, for another reason.
    fn may_become(&self, next: &Self) -> bool {
        match self {
            Self::Greeting => matches!(next, Self::Answered(_) | Self::Ready | Self::Closing),
            Self::Answered(_) => matches!(next, Self::Ready | Self::Closing),
            Self::Ready => matches!(next, Self::Retiring | Self::Closing),
            Self::Retiring | Self::Closing => matches!(next, Self::Closing),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Answered(_) => "answered",
            Self::Ready => "ready",
            Self::Retiring => "retiring",
            Self::Closing => "closing",
        }
    }
}

/// A message of envelopes that has been processed in part.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) message: Vec<u8>,
    /// Number of bytes already processed.
    pub(crate) at: usize,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// The id of the other hub. On an accepted link, the id comes from the request until the hello arrives.
    pub(crate) hub: Option<HubId>,
    /// The incarnation in the other hub's hello.
    pub(crate) incarnation: HubIncarnation,
    /// The process number in the other hub's hello; 0 for hubs before version 2.1.
    pub(crate) process: u64,
    pub(crate) address: SocketAddr,
    /// The dialed target.
    pub(crate) target: Option<(TargetId, String)>,
    pub(crate) legacy: bool,
    pub(crate) auth: LinkAuth,
    phase: Phase,
    /// Whether the relay has been notified that the link began, but not yet that it ended.
    up: bool,
    /// Time at which both ends agreed to use the link.
    ready_at: Option<Duration>,
    /// Why the link ends.
    end: Option<LinkEnd>,
    /// Why the link ends, in the words of the other side.
    pub(crate) why: String,
    /// Whether the other side will send nothing more, so that the socket closes as soon as the queue is empty.
    pub(crate) other_done: bool,
    /// Whether later data is dropped, because malformed data has arrived, or because the messages of the link took too
    /// much memory.
    pub(crate) deaf: bool,
    pub(crate) queue: LinkQueue,
    pub(crate) reader: FrameReader,
    /// Whether there may be unprocessed bytes in the reader or in `unread`: bytes that arrived with the upgrade, or
    /// bytes for which the last turn had no time.
    pub(crate) replay: bool,
    /// The remaining bytes of the message that the last turn did not finish, which precede the bytes in the reader.
    pub(crate) unread: Option<Unread>,
    /// Wakes the link's task.
    waker: Option<Waker>,
    /// Whether the link is paused until links are read again.
    pub(crate) parked: bool,
    pub(crate) last_heard: Duration,
    /// Time at which bytes were last written, or the first byte was queued.
    pub(crate) last_progress: Duration,
    pub(crate) next_ping: Duration,
    pub(crate) rtt: Option<Duration>,
    /// Bytes read, and bytes written.
    pub(crate) bytes: [u64; 2],
    /// Whether the relay has been notified that the link is saturated, and not yet that it has room again.
    pub(crate) saturated: bool,
    /// Whether the relay has more to send.
    pub(crate) backlog: bool,
    pub(crate) since: Duration,
    /// Deadline of the current phase.
    deadline: Option<Duration>,
    /// The link's trace. `None` if the hub does not trace.
    pub(crate) trace: Option<LinkTrace>,
}

impl Link {
    /// A link for a socket, in the phase [`Phase::Greeting`]. `max_message` is the maximum length of a message.
    pub(crate) fn new(adopted: NewLink, max_message: usize, now: Duration) -> Self {
        let NewLink { address, target, hub, legacy, auth, leftover, trace } = adopted;
        let dialed = target.is_some();
        let speaker = if dialed { Speaker::Server } else { Speaker::Client };
        Self {
            hub,
            incarnation: HubIncarnation::default(),
            process: 0,
            address,
            target,
            legacy,
            auth,
            phase: Phase::Greeting,
            up: false,
            ready_at: None,
            end: None,
            why: String::new(),
            other_done: false,
            deaf: false,
            queue: LinkQueue::new(dialed),
            replay: !leftover.is_empty(),
            unread: None,
            reader: FrameReader::new(speaker, max_message, leftover.into()),
            waker: None,
            parked: false,
            last_heard: now,
            last_progress: now,
            next_ping: now + LINK_PING_INTERVAL,
            rtt: None,
            bytes: [0; 2],
            saturated: false,
            backlog: false,
            since: now,
            deadline: Some(now + LINK_HELLO_TIMEOUT),
            trace,
        }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Moves the link to the next phase, and wakes its task. A link that is ready has no deadline, and a link that ends
    /// must be closed within [`CLOSE_LINGER`]. The deadline of a greeting also covers the confirmation.
    pub(crate) fn advance(&mut self, next: Phase, id: LinkId, now: Duration, bugs: &mut Bugs) {
        if !self.phase.may_become(&next) {
            bug!(bugs, LinkLife, "{id:?} goes from {} to {}", self.phase.name(), next.name());
        }
        match next {
            Phase::Greeting | Phase::Answered(_) => {}
            Phase::Ready => (self.deadline, self.up, self.ready_at) = (None, true, Some(now)),
            Phase::Retiring | Phase::Closing => self.deadline = Some(now + CLOSE_LINGER),
        }
        self.phase = next;
        self.wake();
    }

    /// Whether the deadline of the current phase has passed.
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether the relay has been notified that the link began, but not yet that it ended.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Records that the relay is notified of the link's end. Returns whether the relay has to be notified.
    pub(crate) fn take_up(&mut self) -> bool {
        std::mem::take(&mut self.up)
    }

    /// Time at which both ends agreed to use the link.
    pub(crate) fn ready_at(&self) -> Option<Duration> {
        self.ready_at
    }

    /// Records why the link ends. The first reason counts.
    pub(crate) fn set_end(&mut self, end: LinkEnd) {
        self.end.get_or_insert(end);
    }

    /// Why the link ends.
    pub(crate) fn end(&self) -> Option<LinkEnd> {
        self.end
    }

    /// Sets the waker of the link's task.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|own| !own.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    pub(crate) fn dialed(&self) -> bool {
        self.target.is_some()
    }

    /// Whether a close frame is queued, after which nothing may be sent.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Retiring | Phase::Closing)
    }

    /// Memory for a message that has not arrived or been processed completely.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.reader.kept_bytes() + self.unread.as_ref().map_or(0, |unread| unread.message.capacity())
    }

    /// Whether received data is dropped.
    pub(crate) fn is_deaf(&self) -> bool {
        self.other_done || self.deaf
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether this hub has read everything that a Go hub sends right after it dials, or has waited [`LEGACY_PATIENCE`]
    /// for it. True for all other links.
    ///
    /// A Go hub announces its peers before it reads anything, and so before it answers the first ping. Later, the Go
    /// hub receives announcements and echoes them. So after the pong, the Go hub's own announcements cannot be reliably
    /// distinguished from echoes.
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
            bytes: self.bytes,
            queued_bytes: self.queue.len_bytes(),
            saturated: self.saturated,
            legacy: self.legacy,
            auth: self.auth,
            since: self.since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        let adopted = NewLink {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            target: None,
            hub: None,
            legacy: false,
            auth: LinkAuth::Nothing,
            leftover: bytes::Bytes::new(),
            trace: None,
        };
        Link::new(adopted, 1000, Duration::ZERO)
    }

    #[test]
    fn a_link_has_a_deadline_in_each_phase_except_ready() {
        let (mut link, mut bugs, hour) = (link(), Bugs::default(), Duration::from_secs(3600));
        assert!(link.is_overdue(LINK_HELLO_TIMEOUT) && !link.is_up());
        link.advance(Phase::Ready, LinkId(1), hour, &mut bugs);
        assert!(!link.is_overdue(2 * hour) && link.is_up());
        link.advance(Phase::Retiring, LinkId(1), hour, &mut bugs);
        assert!(!link.is_overdue(hour) && link.is_overdue(hour + CLOSE_LINGER));
        assert!(link.take_up() && !link.take_up(), "the end is reported once");
    }

    #[test]
    #[should_panic(expected = "impossible state link-life: LinkId(1) goes from closing to ready")]
    fn a_link_that_closes_is_not_used_again() {
        let (mut link, mut bugs) = (link(), Bugs::default());
        link.advance(Phase::Closing, LinkId(1), Duration::ZERO, &mut bugs);
        link.advance(Phase::Ready, LinkId(1), Duration::ZERO, &mut bugs);
    }
}
