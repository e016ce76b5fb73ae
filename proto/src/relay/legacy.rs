//! Legacy links: the links to Go hubs, and to any other program that speaks the Go hub's protocol.
//!
//! For the rest of the mesh, the peers behind a legacy link belong to this hub. Their claims are smaller than all
//! others, so the claim of any other session to an id wins. The Go protocol does not report some events, above all
//! leaves. A peer whose leave is not reported leaves when the link ends.
//!
//! A Go hub announces a peer to another hub only once. This has two consequences. First, peers that were connected
//! before the link become known by their first signal. Second, an announcement that cannot take effect yet is kept
//! ([`waiting`]).

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

/// The incarnation in the claims of peers behind legacy links. It is smaller than the time of any clock.
pub(super) const LEGACY_SESSION: PeerIncarnation = PeerIncarnation::LEGACY;

impl Relay {
    pub(super) fn legacy_down(&mut self, link: LinkId, now: Now) {
        if !self.legacy.end(link) {
            return bug!(self.bugs, LegacyLink, "{link:?} ends");
        }
        self.end_legacy_peers(now);
        self.ask_to_continue();
    }

    /// Removes some of the peers whose legacy link has ended: one slice.
    pub(super) fn end_legacy_peers(&mut self, now: Now) {
        let before = self.outputs.len();
        for _ in 0..self.config.tuning.slices.peers {
            let is_full = self.outputs.len() - before >= self.config.tuning.slices.letters;
            let Some(peer) = self.legacy.next_leaver().filter(|_| !is_full) else { break };
            self.leave_legacy(peer, LeaveReason::HubLost, now);
        }
    }

    pub(super) fn leave_legacy(&mut self, peer: PeerId, reason: LeaveReason, now: Now) {
        self.change(peer, LEGACY_SESSION, ChangeKind::Down(reason), now);
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
