//! The state of one WebSocket on its home shard.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use proto::keepalive::Life;
use proto::{Bugs, CloseReason, Grant, Lineage, PeerId, SessionId, SessionPhase};
use tokio::sync::OwnedSemaphorePermit;

use crate::Gauges;
use crate::core::{JoinTrace, WriteState};
use crate::crowd::Place;
use crate::fair::Meter;
use crate::queue::SendQueue;
use crate::reading::ReadState;
use crate::socket::{Socket, Writer};

/// An upgraded socket on its way from the shard that accepted it to its peer's home shard.
#[derive(Debug)]
pub(crate) struct HandOff {
    pub(crate) socket: Socket,
    /// Bytes that arrived after the request. The hub must process these bytes before it processes bytes from the
    /// socket.
    pub(crate) leftover: Bytes,
    pub(crate) arrival: Arrival,
}

impl HandOff {
    /// Returns the socket, the state of its TLS, the leftover bytes and the data of the session.
    pub(crate) fn into_parts(self) -> (TcpStream, Option<Box<tls::Connection>>, Vec<u8>, Arrival) {
        let Self { socket: Socket { stream, tls }, leftover, arrival } = self;
        // The bytes are copied, because a conversion in place would keep hyper's whole buffer until the session ends.
        (stream, tls, leftover.to_vec(), arrival)
    }
}

/// What the hub knows about a peer from its request, before the peer has a session.
#[derive(Debug)]
pub(crate) struct PeerRequest {
    pub(crate) peer: PeerId,
    /// The lineage that the peer's resume secret proves. `None` if the peer sent no valid secret.
    pub(crate) resume: Option<Lineage>,
    /// Whether the peer has proven that the id is its own.
    pub(crate) owner: bool,
    /// The key whose hash is the id. Before the session begins, the client must prove that it has the private key.
    pub(crate) key: Option<[u8; 32]>,
    /// What the peer's token allows. With `None`, the peer may do everything.
    pub(crate) grant: Option<Box<Grant>>,
    /// Whether the client offers [`CLIENT_SUBPROTOCOL`](proto::CLIENT_SUBPROTOCOL).
    pub(crate) names_protocol: bool,
}

/// A peer whose request was accepted, and that has no session yet.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) request: PeerRequest,
    pub(crate) address: SocketAddr,
    pub(crate) seat: Seat,
}

/// A session's claim to one of MAX_CONNECTIONS seats. Dropping it frees the seat. A session that found no free seat is
/// admitted only if it replaces another session.
#[derive(Debug)]
pub(crate) struct Seat {
    gauges: Arc<Gauges>,
    max: usize,
    taken: bool,
    /// The permit for the socket's file descriptor, and the socket's place among the connections of its address.
    held: Option<(OwnedSemaphorePermit, Option<Place>)>,
}

impl Seat {
    /// Takes a seat if one is free.
    pub(crate) fn request(gauges: &Arc<Gauges>, max: usize) -> Self {
        let mut seat = Self { gauges: Arc::clone(gauges), max, taken: false, held: None };
        seat.request_again();
        seat
    }

    /// Keeps the permit for the socket's file descriptor, and the socket's place among the connections of its address,
    /// until the seat is dropped.
    pub(crate) fn holding(mut self, file: OwnedSemaphorePermit, place: Option<Place>) -> Self {
        self.held = Some((file, place));
        self
    }

