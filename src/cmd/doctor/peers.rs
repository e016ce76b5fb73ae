//! Checks whether peers of a hub can ping it, join a network, discover each other and send signals.

use std::time::{Duration, Instant};

use proto::PeerId;
use serde_json::json;

use super::address::Reachable;
use super::finding::{Finding, Report, Topic, counted};
use super::upgrade::{Entry, Refusal};
use super::visitor::{Missing, Visitor, Welcome};

/// Maximum time for each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum time for the receipt of an offer, after the wait for the offer's arrival. The limit applies to large offers,
/// and after an offer without a receipt. Without this limit, the doctor would wait for [`PATIENCE`] after each offer to
/// a hub that sends no receipts. The limit can be short, because a hub reports an unknown outcome after 5 s, and the
/// doctor waits as long for the arrival.
const RECEIPT_PATIENCE: Duration = Duration::from_millis(250);

/// Maximum time until peers at two hubs discover each other. A hub that was just linked needs a snapshot.
const MESH_PATIENCE: Duration = Duration::from_secs(10);

const PINGS: usize = 20;

/// Time between two pings. The pings are spread out, so that they notice a hub that is busy only at times.
const PING_PAUSE: Duration = Duration::from_millis(40);

const OFFERS: usize = 20;

/// The hub counts as slow if its answers take longer than a TCP connection by more than these limits. The first limit
/// is for the median time, and the second limit is for the longest time.
const SLOW: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// The size of a large offer of a browser with video, in bytes.
const LARGE: usize = 16 * 1024;

/// The longest message that this program sends, in bytes. The send queue of the client is twice as large as this
/// message.
const LONGEST: usize = 2 * 1024 * 1024;

/// The median and the maximum of the times of several answers.
#[derive(Clone, Copy)]
struct Times {
    median: Duration,
    longest: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        Some(Self { median: *times.get(times.len() / 2)?, longest: *times.last()? })
    }

    fn shown(self) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        format!("{:.2} ms median, {:.2} ms at most", millis(self.median), millis(self.longest))
    }

    fn is_slow(self, rtt: Duration) -> bool {
        self.median > rtt + SLOW.0 || self.longest > rtt + SLOW.1
    }

    /// Returns a warning if the measured times are slow, else a finding with `message`.
    fn finding(self, check: &'static str, rtt: Duration, message: &str) -> Finding {
        let message = format!("{message}: {}", self.shown());
        if self.is_slow(rtt) {
            let connect = rtt.as_secs_f64() * 1000.0;
            let message = format!("{message}; a TCP connection takes {connect:.1} ms");
            Finding::warning(check, Topic::Slow, message)
        } else {
            Finding::ok(check, message)
        }
    }
}

/// Measures the round trip to the hub.
pub(super) async fn ping(visitor: &mut Visitor, reachable: &Reachable, report: &mut Report) {
    const CHECK: &str = "ping";
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let begin = Instant::now();
        visitor.say(r#"{"type":"ping"}"#);
        if let Err(missing) = visitor.expect_kind(PATIENCE, "pong").await {
            report.add(Finding::problem(CHECK, Topic::NoAnswer, format!("no pong: {missing}")));
            return;
        }
        times.push(begin.elapsed());
        tokio::time::sleep(PING_PAUSE).await;
    }
    if let Some(times) = Times::of(times) {
        report.add(times.finding(CHECK, reachable.rtt, &format!("{PINGS} pings are answered")));
    }
}

/// Lets two peers of one hub discover each other and send signals to each other.
pub(super) async fn meet(
    entry: &Entry<'_>,
    first: &mut Visitor,
    welcome: &Welcome,
    reachable: &Reachable,
    report: &mut Report,
) {
    let mut second = match entry.connect().await {
        Ok((visitor, _)) => visitor,
        Err(refusal) => {
            report.add(refusal.finding("announce", entry));
            return;
        }
    };
    let network = format!("doctor-{}", first.id);
    let met = introduce(first, &mut second, &network, PATIENCE).await;
    match met {
        Ok(time) => {
            let millis = time.as_secs_f64() * 1000.0;
            report.add(Finding::ok("announce", format!("two peers discover each other in {millis:.1} ms")));
        }
        Err(why) => {
            report.add(Finding::problem("announce", Topic::Undiscovered, why));
            return;
        }
    }
    if !relay("relay", first, &mut second, &network, (welcome, reachable.rtt), report).await {
        return;
    }
    sizes(first, &mut second, &network, welcome, report).await;
}

