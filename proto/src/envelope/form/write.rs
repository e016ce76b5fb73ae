//! Writes the bodies of envelopes.

use crate::id::{HubId, HubIncarnation, PeerId};
use crate::reason::{ErrorCode, Outcome};
use crate::resume::Lineage;
use crate::router::{Announcement, MeetingEnd, MeetingKind, Standing};
use crate::ws;

use super::super::{Change, ChangeKind, Heartbeat, HubStatus, Routed, SnapshotPart};

/// The numbers of outcomes that are not errors. Any other number is the index of an [`ErrorCode`] in
/// [`ErrorCode::ALL`]. A hub reads a number that it does not know as [`ErrorCode::Unknown`], so hubs of version 2.0.0
/// read `FORWARDED` as `Unknown`.
pub(super) const DELIVERED: u8 = u8::MAX;
pub(super) const FORWARDED: u8 = DELIVERED - 1;
const _: () = assert!(ErrorCode::ALL.len() <= FORWARDED as usize);

pub(super) fn put_u16(out: &mut Vec<u8>, n: u16) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub(super) fn put_peer(out: &mut Vec<u8>, peer: &PeerId) {
    out.extend_from_slice(peer.as_bytes());
}

pub(super) fn put_hub(out: &mut Vec<u8>, hub: HubId, incarnation: HubIncarnation) {
    put_peer(out, &hub.0);
    put_u64(out, incarnation.0);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u16(out, text.len() as u16);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

pub(super) fn put_heartbeat(out: &mut Vec<u8>, beat: &Heartbeat) {
    put_hub(out, beat.hub, beat.incarnation);
    put_u64(out, beat.number);
    put_u64(out, beat.seq);
    put_u64(out, beat.digest);
    put_u32(out, beat.age_ms);
    out.push(u8::from(beat.draining));
    put_hubs(out, &beat.neighbours);
    put_text(out, beat.advertise.as_deref().unwrap_or_default());
    put_text(out, beat.public_url.as_deref().unwrap_or_default());
    put_u64(out, beat.process);
    put_hubs(out, &beat.unheard);
    out.push(u8::from(beat.link_unheard));
    put_status(out, beat.status.as_deref());
}

fn put_status(out: &mut Vec<u8>, status: Option<&HubStatus>) {
    out.push(u8::from(status.is_some()));
    let Some(status) = status else { return };
    put_text(out, status.admin_url.as_deref().unwrap_or_default());
    put_text(out, &status.version);
    for n in [status.connections, status.max_connections, status.cpu, status.busiest_shard, status.signals] {
        put_u32(out, n);
    }
    put_u64(out, status.memory);
}

fn put_hubs(out: &mut Vec<u8>, hubs: &[HubId]) {
    put_u16(out, hubs.len() as u16);
    for hub in hubs {
        put_peer(out, &hub.0);
    }
}

pub(super) fn put_change(out: &mut Vec<u8>, change: &Change) {
    put_hub(out, change.hub, change.incarnation);
    put_u64(out, change.seq);
    put_peer(out, &change.peer);
    put_u64(out, change.session.0);
    match &change.kind {
        ChangeKind::Up => out.push(0),
        ChangeKind::Joined(announcement) => {
            out.push(1);
            put_membership(out, announcement);
        }
        ChangeKind::Left { network, frame } => {
            out.push(2);
            put_text(out, network.as_str());
            put_bytes(out, frame.data());
        }
        ChangeKind::Down(reason) => {
            out.push(3);
            out.push(reason.as_of_2_0_0().index());
            out.push(reason.index());
        }
    }
}

fn put_membership(out: &mut Vec<u8>, announcement: &Announcement) {
    put_text(out, announcement.network.as_str());
    put_bytes(out, announcement.discovered.data());
    put_u64(out, announcement.stay.number);
    out.push(announcement.stay.discovery.closest());
}

pub(super) fn put_snapshot(out: &mut Vec<u8>, part: &SnapshotPart) {
    put_hub(out, part.hub, part.incarnation);
    put_u64(out, part.seq);
    put_u64(out, part.digest);
    put_u32(out, part.part);
    out.push(u8::from(part.last));
    put_u32(out, part.peers.len() as u32);
    for presence in &part.peers {
        put_peer(out, &presence.peer);
        put_u64(out, presence.session.0);
        put_u16(out, presence.memberships.len() as u16);
        for announcement in &presence.memberships {
            put_membership(out, announcement);
        }
    }
}

pub(super) fn put_routed(out: &mut Vec<u8>, routed: &Routed) {
    match routed {
        Routed::Signal(signal) => {
            put_u64(out, signal.counter);
            put_u64(out, signal.seq);
            out.push(u8::from(signal.receipt));
            out.push(signal.kind.as_of_2_0_0() as u8);
            put_peer(out, &signal.sender);
            put_peer(out, &signal.target);
            put_text(out, signal.network.as_str());
            // The WebSocket header of the frame is not sent, because the receiver computes the header from the length.
            put_bytes(out, ws::payload(&signal.frame));
            put_standing(out, signal.standing);
            out.push(signal.kind as u8);
        }
        Routed::Outcomes(outcomes) => {
            put_u32(out, outcomes.len() as u32);
            for (counter, outcome) in outcomes {
                put_u64(out, *counter);
                out.push(match outcome {
                    Outcome::Delivered => DELIVERED,
                    Outcome::Forwarded => FORWARDED,
                    Outcome::Failed(code) => *code as u8,
                });
            }
        }
        Routed::Takeover { peer, ticket, resume, owner } => {
            put_peer(out, peer);
            put_u64(out, *ticket);
            put_lineage(out, *resume);
            out.push(u8::from(*owner));
        }
        Routed::TakeoverAnswer { peer, ticket, in_use } => {
            put_peer(out, peer);
            put_u64(out, *ticket);
            out.push(u8::from(*in_use));
        }
        Routed::Meeting(meeting) => {
            put_text(out, meeting.network.as_str());
            out.push(match meeting.to {
                MeetingEnd::About => 0,
                MeetingEnd::Others => 1,
            });
            out.push(match meeting.kind {
                MeetingKind::Met | MeetingKind::Joined => 0,
                MeetingKind::Agreed => 1,
                MeetingKind::Declined => 2,
            });
            put_peer(out, &meeting.about);
            put_u64(out, meeting.stay);
            put_u16(out, meeting.others.len() as u16);
            for (peer, stay) in &meeting.others {
                put_peer(out, peer);
                put_u64(out, *stay);
            }
        }
    }
}

/// A takeover without a lineage has the number 0 in both fields, because no session has this number.
fn put_lineage(out: &mut Vec<u8>, lineage: Option<Lineage>) {
    put_u64(out, lineage.map_or(0, |lineage| lineage.root.0));
    put_u64(out, lineage.map_or(0, |lineage| lineage.session.0));
}

fn put_standing(out: &mut Vec<u8>, standing: Standing) {
    match standing {
        Standing::Outsider => out.push(0),
        Standing::Member(stay) => {
            out.push(1);
            put_u64(out, stay);
        }
        Standing::Unknown => out.push(2),
    }
}
