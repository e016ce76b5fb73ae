//! Checks how long proxies keep an idle connection open.

use std::time::{Duration, Instant};

use super::finding::{Finding, Topic};
use super::visitor::{Visitor, Welcome};
use crate::client::Ended;

const CHECK: &str = "idle";

/// How late the hub's first ping may be.
const PING_GRACE: Duration = Duration::from_secs(5);

/// Sends nothing for `patience`, except answers to pings.
pub(super) async fn wait(mut visitor: Visitor, welcome: &Welcome, patience: Duration) -> Finding {
    let begin = Instant::now();
    let ended = visitor.end(patience).await;
    let seconds = begin.elapsed().as_secs_f64();
    let heartbeat = welcome.heartbeat_ms.map(Duration::from_millis);
    let pings = visitor.sender.pongs();
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
                "a connection stays open for {seconds:.0} s, which is less than the time between two pings of the hub: \
                 try --patience {longer}s"
            );
            Finding::skipped(CHECK, message)
        }
        None => Finding::ok(CHECK, format!("a connection that only answers pings stays open for {seconds:.0} s")),
    }
}