/// Lets two peers join a network. Returns the time from the second announcement until the two peers have discovered
/// each other.
async fn introduce(
    first: &mut Visitor,
    second: &mut Visitor,
    network: &str,
    patience: Duration,
) -> Result<Duration, String> {
    let announcement = json!({"type": "announce", "networkName": network, "data": {"name": "peerpigeon doctor"}});
    let announcement = announcement.to_string();
    first.say(&announcement);
    // The hub answers in order, so the first peer is a member when the pong arrives.
    first.say(r#"{"type":"ping"}"#);
    first.expect_kind(patience, "pong").await.map_err(|missing| why(first, "announce", &missing))?;
    let begin = Instant::now();
    second.say(&announcement);
    let (one, two) = (first.id, second.id);
    for (visitor, other) in [(first, two), (second, one)] {
        let found = visitor.expect(patience, |message| {
            message.kind == "peer-discovered" && message.field("peerId").is_some_and(|peer| peer == other.to_string())
        });
        found.await.map_err(|missing| why(visitor, "peer-discovered", &missing))?;
    }
    Ok(begin.elapsed())
}

fn why(visitor: &Visitor, what: &str, missing: &Missing) -> String {
    match &visitor.error {
        Some(error) => format!("no answer to {what}: the hub says {error}"),
        None => format!("no answer to {what}: {missing}"),
    }
}

/// An offer with `data`, a JSON text.
fn offer(target: PeerId, network: &str, id: &str, data: &str) -> String {
    format!(r#"{{"type":"offer","networkName":"{network}","targetPeerId":"{target}","id":"{id}","data":{data}}}"#)
}

/// The result of an offer.
enum Fate {
    /// The offer arrived after this time. If there is a receipt, its outcome is included.
    Arrived(Duration, Option<String>),
    Changed,
    /// The offer did not arrive. The text is the outcome in the receipt, or another reason for the loss.
    Lost(String),
}

/// Sends an offer, waits for its arrival, and then waits for its receipt, for `patience` at most.
async fn send(from: &mut Visitor, to: &mut Visitor, text: &str, (id, data): (&str, &str), patience: Duration) -> Fate {
    let begin = Instant::now();
    from.say(text);
    let sender = from.id.to_string();
    let arrived = to.expect(PATIENCE, |message| message.kind == "offer" && message.from == sender).await;
    // If the offer has arrived, the receipt follows soon. If the offer has not arrived, the outcome in the receipt may
    // be the reason.
    let receipt = from.expect(patience, |message| {
        message.kind == "receipt" && message.field("id").as_deref() == Some(id) || message.kind == "error"
    });
    let receipt = receipt.await;
    let outcome = receipt.as_ref().ok().and_then(|message| message.field("outcome").or_else(|| message.field("code")));
    match (arrived, receipt) {
        (Ok(message), _) if message.data.get() != data => Fate::Changed,
        (Ok(message), _) => {
            let at = message.at.unwrap_or(begin);
            Fate::Arrived(at.saturating_duration_since(begin), outcome)
        }
        (Err(_), Ok(_)) => Fate::Lost(format!("its outcome is {}", outcome.unwrap_or_default())),
        (Err(_), Err(Missing::Ended(ended))) => Fate::Lost(format!("the sender's connection ended: {ended}")),
        (Err(missing), Err(Missing::Late)) => Fate::Lost(missing.to_string()),
    }
}

/// Sends [`OFFERS`] offers, alternately in both directions. Returns whether all of them arrive unchanged.
async fn relay(
    check: &'static str,
    first: &mut Visitor,
    second: &mut Visitor,
    network: &str,
    (welcome, rtt): (&Welcome, Duration),
    report: &mut Report,
) -> bool {
    let mut times = Vec::new();
    let mut receipts = 0;
    let mut patience = PATIENCE;
    // The hub forwards data byte for byte, so numbers keep their digits, and spaces stay.
    let data = r#"{"sdp": "v=0\r\n", "n": 1.50}"#;
    for n in 0..OFFERS {
        let (from, to) = if n % 2 == 0 { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
        let id = format!("doctor-{n}");
        let text = offer(to.id, network, &id, data);
        match send(from, to, &text, (&id, data), patience).await {
            Fate::Arrived(time, outcome) => {
                times.push(time);
                match outcome {
                    Some(_) => receipts += 1,
                    None => patience = RECEIPT_PATIENCE,
                }
            }
            Fate::Changed => {
                let message = "the data of an offer was changed on its way";
                report.add(Finding::problem(check, Topic::SignalChanged, message));
                return false;
            }
            Fate::Lost(why) => {
                let message = format!("offer {} of {OFFERS} did not arrive: {why}", n + 1);
                report.add(Finding::problem(check, Topic::SignalLost, message));
                return false;
            }
        }
    }
    if let Some(times) = Times::of(times) {
        report.add(times.finding(check, rtt, &format!("{OFFERS} offers between two peers arrive")));
    }
    let missing = OFFERS - receipts;
    report.add(if missing == 0 {
        Finding::ok("receipts", format!("each of {OFFERS} offers has a receipt"))
    } else if welcome.protocol.is_none() {
        Finding::note("receipts", Topic::NoReceipt, "the hub sends no receipts")
    } else {
        Finding::problem("receipts", Topic::NoReceipt, format!("{} without a receipt", counted(missing, "offer")))
    });
    true
}

/// Sends large offers.
async fn sizes(first: &mut Visitor, second: &mut Visitor, network: &str, welcome: &Welcome, report: &mut Report) {
    const CHECK: &str = "size";
    const ID: &str = "doctor-size";
    let frame = offer(second.id, network, ID, "\"\"").len();
    let limit = welcome.max_message_bytes.unwrap_or(LARGE);
    let mut sizes = vec![LARGE.min(limit), limit.min(LONGEST)];
    sizes.dedup();
    for size in sizes {
        let data = format!("\"{}\"", "x".repeat(size.saturating_sub(frame)));
        let text = offer(second.id, network, ID, &data);
        let is_limit = if size == limit { " (the hub's limit)" } else { "" };
        let finding = match send(first, second, &text, (ID, &data), RECEIPT_PATIENCE).await {
            Fate::Arrived(time, _) => {
                let millis = time.as_secs_f64() * 1000.0;
                Finding::ok(CHECK, format!("an offer of {size} bytes{is_limit} arrives in {millis:.1} ms"))
            }
            Fate::Changed => {
                Finding::problem(CHECK, Topic::SignalChanged, format!("an offer of {size} bytes arrives changed"))
            }
            Fate::Lost(why) => {
                let message = format!("an offer of {size} bytes{is_limit} does not arrive: {why}");
                Finding::problem(CHECK, Topic::LargeLost, message)
            }
        };
        let failed = finding.topic.is_some();
        report.add(finding);
        if failed {
            return;
        }
    }
}

/// Lets a peer of this hub and a peer of another hub discover each other and send signals to each other.
pub(super) async fn mesh(
    first: &mut Visitor,
    other: &Entry<'_>,
    welcome: &Welcome,
    reachable: &Reachable,
    report: &mut Report,
) {
    const CHECK: &str = "mesh";
    let name = other.url;
    let (mut second, theirs) = match other.connect().await {
        Ok(connected) => connected,
        Err(refusal) => {
            let Finding { grade, topic, message, .. } = Refusal::finding(&refusal, CHECK, other);
            report.add(Finding { check: CHECK, grade, topic, message: format!("{name}: {message}") });
            return;
        }
    };
    let is_one_hub = welcome.hub_id.is_some() && welcome.hub_id == theirs.hub_id;
    let network = format!("doctor-mesh-{}", first.id);
    match introduce(first, &mut second, &network, MESH_PATIENCE).await {
        Ok(time) => {
            let millis = time.as_secs_f64() * 1000.0;
            let same = if is_one_hub { " (both URLs led to one hub)" } else { "" };
            let message = format!("a peer there and a peer here discover each other in {millis:.1} ms{same}");
            report.add(Finding::ok(CHECK, format!("{name}: {message}")));
        }
        Err(why) => {
            let message = format!("{name}: a peer there and a peer here do not discover each other: {why}");
            report.add(Finding::problem(CHECK, Topic::HubsApart, message));
            return;
        }
    }
    relay(CHECK, first, &mut second, &network, (welcome, reachable.rtt), report).await;
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    #[test]
    fn answers_are_slow_if_their_median_or_their_longest_time_is_too_long() {
        let ms = Duration::from_millis;
        let grade = |times: &[u64]| {
            let times = Times::of(times.iter().copied().map(ms).collect()).unwrap();
            times.finding("ping", ms(10), "pings").grade
        };
        assert_eq!(grade(&[30, 30, 210]), Grade::Ok);
        assert_eq!(grade(&[210, 30, 31, 31]), Grade::Warning, "the median is too long");
        assert_eq!(grade(&[211, 1, 1]), Grade::Warning, "the longest time is too long");
        assert!(Times::of(Vec::new()).is_none());
    }
}
