//! Limits that tests set to small values.

use crate::limits::{
    MAX_ACQUAINTANCES, MAX_AHEAD_BYTES, MAX_HELD_BYTES, MAX_LEGACY_OWED, MAX_PEERS_PER_HUB, MAX_PEERS_PER_LEGACY_LINK,
    MAX_SIGNALS_IN_FLIGHT, MAX_SNAPSHOT_CHANGES, RANDOM_PICKS, ROSTER_CHUNK, SLICE_CHANGES, SLICE_DISCARDED,
    SLICE_LETTERS, SLICE_PEERS, TURN_OUTPUTS,
};

/// Limits of a [`Router`](crate::Router) that tests reach with few peers. Hubs use the default.
#[derive(Clone, Copy, Debug)]
pub struct RouterTuning {
    /// Number of outputs after which a turn of long work ends. The default is [`TURN_OUTPUTS`].
    pub turn_outputs: usize,
    /// Number of members in a chunk of a roster. The default is [`ROSTER_CHUNK`].
    pub roster_chunk: usize,
    /// Maximum number of acquaintances of a peer in a network. The default is [`MAX_ACQUAINTANCES`].
    pub max_acquaintances: usize,
    /// Number of random members that a new member meets. The default is [`RANDOM_PICKS`].
    pub random_picks: usize,
}

impl Default for RouterTuning {
    fn default() -> Self {
        Self {
            turn_outputs: TURN_OUTPUTS,
            roster_chunk: ROSTER_CHUNK,
            max_acquaintances: MAX_ACQUAINTANCES,
            random_picks: RANDOM_PICKS,
        }
    }
}

/// Limits of a [`Relay`](crate::Relay) that tests reach with few peers. Hubs use the default, except for the two limits
/// in bytes, which are less on a hub with little memory.
#[derive(Clone, Copy, Debug)]
pub struct RelayTuning {
    /// Amount of long work that a relay does in one turn.
    pub slices: Slices,
    /// Maximum number of peers of one hub. The default is [`MAX_PEERS_PER_HUB`].
    pub max_peers_per_hub: usize,
    /// Maximum size of all changes of other hubs that wait for earlier changes, in bytes. The default is
    /// [`MAX_AHEAD_BYTES`].
    pub max_ahead_bytes: usize,
    /// Maximum size of all signals of other hubs that wait for earlier signals, in bytes. The default is
    /// [`MAX_HELD_BYTES`].
    pub max_held_bytes: usize,
    /// Maximum number of signals to one hub without an outcome. The default is [`MAX_SIGNALS_IN_FLIGHT`].
    pub max_signals_in_flight: usize,
    /// Maximum number of peers behind one legacy link. The default is [`MAX_PEERS_PER_LEGACY_LINK`].
    pub max_peers_per_legacy_link: usize,
    /// Maximum number of announcements that wait for room on one legacy link. The default is [`MAX_LEGACY_OWED`].
    pub max_legacy_owed: usize,
}

impl Default for RelayTuning {
    fn default() -> Self {
        Self {
            slices: Slices::default(),
            max_peers_per_hub: MAX_PEERS_PER_HUB,
            max_ahead_bytes: MAX_AHEAD_BYTES,
            max_held_bytes: MAX_HELD_BYTES,
            max_signals_in_flight: MAX_SIGNALS_IN_FLIGHT,
            max_peers_per_legacy_link: MAX_PEERS_PER_LEGACY_LINK,
            max_legacy_owed: MAX_LEGACY_OWED,
        }
    }
}

/// Amount of long work that a [`Relay`](crate::Relay) does in one turn.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    /// Number of letters after which a slice ends. A slice ends only between two peers, so it can exceed this number by
    /// the letters of one peer.
    pub letters: usize,
    /// Maximum number of peers and lost signals that a slice examines.
    pub peers: usize,
    /// Maximum number of changes of one hub that are applied in one turn, if they had to wait for an earlier change.
    pub changes: usize,
    /// Maximum number of peers of discarded replicas that are freed in one turn.
    pub discarded: usize,
    /// Maximum number of peers that may change while one snapshot is sent.
    pub kept: usize,
}

impl Default for Slices {
    fn default() -> Self {
        Self {
            letters: SLICE_LETTERS,
            peers: SLICE_PEERS,
            changes: SLICE_CHANGES,
            discarded: SLICE_DISCARDED,
            kept: MAX_SNAPSHOT_CHANGES,
        }
    }
}
