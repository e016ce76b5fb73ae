//! Compares the cost of a message between two peers of one shard with the cost of a message between two shards.

use std::io;
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::relay::{self, Pair, Plan};
use crate::server::Server;
use crate::swarm::Swarm;

/// Number of peers whose home shards are determined. It takes one tick of the hub to determine one home shard, because
/// the hub publishes its gauges once per tick.
const PEERS: usize = 40;

/// Measures the same peers twice: first with pairs within a shard, and then with pairs across shards.
pub(crate) fn run(server: &Server, plan: Plan, spin: bool) -> io::Result<Figures> {
    let shards = homes(server)?;
    let of = |shard: usize| (0..PEERS).filter(|&peer| shards[peer] == shard).collect::<Vec<_>>();
    let (here, there) = (of(0), of(1));
    let count = here.len().min(there.len()) / 2 * 2;
    if count < 4 {
        return Err(io::Error::other("nearly all peers have the same home shard: run the scenario again"));
    }
    let same: Vec<Pair<'_>> = [&here[..count], &there[..count]]
        .iter()
        .flat_map(|side| side.chunks_exact(2).map(|two| Pair { servers: [server; 2], peers: [two[0], two[1]] }))
        .collect();
    let cross: Vec<Pair<'_>> = (0..count).map(|i| Pair { servers: [server; 2], peers: [here[i], there[i]] }).collect();
    let before = sum(server, LETTERS)?;
    let same = relay::closed(&same, plan, spin)?;
    let middle = sum(server, LETTERS)?;
    let cross = relay::closed(&cross, plan, spin)?;
    let after = sum(server, LETTERS)?;
    // Announcements cause letters, too, but far fewer than the signals.
    let letters_a_message = |figures: &Figures, letters: u64| {
        letters as f64 / (figures["rate"] * (plan.window + relay::WARM_UP).as_secs_f64())
    };
    let letters = [letters_a_message(&same, middle - before), letters_a_message(&cross, after - middle)];
    if letters[0] > 0.1 || letters[1] < 0.5 {
        return Err(io::Error::other(format!(
            "{letters:.2?} letters per message: the pairs are not on the expected shards"
        )));
    }
    Ok(Figures::from([
        ("same_cpu_us", same["cpu_us"]),
        ("cross_cpu_us", cross["cpu_us"]),
        ("cross_by_same", cross["cpu_us"] / same["cpu_us"]),
        ("same_p50_us", same["p50_us"]),
        ("cross_p50_us", cross["p50_us"]),
        ("pairs", count as f64),
        ("same_letters", letters[0]),
        ("cross_letters", letters[1]),
    ]))
}

/// Finds the home shard of each peer: the session count of this shard increases when the peer connects. Hubs draw
/// random keys at the start, so the generator cannot compute home shards.
fn homes(server: &Server) -> io::Result<Vec<usize>> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut swarm = Swarm::new()?;
    let mut before = sessions(server)?;
    let mut homes = Vec::new();
    for peer in 0..PEERS {
        swarm.connect([server.seat(peer, peer)], |_, _| {})?;
        let begin = Instant::now();
        loop {
            let now = sessions(server)?;
            let more: Vec<usize> = (0..now.len()).filter(|&shard| now[shard] != before[shard]).collect();
            match more[..] {
                [home] if now[home] == before[home] + 1 => {
                    homes.push(home);
                    before = now;
                    break;
                }
                [] if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                _ => return Err(io::Error::other(format!("sessions by shard were {before:?} and are {now:?}"))),
            }
        }
    }
    drop(swarm);
    // Waits until the ids of these peers are free again.
    let begin = Instant::now();
    while sessions(server)?.iter().sum::<u64>() > 0 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(homes)
}

/// Sessions by shard.
fn sessions(server: &Server) -> io::Result<Vec<u64>> {
    by_shard(server, "peerpigeon_shard_sessions")
}

const LETTERS: &str = "peerpigeon_shard_letters_total";

/// Sum of a metric over all shards, after the hub has published its metrics again.
fn sum(server: &Server, metric: &str) -> io::Result<u64> {
    std::thread::sleep(Duration::from_millis(300));
    Ok(by_shard(server, metric)?.iter().sum())
}

fn by_shard(server: &Server, metric: &str) -> io::Result<Vec<u64>> {
    let page = server.get("/metrics")?;
    let mut shards = Vec::new();
    for line in page.lines() {
        let Some((shard, count)) = line
            .strip_prefix(metric)
            .and_then(|rest| rest.strip_prefix(r#"{shard=""#))
            .and_then(|rest| rest.split_once(r#""} "#))
            .and_then(|(shard, count)| Some((shard.parse::<usize>().ok()?, count.trim().parse::<f64>().ok()?)))
        else {
            continue;
        };
        shards.resize(shards.len().max(shard + 1), 0);
        shards[shard] = count as u64;
    }
    Ok(shards)
}
