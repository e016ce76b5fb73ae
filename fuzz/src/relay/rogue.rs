//! The envelopes and messages of a hub that does not follow the protocol.

use proto::{HubId, PeerId};

/// Writes the body of an envelope.
pub(super) struct Body(Vec<u8>);

impl Body {
    fn u16(mut self, n: u16) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn byte(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    fn id(mut self, id: &PeerId) -> Self {
        self.0.extend(id.as_bytes());
        self
    }

    fn hub(self, (hub, incarnation): (HubId, u64)) -> Self {
        self.id(&hub.0).u64(incarnation)
    }

    fn text(mut self, text: &str) -> Self {
        self = self.u16(text.len() as u16);
        self.0.extend(text.as_bytes());
        self
    }

    fn data(mut self, text: &str) -> Self {
        self = self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self
    }
}

/// The values that an envelope can contain.
pub(super) struct Parts {
    /// The ids of two hubs, with their incarnations.
    pub(super) hubs: [(HubId, u64); 2],
    pub(super) peers: [PeerId; 2],
    /// The incarnation of a session.
    pub(super) session: u64,
    pub(super) network: &'static str,
    pub(super) numbers: [u64; 2],
}

/// A frame with one envelope of the given kind.
pub(super) fn frame(kind: u8, parts: &Parts) -> Vec<u8> {
    let Parts { hubs: [hub, other], peers: [peer, target], session, network, numbers: [first, second] } = *parts;
    let body = Body(Vec::new());
    let data = format!(r#"{{"peerId":"{peer}","isHub":false}}"#);
    let member = |body: Body| body.text(network).data(&data).u64(second).byte(0);
    let route = |body: Body| body.hub(other).hub(hub).byte(0);
    let kind = kind % 16;
    let (kind, body) = match kind {
        1 => {
            let beat = body.hub(hub).u64(first).u64(second % 4).u64(0).u32(0).byte(0);
            (1, beat.u16(2).id(&hub.0.0).id(&other.0.0).text("").text("").u64(hub.1))
        }
        change @ (2 | 12 | 13 | 14) => {
            let change_body = body.hub(hub).u64(first).id(&peer).u64(session);
            let body = match change {
                2 => member(change_body.byte(1)),
                12 => change_body.byte(0),
                13 => change_body.byte(2).text(network).data("null"),
                _ => change_body.byte(3).byte(second as u8),
            };
            (2, body)
        }
        3 => (3, body.hub(hub).u64(first)),
        4 => {
            let part = body.hub(hub).u64(first).u64(0).u32(second as u32 % 2).byte(1);
            (4, member(part.u32(1).id(&peer).u64(session).u16(1)))
        }
        5 => (5, body.hub(hub)),
        6 => {
            let signal = route(body).u64(first).u64(second).byte(1).byte(0).id(&peer).id(&target).text(network);
            (6, signal.data(r#"{"type":"offer"}"#).byte(1).u64(second))
        }
        7 => (7, route(body).u32(2).u64(first).byte(255).u64(second).byte(first as u8)),
        8 => (8, route(body).id(&peer).u64(first)),
        9 => (9, route(body).id(&peer).u64(first).byte(second as u8 & 1)),
        10 => {
            let meeting = route(body).text(network).byte(first as u8 & 1).byte(second as u8 % 4).id(&peer);
            (10, meeting.u64(first).u16(1).id(&target).u64(second))
        }
        _ => (11, body.hub(hub).u64(first)),
    };
    let mut frame = (body.0.len() as u32 + 1).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(body.0);
    frame
}

/// A message of a Go hub.
pub(super) fn legacy(kind: u8, parts: &Parts) -> String {
    let Parts { hubs: [hub, _], peers: [peer, target], network, .. } = parts;
    let kinds = ["peer-discovered", "offer", "goodbye", "peer-disconnected", "announce", "ping", "connected", "error"];
    let kind = kinds[usize::from(kind % 8)];
    let is_hub = kind == "announce";
    let from = if kind == "peer-discovered" { "system".to_owned() } else { peer.to_string() };
    format!(
        r#"{{"type":"{kind}","data":{{"isHub":{is_hub},"peerId":"{peer}","hubId":"{}"}},"fromPeerId":"{from}","targetPeerId":"{target}","networkName":"{network}","timestamp":1}}"#,
        hub.0
    )
}
