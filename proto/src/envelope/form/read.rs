//! Reads the bodies of envelopes. Every length, count and text is checked, because other hubs are not trusted.

use std::sync::Arc;

use crate::claim::Claim;
use crate::codec::is_deeper_than;
use crate::id::{HubId, HubIncarnation, NetworkName, PeerId, PeerIncarnation};
use crate::limits::{
    MAX_ANNOUNCE_DATA_BYTES, MAX_ANNOUNCE_DEPTH, MAX_CLOSEST, MAX_HUB_URL_BYTES, MAX_MEETING, MAX_NEIGHBOURS,
    MAX_NETWORK_NAME_BYTES, MAX_OUTCOMES, MAX_VERSION_BYTES, SNAPSHOT_PEERS,
};
use crate::reason::{CloseReason, ErrorCode, LeaveReason, Outcome};
use crate::resume::Lineage;
use crate::router::{Announcement, Discovery, Meeting, MeetingEnd, MeetingKind, Standing, Stay};
use crate::wire::{self, SignalKind};
use crate::ws::{self, Opcode};

use super::super::{
    Change, ChangeKind, Envelope, EnvelopeKind, Heartbeat, Hello, HubStatus, Malformed, Presence, RouteHeader, Routed,
    SignalEnvelope, SnapshotPart, SnapshotRequest,
};
use super::write::{DELIVERED, FORWARDED};

/// Greatest number that [`BodyReader::count`] accepts.
pub(super) const GREATEST_COUNT: u64 = 1 << 62;

/// The bytes of an envelope's body, or of a frame, that have not been read yet.
pub(super) struct BodyReader<'a>(pub(super) &'a [u8]);

impl<'a> BodyReader<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed("an envelope is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("an envelope is cut short"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a counter. A number above [`GREATEST_COUNT`] is malformed, because additions to such a number could
    /// overflow.
    fn count(&mut self) -> Result<u64, Malformed> {
        let n = self.u64()?;
        if n > GREATEST_COUNT { Err(Malformed("a number is too great for a counter")) } else { Ok(n) }
    }

    /// Reads a field that earlier releases with the same `VERSION` do not send. Returns the field's default if the body
    /// has ended.
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
            return Err(Malformed("a name, URL or version is too long"));
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

    /// Reads JSON that is sent to peers. The limits of depth and length are those for JSON of a local client, but the
    /// length may be greater by [`DESCRIPTION_ROOM`].
    fn public(&mut self) -> Result<&'a str, Malformed> {
        let data = self.bytes()?;
        if data.len() > MAX_ANNOUNCE_DATA_BYTES + DESCRIPTION_ROOM {
            return Err(Malformed("announced data is too long"));
        }
        let data = utf8(data)?;
        serde_json::from_str::<serde::de::IgnoredAny>(data).map_err(|_| Malformed("announced data is not JSON"))?;
        if is_deeper_than(data.as_bytes(), MAX_ANNOUNCE_DEPTH) {
            return Err(Malformed("announced data is nested too deep"));
        }
        Ok(data)
    }
}

/// Maximum number of bytes that a hub adds to announced data. A hub adds the peer's id and the field `isHub`.
pub(super) const DESCRIPTION_ROOM: usize = 128;

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}

pub(super) fn read_envelope(kind: EnvelopeKind, body: &mut BodyReader<'_>) -> Result<Envelope, Malformed> {
    Ok(match kind {
        EnvelopeKind::Hello => {
            let version = body.u16()?;
            let (hub, incarnation) = body.hub()?;
            let namespace = body.text(MAX_NETWORK_NAME_BYTES)?.to_owned();
            let discovery = Discovery::from_closest(body.u8()?);
            let process = body.added(BodyReader::u64)?;
            Envelope::Hello(Box::new(Hello { version, hub, incarnation, namespace, discovery, process }))
        }
        EnvelopeKind::Heartbeat => Envelope::Heartbeat(Arc::new(read_heartbeat(body)?)),
        EnvelopeKind::Change => Envelope::Change(Arc::new(read_change(body)?)),
        EnvelopeKind::SnapshotRequest => Envelope::SnapshotRequest(read_snapshot_request(body)?),
        EnvelopeKind::SnapshotDeclined => Envelope::SnapshotDeclined(read_snapshot_request(body)?),
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
            let route = RouteHeader { to, to_incarnation, from, from_incarnation, hops: body.u8()? };
            Envelope::Routed(route, Box::new(read_routed(kind, body)?))
        }
    })
}

fn read_heartbeat(body: &mut BodyReader<'_>) -> Result<Heartbeat, Malformed> {
    let (hub, incarnation) = body.hub()?;
    let (number, seq, digest) = (body.count()?, body.count()?, body.u64()?);
    let (age_ms, draining) = (body.u32()?, body.bool()?);
    let neighbours = read_hubs(body)?;
    let (advertise, public_url) = (body.url()?, body.url()?);
    // Hubs before 2.1 send none of the following fields of a heartbeat.
    let process = body.added(BodyReader::u64)?;
    let unheard = body.added(read_hubs)?;
    let link_unheard = body.added(BodyReader::bool)?;
    let status = body.added(read_status)?;
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
        status,
    })
}

