//! The cost of a shard's rules without sockets. The benchmark covers a signal from input to drained outputs, an
//! announcement among members, letters between shards, and a frame written for one of many recipients.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::{
    Budget, CloseReason, Discovery, HubId, Input, Keys, Now, Output, PeerId, ResumeKeys, Router, RouterConfig,
    RouterTuning, SessionId, ShardId, Template, ToShard,
};

const NOW: Now = Now { at: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
const KEYS: Keys = Keys(1, 2);

fn peer(number: u32) -> PeerId {
    let mut bytes = [0; 20];
    for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&number.wrapping_add(i as u32).wrapping_mul(0x9e37_79b9).to_be_bytes());
    }
    PeerId::from_bytes(bytes)
}

fn session(slot: u32) -> SessionId {
    SessionId { slot, generation: 0 }
}

struct Shard {
    router: Router,
}

impl Shard {
    fn new(shard: u16, shards: u16, discovery: Discovery) -> Self {
        let config = RouterConfig {
            ice: None,
            shard: ShardId(shard),
            shards,
            keys: KEYS,
            resume_keys: ResumeKeys::new("mesh", b"key", None),
            hub: HubId(peer(u32::MAX)),
            heartbeat: Duration::from_secs(25),
            max_message_bytes: 1024 * 1024,
            max_networks_per_peer: 32,
            max_peers_per_network: 100_000,
            announce_budget_bytes: usize::MAX,
            budget: Budget::UNLIMITED,
            network_budget: Budget::UNLIMITED,
            discovery,
            tuning: RouterTuning::default(),
            meshed: false,
            events: false,
        };
        Self { router: Router::new(config) }
    }

    /// A router with these peers connected and announced in one network. A peer and its session have the same number.
    fn with(shard: u16, shards: u16, peers: impl Iterator<Item = u32>) -> Self {
        Self::new(shard, shards, Discovery::All).joined_by(peers)
    }

    fn joined_by(mut self, peers: impl Iterator<Item = u32>) -> Self {
        for number in peers {
            self.input(Input::Opened {
                session: session(number),
                peer: peer(number),
                seat: true,
                resume: None,
                owner: false,
                grant: None,
            });
            self.says(number, ANNOUNCE);
            self.read(SessionId { slot: number, generation: 0 });
        }
        self
    }

    /// Handles one input, and returns the number of outputs.
    fn input(&mut self, input: Input<'_>) -> usize {
        self.router.handle_input(input, NOW);
        std::iter::from_fn(|| self.router.poll_output()).map(black_box).count()
    }

    fn says(&mut self, number: u32, text: &str) -> usize {
        self.input(Input::Message { session: session(number), text })
    }

    /// Reports to the router that the session's queue has room, until the new member has received the whole roster.
    fn read(&mut self, session: SessionId) {
        let mut more = true;
        while more {
            self.router.handle_input(Input::Room { session }, NOW);
            more = false;
            while let Some(output) = self.router.poll_output() {
                if let Output::Backlog { more: says, .. } = &output {
                    more = *says;
                }
                black_box(output);
            }
        }
    }

    /// A peer joins, discovers the members, is discovered by them, and leaves.
    fn visit(&mut self, session: SessionId, number: u32) {
        self.input(Input::Opened { session, peer: peer(number), seat: true, resume: None, owner: false, grant: None });
        self.input(Input::Message { session, text: black_box(ANNOUNCE) });
        self.read(session);
        self.input(Input::Closed { session, reason: CloseReason::ClientClosed });
    }
}

const ANNOUNCE: &str = r#"{"type":"announce","networkName":"lobby","data":{"name":"Ann","version":"1.2.3"}}"#;

/// The K of DISCOVERY=closest:K.
const CLOSEST: u8 = 16;

fn offer(target: u32, size: usize) -> String {
    let line = r"a=candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host\r\n";
    let sdp = line.repeat(size.saturating_sub(150).div_ceil(line.len()).max(1));
    format!(
        r#"{{"type":"offer","targetPeerId":"{}","networkName":"lobby","data":{{"type":"offer","sdp":"{sdp}"}}}}"#,
        peer(target)
    )
}

