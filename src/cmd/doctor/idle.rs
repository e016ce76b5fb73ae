//! Checks how long proxies keep an idle connection open.

use std::time::{Duration, Instant};

use super::finding::{Finding, Topic};
use super::visitor::{Visitor, Welcome};
use crate::client::Ended;

const CHECK: &str = "idle";

/// Time by which the hub's first ping may be late.
const PING_GRACE: Duration = Duration::from_secs(5);

/// Keeps a connection idle for `patience`. Sends only the answers to pings.
pub(super) async fn wait(mut visitor: Visitor, welcome: &Welcome, patience: Duration) -> Finding {
    let begin = Instant::now();
    let ended = visitor.end(patience).await;
    let heartbeat = welcome.heartbeat_ms.map(Duration::from_millis);
    finding(ended, visitor.sender.pongs(), heartbeat, patience, begin.elapsed())
}

/// The finding about an idle connection. `idle` is the time for which the connection was idle, and `pings` is the
/// number of the hub's pings in this time.
fn finding(
    ended: Option<Ended>,
    pings: u64,
    heartbeat: Option<Duration>,
    patience: Duration,
    idle: Duration,
) -> Finding {
    let seconds = idle.as_secs_f64();
    match ended {
        Some(Ended::Closed { code: 1012, reason }) => {
            let message = format!("the hub closed the connection after {seconds:.1} s because it restarts: {reason:?}");
            Finding::problem(CHECK, Topic::HubDrains, message)
        }
        Some(Ended::Closed { code: 4008, .. }) => {
            let message = format!("the hub closed the connection after {seconds:.1} s, because it received no pong");
            Finding::problem(CHECK, Topic::PingsLost, message)
        }
        Some(ended) => {
            let heartbeat = heartbeat.map(|heartbeat| format!("; the hub pings every {} s", heartbeat.as_secs_f64()));
            let message =
                format!("an idle connection was cut after {seconds:.1} s ({ended}){}", heartbeat.unwrap_or_default());
            Finding::problem(CHECK, Topic::IdleCut, message)
        }
        None if pings == 0 && heartbeat.is_some_and(|heartbeat| heartbeat + PING_GRACE < patience) => {
            let message = format!("no ping of the hub arrived in {seconds:.0} s");
            Finding::problem(CHECK, Topic::PingsLost, message)
        }
        None if pings == 0 => {
            let longer = heartbeat.map_or(35, |heartbeat| (heartbeat + 2 * PING_GRACE).as_secs());
            let message = format!(
                "a connection stays open for {seconds:.0} s, which is too short to expect a ping of the hub: \
                 try --patience {longer}s"
            );
            Finding::skipped(CHECK, message)
        }
        None => Finding::ok(CHECK, format!("a connection that only answers pings stays open for {seconds:.0} s")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    #[test]
    fn each_end_of_an_idle_connection_has_its_topic() {
        let secs = Duration::from_secs;
        let closed = |code| Some(Ended::Closed { code, reason: String::new() });
        let lost = Some(Ended::Lost("no close frame".to_owned()));
        for (ended, pings, heartbeat, patience, topic) in [
            (closed(1012), 0, Some(25), 35, Some(Topic::HubDrains)),
            (closed(4008), 0, Some(25), 35, Some(Topic::PingsLost)),
            (closed(1001), 1, Some(25), 35, Some(Topic::IdleCut)),
            (lost, 0, None, 35, Some(Topic::IdleCut)),
            (None, 0, Some(25), 31, Some(Topic::PingsLost)),
            (None, 1, Some(25), 31, None),
            // The hub's first ping may be on its way, or may not be due yet.
            (None, 0, Some(25), 30, None),
            (None, 0, None, 60, None),
        ] {
            let found = finding(ended, pings, heartbeat.map(secs), secs(patience), secs(20));
            assert_eq!(found.topic, topic, "{found:?}");
            let is_proven = pings > 0 && topic.is_none();
            assert_eq!(found.grade == Grade::Ok, is_proven, "{found:?}");
            assert_eq!(found.grade == Grade::Skipped, topic.is_none() && !is_proven, "{found:?}");
        }
        let waits = finding(None, 0, Some(secs(40)), secs(35), secs(35));
        assert!(waits.message.ends_with("try --patience 50s"), "{}", waits.message);
        let cut = finding(Some(Ended::Lost(String::new())), 0, Some(secs(25)), secs(35), secs(20));
        assert!(cut.message.starts_with("an idle connection was cut after 20.0 s"), "{}", cut.message);
    }
}
