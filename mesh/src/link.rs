//! The state of one link.

use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use proto::envelope::Hello;
use proto::limits::LEGACY_PATIENCE;
use proto::ws::FrameReader;
use proto::{HubId, HubIncarnation, LinkAuth, LinkId};

use crate::core::LinkTrace;
use crate::dial::TargetId;
use crate::queue::LinkQueue;
use crate::stats::{LinkEnd, LinkView};

/// The phase of a link.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The other side has not sent its hello yet.
    Greeting,
    /// An accepted link: both sides have sent their hellos, and the dialer must confirm.
    Answered(Box<Hello>),
    /// The link is in use.
    Ready,
    /// The link is being replaced. Envelopes received on a retiring link are still processed.
    Retiring,
    /// This end writes its last bytes, and waits for the other end's close frame or for the end of the stream.
    Closing,
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
    pub(crate) phase: Phase,
    /// Whether the relay has been notified that the link began, but not yet that it ended.
    pub(crate) up: bool,
    /// Time at which both ends agreed to use the link.
    pub(crate) ready_at: Option<Duration>,
    /// Why the link ends.
    pub(crate) end: Option<LinkEnd>,
    /// The reason that the other side gave for the end of the link.
    pub(crate) why: String,
    /// Whether the other side will send nothing more, so that the socket closes as soon as the queue is empty.
    pub(crate) other_done: bool,
    /// Whether malformed data has arrived, after which later data cannot be parsed.
    pub(crate) deaf: bool,
    pub(crate) queue: LinkQueue,
    pub(crate) reader: FrameReader,
    /// Whether the reader has unprocessed bytes: bytes that arrived with the upgrade, or bytes for which the last turn
    /// had no time.
    pub(crate) replay: bool,
    /// The remaining bytes of the message that the last turn did not finish, which precede the bytes in the reader.
    pub(crate) unread: Option<Unread>,
    /// Wakes the link's task.
    pub(crate) waker: Option<Waker>,
    /// Whether the link is paused until links are read again.
    pub(crate) parked: bool,
    pub(crate) last_heard: Duration,
    /// Time at which bytes were last written, or the first byte was queued.
    pub(crate) last_progress: Duration,
    pub(crate) next_ping: Duration,
    pub(crate) rtt: Option<Duration>,
    /// Bytes read, and bytes written.
    pub(crate) bytes: [u64; 2],
    /// Whether the relay knows that the link's queue is above the high-water mark.
    pub(crate) saturated: bool,
    /// Whether the relay has more to send.
    pub(crate) backlog: bool,
    pub(crate) since: Duration,
    /// Deadline of the current phase.
    pub(crate) deadline: Option<Duration>,
    /// The link's trace. `None` if the hub does not trace.
    pub(crate) trace: Option<LinkTrace>,
}

impl Link {
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

    /// Whether received data can no longer be parsed.
    pub(crate) fn is_deaf(&self) -> bool {
        self.other_done || self.deaf
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether this hub has read everything that a Go hub sends right after it dials.
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
