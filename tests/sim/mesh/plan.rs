//! The random configuration of a run.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::{Discovery, HubId, PeerId, RelayTuning, RouterTuning, Slices, limits};

use super::trouble::Trouble;
use crate::rng::Rng;

/// The intended topology.
#[derive(Clone, Copy)]
enum Topology {
    Chain,
    Star,
    Ring,
    Full,
    /// Two full meshes with one link between them.
    Cliques,
    Random,
    /// Parts that only the bridge connects.
    Islands,
}

/// The random configuration that a seed determines, drawn at the start of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) hubs: usize,
    pub(crate) shards: Vec<u16>,
    /// Which hubs behave like version 2.0.0, which has no resume secrets.
    pub(crate) old: Vec<bool>,
    pub(crate) ids: Vec<HubId>,
    pub(crate) edges: BTreeSet<(usize, usize)>,
    /// Which hubs are on the bridge.
    pub(crate) bridged: Vec<bool>,
    /// The bridge loses one message in this many, on average. 0 means that no messages are lost.
    pub(crate) bridge_loses: usize,
    pub(crate) peers: Vec<PeerId>,
    pub(crate) networks: Vec<&'static str>,
    /// Limits of the shards. In many runs, some of the limits are so small that small networks reach them.
    pub(crate) router: RouterTuning,
    /// Limits of the relays.
    pub(crate) relay: RelayTuning,
    /// The hubs' setting MESH_PRESENCE_BYTES.
    pub(crate) presence_bytes: usize,
    /// The hubs' setting DISCOVERY, and whether some peers ask for another value.
    pub(crate) discovery: Discovery,
    pub(crate) mixed: bool,
    /// Maximum transit times of a letter, a frame between hubs, and a frame to a client, in microseconds.
    pub(crate) letter_us: usize,
    pub(crate) link_us: usize,
    pub(crate) write_us: usize,
    /// Number of frames above which a pipe counts as full, and number at which it has room again.
    pub(crate) high: usize,
    pub(crate) low: usize,
    /// Error of each hub's wall clock, in milliseconds.
    pub(crate) skews: Vec<i64>,
    /// Whether no faults occur.
    pub(crate) calm: bool,
    pub(crate) troubles: Vec<usize>,
    /// Whether hubs that are down at the end stay down.
    pub(crate) stays_down: bool,
    pub(crate) length: Duration,
    /// Maximum time between two actions of clients, and between two faults, in milliseconds.
    pub(crate) deed_ms: usize,
    pub(crate) trouble_ms: usize,
    /// On average, one client in this many does not answer pings.
    pub(crate) half_dead: usize,
}

