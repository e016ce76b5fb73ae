//! The cost of a join and of a leave under bounded discovery (DISCOVERY=closest:16), in networks of three sizes and
//! hubs of one and two shards. The benchmark measures routers without sockets, and delivers letters immediately. The
//! cost should be the same for all sizes of networks. The benchmark also prints the number of events that a join and a
//! leave cause.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

#[path = "../proto/tests/discovery/crowd.rs"]
#[allow(dead_code, reason = "the tests use more of this module")]
mod crowd;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use crowd::{Crowd, any_id};
use proto::Discovery;
use proto::limits::MAX_ACQUAINTANCES;

const CLOSEST: u8 = 16;

/// The measured part of a stay: its start or its end.
#[derive(Clone, Copy)]
enum Half {
    Join,
    Leave,
}

fn joins(c: &mut Criterion) {
    let mut group = c.benchmark_group("bounded discovery");
    for shards in [1, 2] {
        for peers in [100, 10_000, 100_000] {
            let mut crowd = Crowd::new(shards, Discovery::Closest(CLOSEST), MAX_ACQUAINTANCES).forgetful();
            for n in 0..peers {
                crowd.joins(any_id(n));
            }
            let mut next = peers;
            let (mut visits, mut joined, mut left) = (0, 0, 0);
            for (name, half) in [("a join", Half::Join), ("a leave", Half::Leave)] {
                let name = format!("{name}, {shards} shards");
                group.bench_function(BenchmarkId::new(name, peers), |b| {
                    b.iter_custom(|times| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..times {
                            let newcomer = any_id(next);
                            next += 1;
                            crowd.opens(newcomer);
                            let begun = Instant::now();
                            joined += crowd.announces(newcomer);
                            let there = Instant::now();
                            left += crowd.leaves(newcomer);
                            spent += match half {
                                Half::Join => there - begun,
                                Half::Leave => there.elapsed(),
                            };
                            visits += 1;
                        }
                        spent
                    });
                });
            }
            let (joined, left) = (joined as f64 / f64::from(visits), left as f64 / f64::from(visits));
            println!("{peers} peers, {shards} shards: {joined:.1} events a join, {left:.1} a leave");
        }
    }
    group.finish();
}

criterion_group!(benches, joins);
criterion_main!(benches);
