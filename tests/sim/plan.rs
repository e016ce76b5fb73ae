//! The random configuration of a run.

use std::time::Duration;

use proto::{
    Allowance, Budget, BudgetItem, HubId, Keys, PeerId, ResumeKeys, RouterConfig, RouterTuning, ShardId, limits,
};

use crate::rng::Rng;

/// A possible next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    Open,
    Say,
    Read,
    Post,
    Write,
    Room,
    Lose,
    Hang,
    Wait,
    WaitLong,
    Drain,
    Oddity,
    Flood,
}

impl Deed {
    const ALL: [Self; 13] = [
        Self::Open,
        Self::Say,
        Self::Read,
        Self::Post,
        Self::Write,
        Self::Room,
        Self::Lose,
        Self::Hang,
        Self::Wait,
        Self::WaitLong,
        Self::Drain,
        Self::Oddity,
        Self::Flood,
    ];

    /// Relative frequency of a step. The plan of a run multiplies the frequency by 1, 2 or 5 at random, or omits the
    /// step.
    const fn weight(self) -> usize {
        match self {
            Self::Open => 6,
            Self::Say | Self::Write | Self::Read => 30,
            Self::Post => 40,
            Self::Room => 20,
            Self::Lose | Self::Hang | Self::WaitLong => 2,
            Self::Wait => 10,
            Self::Drain | Self::Oddity | Self::Flood => 1,
        }
    }
}

/// A message of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Saying {
    Announce,
    Goodbye,
    Signal,
    /// A signal, immediately followed by the sender's leave.
    Parting,
    Nonsense,
    Close,
}

/// The random configuration that a seed determines, drawn at the start of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: RouterConfig,
    pub(crate) peers: Vec<PeerId>,
    pub(crate) networks: Vec<&'static str>,
    pub(crate) queue_frames: usize,
    pub(crate) low_water: usize,
    pub(crate) seats: usize,
    pub(crate) steps: usize,
    /// Maximum number of messages that a session sends at random. This maximum keeps sessions that do not flood below
    /// the rate limit.
    pub(crate) sayings_per_session: usize,
    /// Whether some sessions have grants.
    pub(crate) has_grants: bool,
    deeds: Vec<usize>,
    sayings: Vec<usize>,
}

const NETWORKS: [&str; 5] = ["global", "n", "N", "a network with \"quotes\" \\ and é", "mesh"];

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // In a few runs, networks are so large that a roster does not fit into one chunk.
        let crowd = rng.one_in(100);
        let peers = match rng.below(8) {
            _ if crowd => rng.between(140, 280),
            0 => rng.between(20, 60),
            _ => rng.between(2, 16),
        };
        let peers = (0..peers).map(|_| PeerId::from_bytes(std::array::from_fn(|_| rng.next() as u8))).collect();
        let first = rng.below(2);
        let networks = NETWORKS[first..first + if crowd { 1 } else { rng.between(1, 4) }].to_vec();
        let floods = rng.one_in(6);
        let roster_chunk = if crowd { limits::ROSTER_CHUNK } else { *rng.pick(&[1, 1, 2, 3, 7, limits::ROSTER_CHUNK]) };
        let config = RouterConfig {
            ice: None,
            discovery: proto::Discovery::All,
            shard: ShardId(0),
            shards: *rng.pick(&[1, 2, 2, 3, 4, 6]),
            keys: Keys(rng.next(), rng.next()),
            resume_keys: ResumeKeys::new("mesh", b"key", None),
            hub: HubId(PeerId::from_bytes([7; 20])),
            heartbeat: Duration::from_secs(25),
            max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
            max_networks_per_peer: *rng.pick(&[1, 2, 32, 32]),
            max_peers_per_network: *rng.pick(&[3, 1000, 1000, 1000]),
            announce_budget_bytes: usize::MAX,
            budget: Budget::UNLIMITED
                .with(BudgetItem::Messages, if floods { Allowance::new(40, 200) } else { Allowance::UNLIMITED })
                .with(BudgetItem::Errors, Allowance::new(20, 100)),
            network_budget: Budget::UNLIMITED,
            meshed: false,
            events: true,
            tuning: RouterTuning {
                roster_chunk,
                turn_outputs: *rng.pick(&[1, 1, 5, limits::TURN_OUTPUTS]),
                ..RouterTuning::default()
            },
        };
        let mut deeds: Vec<usize> = Deed::ALL.iter().map(|deed| deed.weight() * rng.pick(&[1, 1, 2, 5])).collect();
        // Some runs omit some of these steps, so that other steps occur more often.
        for rare in [Deed::Lose, Deed::Hang, Deed::WaitLong, Deed::Drain, Deed::Oddity, Deed::Room] {
            if rng.one_in(3) {
                deeds[rare as usize] = 0;
            }
        }
        if !floods {
            deeds[Deed::Flood as usize] = 0;
        }
        let weight = |rng: &mut Rng, usual: usize| usual * rng.pick(&[1, 2, 4]);
        Self {
            config,
            peers,
            networks,
            queue_frames: *rng.pick(&[6, 20, 100, 10_000, 10_000]),
            low_water: rng.between(1, 10),
            seats: *rng.pick(&[3, 1000, 1000, 1000]),
            steps: rng.between(200, 1200),
            sayings_per_session: if floods { 150 } else { usize::MAX },
            deeds,
            sayings: vec![weight(rng, 4), weight(rng, 1), weight(rng, 8), rng.below(3), weight(rng, 1), rng.below(2)],
            has_grants: rng.one_in(3),
        }
    }

    pub(crate) fn deed(&self, rng: &mut Rng) -> Deed {
        Deed::ALL[rng.weighted(&self.deeds)]
    }

    pub(crate) fn saying(&self, rng: &mut Rng) -> Saying {
        [Saying::Announce, Saying::Goodbye, Saying::Signal, Saying::Parting, Saying::Nonsense, Saying::Close]
            [rng.weighted(&self.sayings)]
    }
}