/// The first `count` peers whose home shard, in a hub of two shards, is `shard`.
fn at_home(shard: u16, count: usize) -> Vec<u32> {
    (0..).filter(|&number| ShardId::home(&peer(number), 2, KEYS) == ShardId(shard)).take(count).collect()
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for size in [250, 1200, 2500] {
        let text = offer(1, size);
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut shard = Shard::with(0, 1, 0..200);
        group.bench_function(BenchmarkId::new("signal here", size), |b| {
            b.iter(|| assert_eq!(shard.says(0, black_box(&text)), 1));
        });
        let (here, there) = (at_home(0, 100), at_home(1, 100));
        let mut shard = Shard::with(0, 2, here.iter().copied());
        let text = offer(there[0], size);
        group.bench_function(BenchmarkId::new("signal to another shard", size), |b| {
            b.iter(|| assert_eq!(shard.says(here[0], black_box(&text)), 1));
        });
    }
    group.finish();
}

fn roster(c: &mut Criterion) {
    let mut group = c.benchmark_group("roster");
    for members in [10, 100, 1000] {
        let mut shard = Shard::with(0, 1, 0..members);
        group.throughput(Throughput::Elements(u64::from(members)));
        group.bench_function(BenchmarkId::new("a member announces again", members), |b| {
            b.iter(|| shard.says(0, black_box(ANNOUNCE)));
        });
        visit(&mut group, "a peer joins, discovers all, leaves", members, shard);
    }
    for members in [100, 1000, 10_000] {
        let shard = Shard::new(0, 1, Discovery::Closest(CLOSEST)).joined_by(0..members);
        group.throughput(Throughput::Elements(1));
        visit(&mut group, "a peer joins, discovers the closest, leaves", members, shard);
    }
    group.finish();
}

fn visit(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, members: u32, mut shard: Shard) {
    group.bench_function(BenchmarkId::new(name, members), |b| {
        let mut generation = 0;
        b.iter(|| {
            generation += 1;
            // Successive visitors have different peer ids, because the id determines which peers the visitor discovers.
            shard.visit(SessionId { slot: members, generation }, members + generation % 997);
        });
    });
}

/// The letter that shard 0 posts to shard 1 when one of its peers announces itself.
fn joined(number: u32) -> ToShard {
    let mut shard = Shard::new(0, 2, Discovery::All);
    shard.input(Input::Opened {
        session: session(number),
        peer: peer(number),
        seat: true,
        resume: None,
        owner: false,
        grant: None,
    });
    shard.router.handle_input(Input::Message { session: session(number), text: ANNOUNCE }, NOW);
    let letters = std::iter::from_fn(|| shard.router.poll_output())
        .filter_map(|output| if let Output::ToShard { letter, .. } = output { Some(letter) } else { None });
    letters.last().unwrap()
}

fn letters(c: &mut Criterion) {
    let mut group = c.benchmark_group("letters");
    let (here, there) = (at_home(0, 2), at_home(1, 100));
    for members in [10usize, 100] {
        let mut shard = Shard::with(1, 2, there.iter().copied().take(members));
        let letter = joined(here[0]);
        group.throughput(Throughput::Elements(members as u64));
        // The first announcement is a join, and later announcements are updates. All members receive all of them.
        group.bench_function(BenchmarkId::new("an announcement from another shard", members), |b| {
            b.iter_batched(|| letter.clone(), |letter| shard.input(Input::Letter(letter)), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let ToShard::Joined(announcement) = joined(at_home(0, 1)[0]) else { panic!("an announcement makes a join") };
    let template: &Arc<Template> = &announcement.discovered;
    let target = peer(7);
    group.throughput(Throughput::Bytes(template.frame_len() as u64));
    group.bench_function("a frame for one of many recipients", |b| {
        let mut out = Vec::with_capacity(64 * 1024);
        b.iter(|| {
            if out.len() > 60 * 1024 {
                out.clear();
            }
            template.write_to(&mut out, black_box(&target), NOW.wall_ms);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = route, roster, letters, encode
}
criterion_main!(benches);