const NETWORKS: [&str; 3] = ["global", "n", "a network with \"quotes\""];

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let hubs = *rng.pick(&[1, 2, 2, 3, 3, 3, 4, 4, 5, 6]);
        let mode = rng.below(8);
        let topology = match mode {
            0 => Topology::Chain,
            1 => Topology::Star,
            2 => Topology::Ring,
            3 | 4 => Topology::Full,
            5 => Topology::Cliques,
            6 => Topology::Random,
            _ => Topology::Islands,
        };
        let edges = edges(topology, hubs, rng);
        let bridged = match (topology, rng.below(6)) {
            (Topology::Islands, 0..3) => vec![true; hubs],
            // At least one hub of each island is on the bridge. One island has the hubs with even numbers, and the
            // other island has the hubs with odd numbers.
            (Topology::Islands, _) => (0..hubs).map(|hub| hub < 2 || rng.one_in(2)).collect(),
            (_, 0) => vec![true; hubs],
            (_, 1) => (0..hubs).map(|_| rng.one_in(2)).collect(),
            _ => vec![false; hubs],
        };
        let calm = rng.one_in(4);
        let mut troubles: Vec<usize> =
            Trouble::FAULTS.iter().map(|trouble| trouble.weight() * rng.pick(&[1, 1, 3])).collect();
        for trouble in Trouble::FAULTS {
            if rng.one_in(3) || (trouble.is_of_the_bridge() && !bridged.contains(&true)) {
                troubles[trouble as usize] = 0;
            }
        }
        troubles[Trouble::Cut as usize] += 1;
        troubles.extend([0, 0]);
        let skew = |rng: &mut Rng| match rng.below(4) {
            0 => rng.below(10_000) as i64 - 5_000,
            1 => rng.below(7_200_000) as i64 - 3_600_000,
            _ => 0,
        };
        let id = |rng: &mut Rng| PeerId::from_bytes(std::array::from_fn(|_| rng.next() as u8));
        let first = rng.below(2);
        // In some runs, hubs are on different continents, so that transit times between hubs exceed GAP_PATIENCE.
        let far = !calm && rng.one_in(6);
        let discovery = if rng.one_in(3) { Discovery::Closest(*rng.pick(&[1, 2, 3, 5])) } else { Discovery::All };
        let mut plan = Self {
            hubs,
            shards: (0..hubs).map(|_| *rng.pick(&[1, 1, 2, 3])).collect(),
            old: if rng.one_in(4) { (0..hubs).map(|_| rng.one_in(2)).collect() } else { vec![false; hubs] },
            ids: (0..hubs).map(|_| HubId(id(rng))).collect(),
            edges,
            bridge_loses: if calm { 0 } else { *rng.pick(&[0, 0, 100, 20, 5]) },
            bridged,
            peers: (0..if rng.one_in(12) { rng.between(70, 160) } else { rng.between(2, 14) })
                .map(|_| id(rng))
                .collect(),
            networks: NETWORKS[first..first + rng.between(1, 2)].to_vec(),
            discovery,
            mixed: rng.one_in(if discovery == Discovery::All { 6 } else { 3 }),
            router: RouterTuning {
                max_acquaintances: if rng.one_in(3) { rng.between(2, 9) } else { limits::MAX_ACQUAINTANCES },
                random_picks: *rng.pick(&[0, 0, 1, limits::RANDOM_PICKS]),
                turn_outputs: *rng.pick(&[1, 1, 5, limits::TURN_OUTPUTS]),
                roster_chunk: *rng.pick(&[1, 3, limits::ROSTER_CHUNK]),
            },
            relay: RelayTuning {
                slices: *rng.pick(&[tiny(1), tiny(1), tiny(3), Slices::default()]),
                ..RelayTuning::default()
            },
            presence_bytes: limits::DEFAULT_MESH_PRESENCE_BYTES,
            // A letter to a busy shard takes longer.
            letter_us: if !calm && rng.one_in(8) { 150_000 } else { *rng.pick(&[10, 1_000, 20_000]) },
            link_us: if far { 400_000 } else { *rng.pick(&[200, 5_000, 50_000]) },
            write_us: *rng.pick(&[100, 5_000, 30_000]),
            // In a run without faults, a pipe never counts as full.
            high: if calm { usize::MAX } else { *rng.pick(if far { &[1_000; 4] } else { &[8, 64, 1_000, 1_000] }) },
            // Between distant hubs, some heartbeats are always in flight, so the number of frames in a pipe never falls
            // to a low mark of 6 or less.
            low: if far { 64 } else { *rng.pick(&[0, 2, 6]) },
            skews: (0..hubs).map(|_| skew(rng)).collect(),
            calm,
            troubles,
            stays_down: rng.one_in(4),
            length: Duration::from_secs(rng.between(10, 50) as u64),
            deed_ms: *rng.pick(&[30, 150, 400]),
            trouble_ms: *rng.pick(&[800, 3_000, 8_000]),
            half_dead: *rng.pick(&[2, 4, 1_000]),
        };
        // The first hub's id decides whether operators act in this run. Drawing a random number instead would have
        // changed the runs of all seeds when operators were added.
        if plan.ids[0].0.as_bytes()[0].is_multiple_of(4) {
            plan.troubles[Trouble::FAULTS.len()..].copy_from_slice(&[4, 1]);
        }
        plan
    }

    pub(crate) fn has(&self, trouble: Trouble) -> bool {
        !self.calm && self.troubles[trouble as usize] > 0
    }

    /// Maximum time that a hub needs to post the leaves of all peers of lost hubs to its shards. A hub posts one slice
    /// at a time, and waits between slices for up to the transit time of a letter.
    pub(crate) fn slices(&self) -> Duration {
        let slices = self.hubs * self.peers.len().div_ceil(self.relay.slices.peers);
        Duration::from_micros((slices * self.letter_us) as u64)
    }

    /// Whether peers can reach their maximum number of acquaintances.
    pub(crate) fn is_crowded(&self) -> bool {
        self.router.max_acquaintances < limits::MAX_ACQUAINTANCES
    }

    /// Whether all traffic of the mesh passes over links.
    pub(crate) fn is_bridgeless(&self) -> bool {
        !self.bridged.contains(&true)
    }
}

/// Slices of this many peers each.
fn tiny(peers: usize) -> Slices {
    Slices { letters: 1, peers, changes: peers, discarded: peers, kept: 4 * peers }
}

fn edges(topology: Topology, hubs: usize, rng: &mut Rng) -> BTreeSet<(usize, usize)> {
    let all = || (0..hubs).flat_map(move |b| (0..b).map(move |a| (a, b)));
    match topology {
        Topology::Chain => (1..hubs).map(|b| (b - 1, b)).collect(),
        Topology::Star => (1..hubs).map(|b| (0, b)).collect(),
        Topology::Ring if hubs < 3 => (1..hubs).map(|b| (b - 1, b)).collect(),
        Topology::Ring => (1..hubs).map(|b| (b - 1, b)).chain([(0, hubs - 1)]).collect(),
        Topology::Full => all().collect(),
        Topology::Cliques => all().filter(|&(a, b)| a % 2 == b % 2 || (a, b) == (0, 1)).collect(),
        Topology::Random => {
            let mut edges: BTreeSet<_> = (1..hubs).map(|b| (rng.below(b), b)).collect();
            edges.extend(all().filter(|_| rng.one_in(4)));
            edges
        }
        Topology::Islands => all().filter(|&(a, b)| a % 2 == b % 2 && rng.one_in(2)).chain(chains(hubs)).collect(),
    }
}

/// Two chains: the even and the odd hubs.
fn chains(hubs: usize) -> impl Iterator<Item = (usize, usize)> {
    (2..hubs).map(|b| (b - 2, b))
}