fn read_status(body: &mut BodyReader<'_>) -> Result<Option<Arc<HubStatus>>, Malformed> {
    if !body.bool()? {
        return Ok(None);
    }
    Ok(Some(Arc::new(HubStatus {
        admin_url: body.url()?,
        version: body.text(MAX_VERSION_BYTES)?.into(),
        connections: body.u32()?,
        max_connections: body.u32()?,
        cpu: body.u32()?,
        busiest_shard: body.u32()?,
        signals: body.u32()?,
        memory: body.u64()?,
    })))
}

fn read_hubs(body: &mut BodyReader<'_>) -> Result<Vec<HubId>, Malformed> {
    let count = usize::from(body.u16()?);
    if count > MAX_NEIGHBOURS {
        return Err(Malformed("a hub has too many neighbours"));
    }
    (0..count).map(|_| body.peer().map(HubId)).collect()
}

fn read_change(body: &mut BodyReader<'_>) -> Result<Change, Malformed> {
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
        3 => {
            let known = LeaveReason::from_index(body.u8()?);
            // Hubs before 2.1 do not send the exact reason.
            let exact = body.added(|body| Ok(LeaveReason::from_index(body.u8()?)))?;
            ChangeKind::Down(exact.or(known).unwrap_or(LeaveReason::Closed(CloseReason::ConnectionLost)))
        }
        _ => return Err(Malformed("a change has an unknown kind")),
    };
    Ok(Change { hub, incarnation, seq, peer, session, kind })
}

fn read_membership(body: &mut BodyReader<'_>, peer: PeerId, claim: Claim) -> Result<Arc<Announcement>, Malformed> {
    let network = body.network()?;
    let data = body.public()?;
    let discovered = Arc::new(wire::peer_discovered(data.as_bytes(), claim.incarnation, network.as_str(), 0));
    let stay = Stay { number: body.count()?, discovery: Discovery::from_closest(body.u8()?.min(MAX_CLOSEST)) };
    Ok(Arc::new(Announcement { peer, network, claim, remote: true, stay, discovered }))
}

fn read_snapshot_request(body: &mut BodyReader<'_>) -> Result<SnapshotRequest, Malformed> {
    let (hub, incarnation) = body.hub()?;
    Ok(SnapshotRequest { hub, incarnation, have: body.added(BodyReader::count)? })
}

fn read_snapshot(body: &mut BodyReader<'_>) -> Result<SnapshotPart, Malformed> {
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

/// Reads the sender's standing, which hubs of version 2.0.0 do not send.
fn read_standing(body: &mut BodyReader<'_>) -> Result<Standing, Malformed> {
    if body.0.is_empty() {
        return Ok(Standing::Unknown);
    }
    Ok(match body.u8()? {
        0 => Standing::Outsider,
        1 => Standing::Member(body.count()?),
        _ => Standing::Unknown,
    })
}

fn read_lineage(body: &mut BodyReader<'_>) -> Result<Option<Lineage>, Malformed> {
    let (root, session) = (PeerIncarnation(body.count()?), PeerIncarnation(body.count()?));
    Ok((root.0 > 0).then_some(Lineage { root, session }))
}

fn read_routed(kind: EnvelopeKind, body: &mut BodyReader<'_>) -> Result<Routed, Malformed> {
    Ok(match kind {
        EnvelopeKind::Signal => {
            let (counter, seq, receipt) = (body.count()?, body.count()?, body.bool()?);
            let kind =
                *SignalKind::ALL.get(usize::from(body.u8()?)).ok_or(Malformed("a signal has an unknown kind"))?;
            let (sender, target, network) = (body.peer()?, body.peer()?, body.network()?);
            let text = utf8(body.bytes()?)?;
            let mut frame = Vec::with_capacity(ws::header_len(text.len()) + text.len());
            ws::put_header(&mut frame, Opcode::Text, text.len());
            frame.extend_from_slice(text.as_bytes());
            let frame = frame.into_boxed_slice();
            let standing = read_standing(body)?;
            // Hubs before 2.1 do not send the exact kind.
            let exact = body.added(|body| Ok(SignalKind::ALL.get(usize::from(body.u8()?)).copied()))?;
            let kind = exact.unwrap_or(kind);
            Routed::Signal(SignalEnvelope { counter, seq, receipt, kind, sender, target, network, frame, standing })
        }
        EnvelopeKind::Outcomes => {
            let count = body.u32()? as usize;
            if count > MAX_OUTCOMES {
                return Err(Malformed("an envelope has too many outcomes"));
            }
            let read = |body: &mut BodyReader<'_>| {
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
        EnvelopeKind::Takeover => Routed::Takeover {
            peer: body.peer()?,
            ticket: body.u64()?,
            resume: body.added(read_lineage)?,
            owner: body.added(BodyReader::bool)?,
        },
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
                _ => return Err(Malformed("a meeting has an unknown kind")),
            };
            let (about, stay) = (body.peer()?, body.u64()?);
            let count = usize::from(body.u16()?);
            if count > MAX_MEETING {
                return Err(Malformed("a meeting has too many peers"));
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
        | EnvelopeKind::Farewell => return Err(Malformed("an envelope has an unexpected kind")),
    })
}
