//! The presence of one hub: its peers and their memberships. Changes of the hub are applied to the presence. In a
//! replica, a snapshot replaces the presence.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::claim::{Claim, Precedence};
use crate::envelope::{Change, ChangeKind, Presence};
use crate::id::{PeerId, PeerIncarnation};
use crate::limits::{MAX_MEMBERSHIPS, REMOTE_PEER_BYTES};
use crate::router::Announcement;

use super::budgets::{membership_bytes, presence_bytes};

/// A hub's presence after the change `seq`. The hub itself has the original. All other hubs have replicas.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) seq: u64,
    /// Digest of the contents, which is the XOR of the hashes of all sessions and memberships. So the order of sessions
    /// and memberships does not matter.
    pub(super) digest: u64,
    pub(super) peers: BTreeMap<PeerId, Arc<Presence>>,
    /// Size of the contents, in bytes.
    bytes: usize,
    /// Maximum number of peers. A change that would exceed this number is not applied.
    max_peers: usize,
}

/// A peer in a [`Holding`], with the digest and the size of this [`Holding`]. All three change together.
struct Held<'a> {
    presence: &'a mut Arc<Presence>,
    digest: &'a mut u64,
    bytes: &'a mut usize,
}

/// The limit because of which this hub does not apply a change, or ignores another hub's heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PresenceRefusal {
    /// This hub already remembers [`MAX_HUBS`](crate::limits::MAX_HUBS) other hubs, and the new hub replaces none.
    Hubs,
    /// The hub has more than [`MAX_PEERS_PER_HUB`](crate::limits::MAX_PEERS_PER_HUB) peers.
    Peers,
    /// The peer is in more than [`MAX_MEMBERSHIPS`] networks.
    Networks,
    /// The presence of all other hubs takes more than MESH_PRESENCE_BYTES, or the presence of one hub takes more than
    /// half of it.
    Bytes,
    /// More than [`MAX_CHANGES_AHEAD`](crate::limits::MAX_CHANGES_AHEAD) changes of a hub wait for an earlier change.
    /// Or the waiting changes take more than [`MAX_AHEAD_BYTES`](crate::limits::MAX_AHEAD_BYTES), or one hub takes more
    /// than half of this size.
    ChangesAhead,
}

impl PresenceRefusal {
    /// All reasons, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Hubs, Self::Peers, Self::Networks, Self::Bytes, Self::ChangesAhead];

    /// The value of the label `limit` of `peerpigeon_mesh_presence_refused_total`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hubs => "hubs",
            Self::Peers => "peers",
            Self::Networks => "networks",
            Self::Bytes => "bytes",
            Self::ChangesAhead => "changes-ahead",
        }
    }
}

impl Holding {
    pub(super) const fn new(max_peers: usize) -> Self {
        Self { seq: 0, digest: 0, peers: BTreeMap::new(), bytes: 0, max_peers }
    }

    /// Size of the contents, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Applies the next change.
    ///
    /// # Errors
    ///
    /// Returns the limit that the change would exceed, which is the limit of peers, of networks, or of `most` bytes.
    /// The peer or the membership that exceeds the limit is not stored.
    pub(super) fn apply(&mut self, change: &Change, most: usize) -> Result<(), PresenceRefusal> {
        self.seq = change.seq;
        let held = self.peers.get(&change.peer).map(|presence| presence.session);
        let claim = |incarnation| Claim { incarnation, hub: change.hub };
        // A change of a session is ignored if a later session of the peer is known.
        if held.is_some_and(|held| claim(change.session).against(claim(held)) == Precedence::Loses) {
            return Ok(());
        }
        match &change.kind {
            ChangeKind::Up => return self.begin(change.peer, change.session, most).map(|_| ()),
            ChangeKind::Joined(announcement) => return self.enter(announcement, change.session, most),
            ChangeKind::Left { network, .. } if held == Some(change.session) => {
                if let Some(presence) = self.peers.get_mut(&change.peer)
                    // If the peer is not in this network, the leave changes nothing.
                    && let Ok(at) = presence.memberships.binary_search_by(|a| a.network.cmp(network))
                {
                    let left = Arc::make_mut(presence).memberships.remove(at);
                    self.digest ^= membership_hash(&left);
                    self.bytes -= membership_bytes(&left);
                }
            }
            ChangeKind::Down(_) if held == Some(change.session) => self.end(&change.peer),
            ChangeKind::Left { .. } | ChangeKind::Down(_) => {}
        }
        Ok(())
    }

