//! Records the spans of joins. A join begins with the WebSocket of a peer, and ends when the roster of the peer's first
//! network is queued.

use std::time::Duration;

use proto::trace::{AttributeValue, Span, SpanKind, TraceId, attribute, network_digest};
use proto::{CloseReason, HubId, NetworkName, Now, PeerEvent, PeerId, SessionId};
use thread::Tracer;
use tracing::debug;

use super::Core;

/// The unfinished join of a session.
#[derive(Debug)]
pub(crate) struct JoinTrace {
    pub(crate) trace: TraceId,
    began: Duration,
    events: Vec<(&'static str, Duration)>,
    /// A hash of the name of the announced network, and the number of its members.
    network: Option<(u64, usize)>,
}

/// Records the joins of a shard's sessions.
pub(crate) struct JoinTracer {
    tracer: Tracer,
    hub: HubId,
    /// Number of sessions so far. It numbers their traces.
    last: u64,
}

impl Core {
    /// Records the joins that `tracer` selects.
    pub(crate) fn trace_joins(&mut self, tracer: Option<Tracer>, hub: HubId) {
        self.joins = tracer.map(|tracer| JoinTracer { tracer, hub, last: 0 });
    }

    /// Begins the trace of a new session's join, if the tracer selects it.
    pub(super) fn new_join(&mut self, now: Now) -> Option<Box<JoinTrace>> {
        let joins = self.joins.as_mut()?;
        joins.last += 1;
        let trace = joins.tracer.trace(self.shard.0.into(), joins.last);
        let join = || Box::new(JoinTrace { trace, began: now.at, events: Vec::new(), network: None });
        joins.tracer.sampling().takes(trace).then(join)
    }

    /// The unfinished join of a session, if it is traced.
    fn join_mut(&mut self, id: SessionId) -> Option<&mut JoinTrace> {
        self.joins.as_ref()?;
        self.session_mut(id)?.join.as_deref_mut()
    }

    /// Records that a session was admitted under its id.
    pub(super) fn trace_admitted(&mut self, id: SessionId, now: Now) {
        if let Some(join) = self.join_mut(id) {
            join.events.push(("admitted", now.at));
        }
    }

    /// Handles an event of the router.
    pub(super) fn peer_event(&mut self, event: &PeerEvent, now: Now) {
        match event {
            PeerEvent::Announced { session, peer, network, members, reads } => {
                let trace_id = self.trace_announced(*session, (network, *members), *reads, now);
                let trace_id = trace_id.map(tracing::field::display);
                debug!(?peer, network = network.as_str(), members, trace_id, "peer_announced");
            }
            PeerEvent::TakeoverAsked { peer } => debug!(?peer, "peer_takeover_asked"),
        }
    }

    /// Records the first announcement of a session whose join is traced. `reads` says whether the session will receive
    /// the roster.
    fn trace_announced(
        &mut self,
        id: SessionId,
        (network, members): (&NetworkName, usize),
        reads: bool,
        now: Now,
    ) -> Option<TraceId> {
        let join = self.join_mut(id).filter(|join| join.network.is_none())?;
        join.events.push(("announced", now.at));
        join.network = Some((network_digest(network.as_str()), members));
        let trace = join.trace;
        if !reads {
            self.end_join(id, None, now);
        }
        Some(trace)
    }

    /// Records that the router has put out the last member of a roster.
    pub(super) fn trace_roster_sent(&mut self, id: SessionId, now: Now) {
        if self.join_mut(id).is_some_and(|join| join.network.is_some()) {
            self.end_join(id, None, now);
        }
    }

    /// Ends the trace of a session's join. `reason` says why the join could not finish. It is `None` if the join has
    /// finished. Returns the id of the trace.
    pub(super) fn end_join(&mut self, id: SessionId, reason: Option<CloseReason>, now: Now) -> Option<TraceId> {
        self.joins.as_ref()?;
        let session = self.session_mut(id)?;
        let peer = session.peer;
        let join = session.join.take()?;
        let trace = join.trace;
        self.record_join(*join, peer, reason, now);
        Some(trace)
    }

    fn record_join(&self, join: JoinTrace, peer: PeerId, reason: Option<CloseReason>, now: Now) {
        let Some(JoinTracer { tracer, hub, .. }) = &self.joins else { return };
        let JoinTrace { trace, began, mut events, network } = join;
        let mut attributes =
            vec![(attribute::HUB, AttributeValue::Hub(*hub)), (attribute::PEER, AttributeValue::Peer(peer))];
        if let Some((digest, members)) = network {
            attributes.push((attribute::NETWORK, AttributeValue::Digest(digest)));
            attributes.push((attribute::MEMBERS, AttributeValue::Number(members as u64)));
        }
        match reason {
            Some(reason) => attributes.push((attribute::REASON, AttributeValue::Word(reason.label()))),
            None => events.push(("roster sent", now.at)),
        }
        tracer.record(Span {
            trace,
            id: trace.span(*hub, 0),
            parent: None,
            name: "join",
            kind: SpanKind::Server,
            start: began,
            end: now.at,
            attributes,
            events,
            failure: reason.map(|reason| reason.label().into()),
        });
    }
}
