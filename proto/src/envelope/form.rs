//! The binary form of envelopes.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::claim::Claim;
use crate::id::{HubId, HubIncarnation, NetworkName, PeerId, PeerIncarnation};
use crate::limits::{
    MAX_ANNOUNCE_DATA_BYTES, MAX_CLOSEST, MAX_HUB_URL_BYTES, MAX_MEETING, MAX_NEIGHBOURS, MAX_NETWORK_NAME_BYTES,
    MAX_OUTCOMES, SNAPSHOT_PEERS,
};
use crate::reason::{ErrorCode, LeaveReason, Outcome};
use crate::resume::Lineage;
use crate::router::{Announcement, Discovery, Meeting, MeetingEnd, MeetingKind, Standing, Stay};
use crate::wire::{self, SignalKind};
use crate::ws::{self, Opcode};

use super::{
    Change, ChangeKind, Envelope, EnvelopeKind, Heartbeat, Hello, Malformed, Presence, Route, Routed, SignalEnvelope,
    SnapshotPart, SnapshotRequest,
};

impl Envelope {
    /// Appends the binary form. Lengths are not checked: callers respect the bounds in [`limits`](crate::limits).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, self.kind() as u8]);
        match self {
            Self::Hello(hello) => {
                put_u16(out, hello.version);
                put_hub(out, hello.hub, hello.incarnation);
                put_text(out, &hello.namespace);
                out.push(hello.discovery.closest());
                put_u64(out, hello.process);
            }
            Self::Heartbeat(beat) => put_heartbeat(out, beat),
            Self::Change(change) => put_change(out, change),
            Self::SnapshotRequest(request) | Self::SnapshotDeclined(request) => {
                put_hub(out, request.hub, request.incarnation)
            }
            Self::Snapshot(part) => put_snapshot(out, part),
            Self::Farewell(hub, incarnation) => put_hub(out, *hub, *incarnation),
            Self::Routed(route, routed) => {
                put_hub(out, route.to, route.to_incarnation);
                put_hub(out, route.from, route.from_incarnation);
                out.push(route.hops);
                put_routed(out, routed);
            }
        }
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Decodes the next envelope at the front of a frame. `None` at its end.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the bytes are not an envelope. The link must then be closed.
    pub fn decode(frame: &mut &[u8]) -> Result<Option<Self>, Malformed> {
        loop {
            if frame.is_empty() {
                return Ok(None);
            }
            let mut reader = Reader(frame);
            let len = reader.u32()? as usize;
            let body = reader.take(len)?;
            *frame = reader.0;
            let mut body = Reader(body);
            let kind = body.u8()?;
            let Some(kind) = EnvelopeKind::ALL.get(usize::from(kind)) else { continue };
            let envelope = read_envelope(*kind, &mut body)?;
            // The rest was added by a later hub of the same version.
            return Ok(Some(envelope));
        }
    }
}

fn put_u16(out: &mut Vec<u8>, n: u16) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_peer(out: &mut Vec<u8>, peer: &PeerId) {
    out.extend_from_slice(peer.as_bytes());
}

