use std::collections::BTreeMap;

use proto::{ClientMessage, MessageKind, PeerId, RefusedMessage};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A client that tracks the members of its networks and checks the hub's messages.
pub(super) struct Client {
    pub(super) peer: PeerId,
    networks: BTreeMap<String, Network>,
    /// For each message id, the number of requested receipts minus the number of received receipts.
    receipts: BTreeMap<String, i32>,
}

/// A network that the client is in.
#[derive(Default)]
struct Network {
    /// The number of announcements of this client in the network. After each announcement, the hub may announce every
    /// member to this client again.
    announced: i32,
    others: BTreeMap<PeerId, Other>,
}

#[derive(Default)]
struct Other {
    known: bool,
    /// The number of announcements of the other peer, minus the number of times that this client has discovered it.
    due: i32,
}

impl Client {
    pub(super) fn new(peer: PeerId) -> Self {
        Self { peer, networks: BTreeMap::new(), receipts: BTreeMap::new() }
    }

    pub(super) fn is_member(&self, network: &str) -> bool {
        self.networks.contains_key(network)
    }

    pub(super) fn knows(&self, network: &str, peer: &PeerId) -> bool {
        self.networks.get(network).and_then(|network| network.others.get(peer)).is_some_and(|other| other.known)
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (&str, PeerId)> {
        self.networks.iter().flat_map(|(name, network)| {
            network.others.iter().filter(|(_, other)| other.known).map(|(peer, _)| (name.as_str(), *peer))
        })
    }

    pub(super) fn said(&mut self, message: &Result<ClientMessage<'_>, Box<RefusedMessage<'_>>>) {
        let receipt = match message {
            Ok(ClientMessage::Signal(signal)) => signal.id.as_deref(),
            Ok(_) => None,
            Err(refusal) => refusal.id.as_deref().filter(|_| matches!(refusal.kind, MessageKind::Signal(_))),
        };
        if let Some(id) = receipt {
            *self.receipts.entry(id.to_owned()).or_default() += 1;
        }
    }

    /// Records that the hub has processed an announcement of this client while the announcements of these peers were in
    /// flight to the client's shard.
    pub(super) fn announced(&mut self, network: &str, on_their_way: &[PeerId]) {
        let network = self.networks.entry(network.to_owned()).or_default();
        network.announced += 1;
        if network.announced == 1 {
            for peer in on_their_way {
                network.others.entry(*peer).or_default().due += 1;
            }
        }
    }

    /// Records that another member has announced itself.
    pub(super) fn may_hear_of(&mut self, network: &str, peer: PeerId) {
        if let Some(network) = self.networks.get_mut(network) {
            network.others.entry(peer).or_default().due += 1;
        }
    }

    /// Records that this client is no longer a member of a network, or of any network. From now on, the client must not
    /// receive events of the network.
    pub(super) fn left(&mut self, network: Option<&str>) {
        self.check_was_told_once();
        self.networks.retain(|name, _| network.is_some_and(|network| network != name));
    }

    pub(super) fn hear(&mut self, frame: &[u8], kind: MessageKind, from_member: bool) {
        let text = payload(frame);
        let heard: Heard<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
        assert_eq!(heard.kind, kind.label(), "in {text}");
        assert!(heard.target_peer_id.is_none_or(|to| to == self.peer.to_string()), "{} hears {text}", self.peer);
        let named = |id: &str| id.parse::<PeerId>().unwrap_or_else(|_| panic!("{id} is not an id in {text}"));
        match heard.kind {
            "peer-discovered" => {
                let peer = named(heard.about().peer_id);
                assert_ne!(peer, self.peer, "a peer discovered itself");
                let network = self.networks.get_mut(&heard.network_name);
                let network = network.unwrap_or_else(|| {
                    panic!("{} received a message of a network that it is not in: {text}", self.peer)
                });
                let other = network.others.entry(peer).or_default();
                other.known = true;
                other.due -= 1;
            }
            "peer-disconnected" | "goodbye" => {
                let peer = if heard.kind == "goodbye" { heard.from_peer_id } else { heard.about().peer_id };
                let network = self.networks.get_mut(&heard.network_name);
                let other = network.and_then(|network| network.others.get_mut(&named(peer)));
                let known = other.is_some_and(|other| std::mem::take(&mut other.known));
                assert!(known, "{} received a leave without a discovery: {text}", self.peer);
            }
            "receipt" => {
                let open = self.receipts.entry(heard.about().id.unwrap_or_default()).or_default();
                *open -= 1;
                assert!(*open >= 0, "unexpected receipt: {text}");
            }
            // An operator has removed this client from the network. (If the error has `inReplyTo`, it only refuses an
            // announcement.)
            "error" if heard.about().code == "kicked" && heard.about().in_reply_to.is_none() => {
                self.left(Some(&heard.network_name));
            }
            "connected" | "error" | "go-away" | "pong" => {}
            _ if from_member && self.is_member(&heard.network_name) => {
                let from = named(heard.from_peer_id);
                let known = from == self.peer || self.knows(&heard.network_name, &from);
                assert!(known, "{} received a signal of a peer that it has not discovered: {text}", self.peer);
            }
            _ => {}
        }
    }

    /// Checks that the client has discovered each peer at most once per announcement of the client or of that peer.
    pub(super) fn check_was_told_once(&self) {
        for (name, network) in &self.networks {
            for (peer, other) in &network.others {
                let due = network.announced + other.due;
                assert!(due >= 0, "{} discovered {peer} in {name} {} times too often", self.peer, -due);
            }
        }
    }

    pub(super) fn check_has_its_receipts(&self) {
        assert!(self.receipts.values().all(|&open| open == 0), "missing receipts: {:?}", self.receipts);
    }
}

/// The parts of the hub's messages that a client examines.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Heard<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    from_peer_id: &'a str,
    target_peer_id: Option<&'a str>,
    network_name: String,
    #[serde(rename = "timestamp")]
    _timestamp: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    #[serde(default)]
    peer_id: &'a str,
    id: Option<String>,
    #[serde(default)]
    code: &'a str,
    in_reply_to: Option<&'a str>,
}

impl Heard<'_> {
    fn about(&self) -> About<'_> {
        serde_json::from_str(self.data.get()).unwrap_or_else(|error| panic!("{error} in {}", self.data))
    }
}

/// The text of a frame from the hub. The frame must be unmasked and unfragmented, with its length in the shortest form.
fn payload(frame: &[u8]) -> &str {
    let (length, payload) = match frame {
        [0x81, 126, high, low, payload @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), payload),
        [0x81, 127, 0, 0, 0, 0, 0, a, b, c, payload @ ..] => {
            (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c), payload)
        }
        [0x81, length @ ..=125, payload @ ..] => (usize::from(*length), payload),
        _ => panic!("{frame:02x?} is not a text frame"),
    };
    assert_eq!(payload.len(), length, "the length in the header is wrong");
    assert_eq!(frame.len() - length, proto::ws::header_len(length), "the header does not have the shortest form");
    std::str::from_utf8(payload).unwrap_or_else(|error| panic!("{error} in {payload:02x?}"))
}