    /// Replaces the whole presence, and returns the peers of the previous one.
    pub(super) fn replace(
        &mut self,
        seq: u64,
        digest: u64,
        peers: BTreeMap<PeerId, Arc<Presence>>,
        bytes: usize,
    ) -> BTreeMap<PeerId, Arc<Presence>> {
        std::mem::replace(self, Self { seq, digest, peers, bytes, ..*self }).peers
    }

    /// Returns the presence of a peer with this session. Adds the peer if it is missing and the limits allow it.
    fn begin(&mut self, peer: PeerId, session: PeerIncarnation, most: usize) -> Result<Held<'_>, PresenceRefusal> {
        if self.peers.get(&peer).is_some_and(|presence| presence.session != session) {
            self.end(&peer);
        }
        let Self { digest, peers, bytes, max_peers, .. } = self;
        let room = peers.len() < *max_peers;
        let presence = match peers.entry(peer) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(_) if !room => return Err(PresenceRefusal::Peers),
            Entry::Vacant(_) if *bytes + REMOTE_PEER_BYTES > most => return Err(PresenceRefusal::Bytes),
            Entry::Vacant(free) => {
                *digest ^= session_hash(&peer, session);
                *bytes += REMOTE_PEER_BYTES;
                free.insert(Arc::new(Presence { peer, session, memberships: Vec::new() }))
            }
        };
        Ok(Held { presence, digest, bytes })
    }

    /// Adds or renews a membership.
    fn enter(
        &mut self,
        announcement: &Arc<Announcement>,
        session: PeerIncarnation,
        most: usize,
    ) -> Result<(), PresenceRefusal> {
        let Held { presence, digest, bytes } = self.begin(announcement.peer, session, most)?;
        let memberships = &mut Arc::make_mut(presence).memberships;
        let at = memberships.binary_search_by(|a| a.network.cmp(&announcement.network));
        if at.is_err() && memberships.len() >= MAX_MEMBERSHIPS {
            return Err(PresenceRefusal::Networks);
        }
        let before = at.map_or(0, |at| membership_bytes(&memberships[at]));
        let after = *bytes - before + membership_bytes(announcement);
        if after > most {
            return Err(PresenceRefusal::Bytes);
        }
        *bytes = after;
        *digest ^= membership_hash(announcement);
        match at {
            Ok(at) => {
                *digest ^= membership_hash(&memberships[at]);
                memberships[at] = Arc::clone(announcement);
            }
            Err(at) => memberships.insert(at, Arc::clone(announcement)),
        }
        Ok(())
    }

    fn end(&mut self, peer: &PeerId) {
        if let Some(presence) = self.peers.remove(peer) {
            self.digest ^= presence_hash(&presence);
            self.bytes -= presence_bytes(&presence);
        }
    }
}

/// The digest of some peers. The XOR of the digests of all parts of a presence is the digest of the whole presence.
pub(super) fn digest<'a>(peers: impl Iterator<Item = &'a Arc<Presence>>) -> u64 {
    peers.fold(0, |digest, presence| digest ^ presence_hash(presence))
}

fn presence_hash(presence: &Presence) -> u64 {
    let session = session_hash(&presence.peer, presence.session);
    presence.memberships.iter().fold(session, |hash, announcement| hash ^ membership_hash(announcement))
}

/// The hash of a session for digests. The key is fixed, and numbers are hashed in little-endian order, because all hubs
/// must compute the same hash.
fn session_hash(peer: &PeerId, session: PeerIncarnation) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(peer.as_bytes());
    hasher.write(&session.0.to_le_bytes());
    hasher.finish()
}

fn membership_hash(announcement: &Announcement) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 1);
    hasher.write(announcement.peer.as_bytes());
    hasher.write(&announcement.claim.incarnation.0.to_le_bytes());
    let network = announcement.network.as_str().as_bytes();
    hasher.write(&(network.len() as u64).to_le_bytes());
    hasher.write(network);
    hasher.write(&announcement.stay.number.to_le_bytes());
    hasher.write(&[announcement.stay.discovery.closest()]);
    hasher.write(announcement.discovered.data());
    hasher.finish()
}
