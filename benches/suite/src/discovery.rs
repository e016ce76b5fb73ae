//! Measures joins into one network, one after another: the number of events and the CPU time per join.

use std::io;
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::message;
use crate::server::Server;
use crate::swarm::Swarm;

/// Maximum number of joins that are started before the generator waits for their events. If a tenth of all joins is
/// more than this number, it must be a multiple of this number.
const CHUNK: usize = 50;

/// If no message arrives for this time, all messages have arrived, because a hub never delays a message for so long.
const QUIET: Duration = Duration::from_millis(60);

/// `peers` peers join, then one in twenty leaves.
pub(crate) fn run(server: &Server, peers: usize) -> io::Result<Figures> {
    let mut swarm = Swarm::new()?;
    swarm.connect((0..peers).map(|peer| server.seat(peer, 0)), |_, _| {})?;
    let announce = message::announce(&message::network(0));
    let mut events = 0;
    let mut cpu = server.cpu()?;
    let (mut late_events, mut late_us, mut late_joins) = (0, 0.0, 0);
    // The last tenth of the joins shows the cost of a join into a nearly full network.
    let late = peers - peers / 10;
    let chunk = CHUNK.min(peers / 10).max(1);
    for first in (0..peers).step_by(chunk) {
        let next = peers.min(first + chunk);
        for at in first..next {
            swarm.send(at, &announce)?;
        }
        let came = settle(&mut swarm)?;
        events += came;
        let now = server.cpu()?;
        if first >= late {
            late_events += came;
            late_us += now.clone().since(&cpu).us();
            late_joins += next - first;
        }
        cpu = now;
    }
    if swarm.lost > 0 {
        return Err(io::Error::other(format!("{} connections lost", swarm.lost)));
    }
    let leavers: Vec<usize> = (0..peers).step_by(20).collect();
    let before = server.cpu()?;
    for &at in &leavers {
        swarm.reset(at)?;
    }
    let left = settle(&mut swarm)?;
    let leaving = server.cpu()?.since(&before).us();
    Ok(Figures::from([
        ("events_per_join", events as f64 / peers as f64),
        ("late_events_per_join", late_events as f64 / late_joins.max(1) as f64),
        ("cpu_us", late_us / late_joins.max(1) as f64),
        ("event_us", late_us / late_events.max(1) as f64),
        ("events_per_leave", left as f64 / leavers.len() as f64),
        ("leave_cpu_us", leaving / leavers.len() as f64),
    ]))
}

/// The cost of the same events on the yardstick: the same number of peers, in groups with one sender and many
/// receivers.
pub(crate) fn bare(server: &Server, peers: usize) -> io::Result<Figures> {
    /// Number of peers in a group: one sender, and the 16 closest and four random members that discover it.
    const GROUP: usize = 21;
    let mut swarm = Swarm::new()?;
    let groups = peers / GROUP;
    swarm.connect((0..groups * GROUP).map(|peer| server.seat(peer, peer / GROUP)), |_, _| {})?;
    let chunk = CHUNK.min(groups);
    let (mut events, before) = (0, server.cpu()?);
    for round in 0..(peers / 10).div_ceil(chunk) {
        for group in (0..groups).cycle().skip(round * chunk).take(chunk) {
            let at = group * GROUP + round % GROUP;
            swarm.send(at, &message::discovered(at, group))?;
        }
        events += settle(&mut swarm)?;
    }
    Ok(Figures::from([("event_us", server.cpu()?.since(&before).us() / events.max(1) as f64)]))
}

/// Counts messages until no more arrive.
fn settle(swarm: &mut Swarm) -> io::Result<u64> {
    let (mut events, mut last) = (0, Instant::now());
    while last.elapsed() < QUIET {
        let came = swarm.count_texts(Some(Duration::from_millis(10)))?;
        if came > 0 {
            events += came;
            last = Instant::now();
        }
    }
    Ok(events)
}