    /// Takes a seat if the session has none and one is free now.
    pub(crate) fn request_again(&mut self) {
        let more = |n| (n < self.max).then_some(n + 1);
        self.taken =
            self.taken || self.gauges.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Takes a seat even if none is free, for a session that replaces another session.
    pub(crate) fn insist(&mut self) {
        if !self.taken {
            self.gauges.connections.fetch_add(1, Ordering::Relaxed);
            self.taken = true;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.taken {
            self.gauges.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts an object in a gauge while it exists.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Gauges>, fn(&Gauges) -> &AtomicUsize);

impl Counted {
    pub(crate) fn peer(gauges: &Arc<Gauges>) -> Self {
        gauges.peers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gauges), |gauges| &gauges.peers)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The phase of a session on its home shard. A session that is about to end has a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// [`SessionPhase::Pending`].
    Pending,
    /// [`SessionPhase::Open`].
    Open,
    /// [`SessionPhase::Retiring`], and why the session must leave.
    Retiring(CloseReason),
    /// [`SessionPhase::Closing`], and why the session has ended.
    Closing(CloseReason),
}

impl Stage {
    fn phase(self) -> SessionPhase {
        match self {
            Self::Pending => SessionPhase::Pending,
            Self::Open => SessionPhase::Open,
            Self::Retiring(_) => SessionPhase::Retiring,
            Self::Closing(_) => SessionPhase::Closing,
        }
    }
}

#[derive(Debug)]
pub(crate) struct SocketSession {
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    pub(crate) write: Writer,
    /// Wakes the session's task.
    waker: Option<Waker>,
    stage: Stage,
    /// The send queue. `None` while it is empty.
    pub(crate) queue: Option<Box<SendQueue>>,
    pub(crate) read: ReadState,
    pub(crate) writes: WriteState,
    pub(crate) life: Life,
    /// Whether the router has more of a roster to send.
    pub(crate) backlog: bool,
    /// The session's use of the shard's time.
    pub(crate) meter: Meter,
    /// As in [`PeerRequest`].
    pub(crate) names_protocol: bool,
    pub(crate) seat: Seat,
    pub(crate) counted: Option<Counted>,
    /// The trace of the session's join, until it is complete. `None` if the join is not traced.
    pub(crate) join: Option<Box<JoinTrace>>,
}

impl SocketSession {
    /// A session that is not admitted yet. `now` is the time on the shard's clock.
    pub(crate) fn new(
        (peer, address): (PeerId, SocketAddr),
        write: Writer,
        read: ReadState,
        seat: Seat,
        now: Duration,
    ) -> Self {
        Self {
            peer,
            address,
            write,
            waker: None,
            stage: Stage::Pending,
            queue: None,
            read,
            writes: WriteState::default(),
            life: Life::new(now),
            backlog: false,
            meter: Meter::default(),
            names_protocol: false,
            seat,
            counted: None,
            join: None,
        }
    }

    pub(crate) fn phase(&self) -> SessionPhase {
        self.stage.phase()
    }

    /// Why the session ends. `None` if it is pending or open.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        match self.stage {
            Stage::Pending | Stage::Open => None,
            Stage::Retiring(reason) | Stage::Closing(reason) => Some(reason),
        }
    }

    /// Moves the session to the next stage of its life, and wakes its task.
    pub(crate) fn advance(&mut self, next: Stage, id: SessionId, bugs: &mut Bugs) {
        self.phase().advance(next.phase(), id, bugs);
        self.stage = next;
        self.wake();
    }

    pub(crate) fn reads(&self) -> bool {
        self.phase() != SessionPhase::Pending && !self.read.is_client_done()
    }

    /// Why a retiring session is about to end. `None` for other sessions.
    pub(crate) fn why_it_goes(&self) -> Option<CloseReason> {
        match self.stage {
            Stage::Retiring(reason) => Some(reason),
            Stage::Pending | Stage::Open | Stage::Closing(_) => None,
        }
    }

    /// Whether the socket has accepted everything queued for it.
    pub(crate) fn has_written_all(&self) -> bool {
        self.queue.is_none() && !self.write.has_pending()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len_bytes())
    }

    /// Sets the waker of the session's task.
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|own| !own.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// The close reason of a session whose socket failed.
pub(crate) fn why_lost(error: &std::io::Error) -> CloseReason {
    // `TimedOut` is the error of TCP_USER_TIMEOUT, which the hub has set to the time after which a silent session is
    // dead.
    let dead = error.kind() == std::io::ErrorKind::TimedOut;
    if dead { CloseReason::DeadPeer } else { CloseReason::ConnectionLost }
}