fn put_hub(out: &mut Vec<u8>, hub: HubId, incarnation: HubIncarnation) {
    put_peer(out, &hub.0);
    put_u64(out, incarnation.0);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u16(out, text.len() as u16);
    out.extend_from_slice(text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn put_heartbeat(out: &mut Vec<u8>, beat: &Heartbeat) {
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
}

fn put_hubs(out: &mut Vec<u8>, hubs: &[HubId]) {
    put_u16(out, hubs.len() as u16);
    for hub in hubs {
        put_peer(out, &hub.0);
    }
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
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

fn put_snapshot(out: &mut Vec<u8>, part: &SnapshotPart) {
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

fn put_routed(out: &mut Vec<u8>, routed: &Routed) {
    match routed {
        Routed::Signal(signal) => {
            put_u64(out, signal.counter);
            put_u64(out, signal.seq);
            out.push(u8::from(signal.receipt));
            out.push(signal.kind as u8);
            put_peer(out, &signal.sender);
            put_peer(out, &signal.target);
            put_text(out, signal.network.as_str());
            // The WebSocket header of the frame is not sent; its length determines it.
            put_bytes(out, ws::payload(&signal.frame));
            put_standing(out, signal.standing);
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
        Routed::Takeover { peer, ticket, resume } => {
            put_peer(out, peer);
            put_u64(out, *ticket);
            put_lineage(out, *resume);
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

/// No session has the number 0, which stands for no lineage.
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

/// Outcomes that are not errors. Other numbers are the index of an [`ErrorCode`] in [`ErrorCode::ALL`]; unknown numbers
/// mean [`ErrorCode::Unknown`]. Hubs of 2.0.0 therefore read `FORWARDED` as unknown.
const DELIVERED: u8 = u8::MAX;
const FORWARDED: u8 = DELIVERED - 1;
const _: () = assert!(ErrorCode::ALL.len() <= FORWARDED as usize);

/// See [`Reader::count`].
const GREATEST_COUNT: u64 = 1 << 62;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed("an envelope is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("an envelope is cut short"))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A counter. Numbers so great that adding to them could overflow are malformed.
    fn count(&mut self) -> Result<u64, Malformed> {
        let n = self.u64()?;
        if n > GREATEST_COUNT { Err(Malformed("a number is beyond counting")) } else { Ok(n) }
    }

    /// A field that earlier releases of this version do not send: its default, if the body has ended.
    fn added<T: Default>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(T::default()) } else { read(self) }
    }

    fn peer(&mut self) -> Result<PeerId, Malformed> {
        Ok(PeerId::from_bytes(self.array()?))
    }

    fn hub(&mut self) -> Result<(HubId, HubIncarnation), Malformed> {
        Ok((HubId(self.peer()?), HubIncarnation(self.count()?)))
    }

    fn text(&mut self, longest: usize) -> Result<&'a str, Malformed> {
        let len = usize::from(self.u16()?);
        if len > longest {
            return Err(Malformed("a name is too long"));
        }
        utf8(self.take(len)?)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn url(&mut self) -> Result<Option<Arc<str>>, Malformed> {
        let url = self.text(MAX_HUB_URL_BYTES)?;
        Ok((!url.is_empty()).then(|| Arc::from(url)))
    }

    fn network(&mut self) -> Result<NetworkName, Malformed> {
        Ok(NetworkName::new(self.text(MAX_NETWORK_NAME_BYTES)?))
    }

    /// JSON that is sent to peers: it has the same limits as that of a local client.
    fn public(&mut self) -> Result<&'a str, Malformed> {
        let data = self.bytes()?;
        if data.len() > MAX_ANNOUNCE_DATA_BYTES + DESCRIPTION_ROOM {
            return Err(Malformed("announced data is too long"));
        }
        let data = utf8(data)?;
        serde_json::from_str::<serde::de::IgnoredAny>(data).map_err(|_| Malformed("announced data is not JSON"))?;
        Ok(data)
    }
}

/// Bytes that a hub adds to announced data: the peer's id and `isHub`.
const DESCRIPTION_ROOM: usize = 128;

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}

fn read_envelope(kind: EnvelopeKind, body: &mut Reader<'_>) -> Result<Envelope, Malformed> {
    Ok(match kind {
        EnvelopeKind::Hello => {
            let version = body.u16()?;
            let (hub, incarnation) = body.hub()?;
            let namespace = body.text(MAX_NETWORK_NAME_BYTES)?.to_owned();
            let discovery = Discovery::from_closest(body.u8()?);
            let process = body.added(Reader::u64)?;
            Envelope::Hello(Box::new(Hello { version, hub, incarnation, namespace, discovery, process }))
        }
        EnvelopeKind::Heartbeat => Envelope::Heartbeat(Arc::new(read_heartbeat(body)?)),
        EnvelopeKind::Change => Envelope::Change(Arc::new(read_change(body)?)),
        EnvelopeKind::SnapshotRequest => {
            let (hub, incarnation) = body.hub()?;
            Envelope::SnapshotRequest(SnapshotRequest { hub, incarnation })
        }
        EnvelopeKind::SnapshotDeclined => {
            let (hub, incarnation) = body.hub()?;
            Envelope::SnapshotDeclined(SnapshotRequest { hub, incarnation })
        }
        EnvelopeKind::Snapshot => Envelope::Snapshot(Box::new(read_snapshot(body)?)),
        EnvelopeKind::Farewell => {
            let (hub, incarnation) = body.hub()?;
            Envelope::Farewell(hub, incarnation)
        }
        EnvelopeKind::Signal
        | EnvelopeKind::Outcomes
        | EnvelopeKind::Takeover
        | EnvelopeKind::TakeoverAnswer
        | EnvelopeKind::Meeting => {
            let (to, to_incarnation) = body.hub()?;
            let (from, from_incarnation) = body.hub()?;
            let route = Route { to, to_incarnation, from, from_incarnation, hops: body.u8()? };
            Envelope::Routed(route, Box::new(read_routed(kind, body)?))
        }
    })
}

fn read_heartbeat(body: &mut Reader<'_>) -> Result<Heartbeat, Malformed> {
    let (hub, incarnation) = body.hub()?;
    let (number, seq, digest) = (body.count()?, body.count()?, body.u64()?);
    let (age_ms, draining) = (body.u32()?, body.bool()?);
    let neighbours = read_hubs(body)?;
    let (advertise, public_url) = (body.url()?, body.url()?);
    // Hubs before 2.1 end here.
    let process = body.added(Reader::u64)?;
    let unheard = body.added(read_hubs)?;
    let link_unheard = body.added(Reader::bool)?;
    Ok(Heartbeat {
        hub,
        incarnation,
        number,
        seq,
        digest,
        age_ms,
        draining,
        neighbours,
        advertise,
        public_url,
        process,
        unheard,
        link_unheard,
    })
}

fn read_hubs(body: &mut Reader<'_>) -> Result<Vec<HubId>, Malformed> {
    let count = usize::from(body.u16()?);
    if count > MAX_NEIGHBOURS {
        return Err(Malformed("a hub has too many neighbours"));
    }
    (0..count).map(|_| body.peer().map(HubId)).collect()
}

fn read_change(body: &mut Reader<'_>) -> Result<Change, Malformed> {
    let (hub, incarnation) = body.hub()?;
    let (seq, peer, session) = (body.count()?, body.peer()?, PeerIncarnation(body.count()?));
    let kind = match body.u8()? {
        0 => ChangeKind::Up,
        1 => ChangeKind::Joined(read_membership(body, peer, Claim { incarnation: session, hub })?),
        2 => {
            let network = body.network()?;
            let frame = Arc::new(wire::goodbye(&peer, body.public()?, network.as_str(), 0));
            ChangeKind::Left { network, frame }
        }
        3 => ChangeKind::Down(LeaveReason::from_index(body.u8()?)),
        _ => return Err(Malformed("a change is of no known kind")),
    };
    Ok(Change { hub, incarnation, seq, peer, session, kind })
}

fn read_membership(body: &mut Reader<'_>, peer: PeerId, claim: Claim) -> Result<Arc<Announcement>, Malformed> {
    let network = body.network()?;
    let data = body.public()?;
    let discovered = Arc::new(wire::peer_discovered(data.as_bytes(), claim.incarnation, network.as_str(), 0));
    let stay = Stay { number: body.count()?, discovery: Discovery::from_closest(body.u8()?.min(MAX_CLOSEST)) };
    Ok(Arc::new(Announcement { peer, network, claim, remote: true, stay, discovered }))
}

fn read_snapshot(body: &mut Reader<'_>) -> Result<SnapshotPart, Malformed> {
    let (hub, incarnation) = body.hub()?;
    let (seq, digest, part, last) = (body.count()?, body.u64()?, body.u32()?, body.bool()?);
    let count = body.u32()? as usize;
    if count > SNAPSHOT_PEERS {
        return Err(Malformed("a part of a snapshot has too many peers"));
    }
    let mut peers = Vec::with_capacity(count);
    for _ in 0..count {
        let (peer, session) = (body.peer()?, PeerIncarnation(body.count()?));
        let claim = Claim { incarnation: session, hub };
        let networks = body.u16()?;
        let memberships = (0..networks).map(|_| read_membership(body, peer, claim)).collect::<Result<_, _>>()?;
        peers.push(Arc::new(Presence { peer, session, memberships }));
    }
    Ok(SnapshotPart { hub, incarnation, seq, digest, part, last, peers })
}

/// The sender's standing. Hubs of version 2.0.0 do not send it.
fn read_standing(body: &mut Reader<'_>) -> Result<Standing, Malformed> {
    if body.0.is_empty() {
        return Ok(Standing::Unknown);
    }
    Ok(match body.u8()? {
        0 => Standing::Outsider,
        1 => Standing::Member(body.count()?),
        _ => Standing::Unknown,
    })
}

fn read_lineage(body: &mut Reader<'_>) -> Result<Option<Lineage>, Malformed> {
    let (root, session) = (PeerIncarnation(body.count()?), PeerIncarnation(body.count()?));
    Ok((root.0 > 0).then_some(Lineage { root, session }))
}

fn read_routed(kind: EnvelopeKind, body: &mut Reader<'_>) -> Result<Routed, Malformed> {
    Ok(match kind {
        EnvelopeKind::Signal => {
            let (counter, seq, receipt) = (body.count()?, body.count()?, body.bool()?);
            let kind = *SignalKind::ALL.get(usize::from(body.u8()?)).ok_or(Malformed("a signal of no known kind"))?;
            let (sender, target, network) = (body.peer()?, body.peer()?, body.network()?);
            let text = utf8(body.bytes()?)?;
            let mut frame = Vec::with_capacity(ws::header_len(text.len()) + text.len());
            ws::put_header(&mut frame, Opcode::Text, text.len());
            frame.extend_from_slice(text.as_bytes());
            let frame = frame.into_boxed_slice();
            let standing = read_standing(body)?;
            Routed::Signal(SignalEnvelope { counter, seq, receipt, kind, sender, target, network, frame, standing })
        }
        EnvelopeKind::Outcomes => {
            let count = body.u32()? as usize;
            if count > MAX_OUTCOMES {
                return Err(Malformed("too many outcomes at once"));
            }
            let read = |body: &mut Reader<'_>| {
                let counter = body.u64()?;
                let outcome = match body.u8()? {
                    DELIVERED => Outcome::Delivered,
                    FORWARDED => Outcome::Forwarded,
                    code => ErrorCode::ALL
                        .get(usize::from(code))
                        .map_or(Outcome::Failed(ErrorCode::Unknown), |&code| Outcome::Failed(code)),
                };
                Ok((counter, outcome))
            };
            Routed::Outcomes((0..count).map(|_| read(body)).collect::<Result<_, _>>()?)
        }
        EnvelopeKind::Takeover => {
            Routed::Takeover { peer: body.peer()?, ticket: body.u64()?, resume: body.added(read_lineage)? }
        }
        EnvelopeKind::TakeoverAnswer => {
            Routed::TakeoverAnswer { peer: body.peer()?, ticket: body.u64()?, in_use: body.bool()? }
        }
        EnvelopeKind::Meeting => {
            let network = body.network()?;
            let to = if body.bool()? { MeetingEnd::Others } else { MeetingEnd::About };
            let kind = match body.u8()? {
                0 => MeetingKind::Met,
                1 => MeetingKind::Agreed,
                2 => MeetingKind::Declined,
                _ => return Err(Malformed("a meeting of no known kind")),
            };
            let (about, stay) = (body.peer()?, body.u64()?);
            let count = usize::from(body.u16()?);
            if count > MAX_MEETING {
                return Err(Malformed("too many at one meeting"));
            }
            let others = (0..count).map(|_| Ok((body.peer()?, body.u64()?))).collect::<Result<_, _>>()?;
            Routed::Meeting(Arc::new(Meeting { network, about, stay, others, to, kind }))
        }
        EnvelopeKind::Hello
        | EnvelopeKind::Heartbeat
        | EnvelopeKind::Change
        | EnvelopeKind::SnapshotRequest
        | EnvelopeKind::Snapshot
        | EnvelopeKind::SnapshotDeclined
        | EnvelopeKind::Farewell => return Err(Malformed("an envelope of another kind")),
    })
}
