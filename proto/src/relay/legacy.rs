//! Legacy links. A legacy link leads to a Go hub, or to another program that speaks the Go hub's protocol.
//!
//! Other hubs see the peers behind a legacy link as peers of this hub. The claims to these peers are smaller than the
//! claim to any session of a native hub, so such a session with the same id wins. A Go hub reports the leaves of its
//! peers only if this hub has dialed the Go hub. If the leave of a peer is not reported, this hub removes the peer when
//! the legacy link ends.
//!
//! A Go hub announces a peer to another hub only once. This has two consequences. First, if this hub dialed the Go hub,
//! this hub receives no announcement of peers that were connected before the link. It discovers such a peer by the
//! peer's first signal. Second, this hub stores an announcement that cannot take effect yet ([`waiting`]).

mod announcing;
mod links;
mod received;
mod recent;
mod waiting;

use crate::bug;
use crate::envelope::ChangeKind;
use crate::id::{HubIncarnation, LinkId, PeerId, PeerIncarnation};
use crate::reason::LeaveReason;
use crate::route::Hop;
use crate::time::Now;

use super::{HubView, Relay};
pub(super) use links::Legacy;
use links::LinkView;

/// The incarnation in the claims of peers behind legacy links. This incarnation is smaller than the time of any clock.
pub(super) const LEGACY_SESSION: PeerIncarnation = PeerIncarnation::LEGACY;

impl Relay {
    pub(super) fn legacy_down(&mut self, link: LinkId, now: Now) {
        if !self.legacy.end(link) {
            return bug!(self.bugs, LegacyLink, "{link:?} ends");
        }
        self.end_legacy_peers(now);
        self.ask_to_continue();
    }

    /// Removes one slice of the peers whose legacy links have ended.
    pub(super) fn end_legacy_peers(&mut self, now: Now) {
        let before = self.outputs.len();
        for _ in 0..self.config.tuning.slices.peers {
            let is_full = self.outputs.len() - before >= self.config.tuning.slices.letters;
            let Some(peer) = self.legacy.next_leaver().filter(|_| !is_full) else { break };
            self.leave_legacy(peer, LeaveReason::HubLost, now);
        }
    }

    pub(super) fn leave_legacy(&mut self, peer: PeerId, reason: LeaveReason, now: Now) {
        self.publish_change(peer, LEGACY_SESSION, ChangeKind::Down(reason), now);
        self.legacy.forget(&peer);
    }

    pub(super) fn legacy_hubs(&self, now: Now) -> impl Iterator<Item = HubView> {
        self.legacy.views().map(move |LinkView { link, hub, peers, heard_at }| HubView {
            hub,
            incarnation: HubIncarnation::default(),
            live: true,
            draining: false,
            next_hop: Some(Hop::Link(link)),
            link: Some(link),
            bridged: false,
            legacy: true,
            peers,
            seq: 0,
            lag: 0,
            heard: now.at.saturating_sub(heard_at),
            advertise: None,
            public_url: None,
            status: None,
        })
    }
}
