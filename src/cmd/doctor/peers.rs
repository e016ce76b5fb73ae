//! Checks whether peers of a hub can ping it, join a network, discover each other and send signals.

use std::time::{Duration, Instant};

use proto::PeerId;
use serde_json::json;

use super::address;
use super::apart::{self, Operator};
use super::finding::{Finding, Grade, Report, Topic, counted};
use super::pace::{LARGE, PATIENCE, Pace, Times, millis, transfer};
use super::upgrade::{Entry, Refusal};
use super::visitor::{Missing, Visitor, Welcome};

/// Maximum time for the receipt of an offer, after the wait for the offer's arrival. The limit applies to large offers,
/// and after an offer without a receipt. Without this limit, the doctor would wait for [`PATIENCE`](super::pace::PATIENCE) after each offer to
/// a hub that sends no receipts. The limit can be short, because a hub reports an unknown outcome after 5 s, and the
/// doctor waits as long for the arrival.
const RECEIPT_PATIENCE: Duration = Duration::from_millis(250);

/// Maximum time until peers at two hubs discover each other. A hub that was just linked needs a snapshot.
const MESH_PATIENCE: Duration = Duration::from_secs(10);

const PINGS: usize = 20;

/// Time between two pings. The pings are spread out, so that they notice a hub that is busy only at times.
const PING_PAUSE: Duration = Duration::from_millis(40);

const OFFERS: usize = 20;

/// Maximum number of measured discoveries, and of measured offers of [`LARGE`] bytes. A single answer can be slow by
/// chance, so the doctor repeats a slow check and uses the median.
const REPEATS: usize = 5;

/// Time after which a slow check is not repeated again.
const REPEATS_TIME: Duration = Duration::from_secs(5);

/// The longest message that this program sends, in bytes. The send queue of the client is twice as large as this
/// message.
const LONGEST: usize = 2 * 1024 * 1024;

/// Pings the hub, and measures the round trips.
async fn pings(visitor: &mut Visitor) -> Result<Option<Times>, Missing> {
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let begin = Instant::now();
        visitor.say(r#"{"type":"ping"}"#);
        visitor.expect_kind(PATIENCE, "pong").await?;
        times.push(begin.elapsed());
        tokio::time::sleep(PING_PAUSE).await;
    }
    Ok(Times::of(times))
}

/// Measures the round trip to the hub.
pub(super) async fn ping(visitor: &mut Visitor, pace: &mut Pace, report: &mut Report) {
    const CHECK: &str = "ping";
    match pings(visitor).await {
        Ok(Some(times)) => {
            let grade = pace.add("pings", times, pace.rtt);
            report.add(answers(CHECK, grade, times, pace));
        }
        Ok(None) => {}
        Err(missing) => report.add(Finding::problem(CHECK, Topic::NoAnswer, format!("no pong: {missing}"))),
    }
}

/// The finding about the pings of a hub.
fn answers(check: &'static str, grade: Grade, times: Times, pace: &Pace) -> Finding {
    if grade == Grade::Ok {
        return Finding::ok(check, format!("{PINGS} pings are answered: {}", times.shown()));
    }
    let message = format!("the hub answers slowly: {PINGS} pings take {}; {}", times.shown(), pace.beside());
    Finding::graded(check, grade, Topic::Slow, message)
}

/// Lets two peers of one hub discover each other and send signals to each other.
pub(super) async fn meet(
    entry: &Entry<'_>,
    first: &mut Visitor,
    welcome: &Welcome,
    pace: &mut Pace,
    report: &mut Report,
) {
    const CHECK: &str = "announce";
    let mut second = match entry.connect().await {
        Ok((visitor, _)) => visitor,
        Err(refusal) => {
            report.add(refusal.finding(CHECK, entry));
            return;
        }
    };
    let network = format!("doctor-{}", first.id);
    let patience = pace.patience(0);
    match discoveries(first, &mut second, &network, pace.rtt, patience).await {
        Ok(Some(times)) => {
            let grade = pace.add("discovery", times, pace.rtt);
            let message = format!("two peers discover each other in {:.1} ms", millis(times.median));
            report.add(Finding::timed(CHECK, grade, Topic::Slow, message, &pace.beside()));
        }
        Ok(None) => {}
        Err((why, is_late)) => {
            report.add(if is_late {
                pace.late(CHECK, Topic::Undiscovered, why, patience)
            } else {
                Finding::problem(CHECK, Topic::Undiscovered, why)
            });
            return;
        }
    }
    let path =
        Path { check: "relay", what: "", network: &network, rtt: pace.rtt, slow: Topic::Slow, beside: pace.beside() };
    if relay(&path, first, &mut second, welcome, pace, report).await {
        sizes(first, &mut second, &network, welcome, pace, report).await;
    }
}

/// Lets two peers discover each other. If the first discovery takes much longer than `rtt`, they discover each other
/// again in other networks. Returns the times, or why they do not discover each other, and whether an answer was late.
async fn discoveries(
    first: &mut Visitor,
    second: &mut Visitor,
    network: &str,
    rtt: Duration,
    patience: Duration,
) -> Result<Option<Times>, (String, bool)> {
    let begin = Instant::now();
    let mut times = vec![introduce(first, second, network, patience).await?];
    while times.len() < REPEATS
        && begin.elapsed() < REPEATS_TIME
        && Times::of(times.clone()).is_some_and(|times| times.grade(rtt) > Grade::Ok)
    {
        match introduce(first, second, &format!("{network}-{}", times.len()), patience).await {
            Ok(time) => times.push(time),
            Err(_) => break,
        }
    }
    Ok(Times::of(times))
}

/// Lets two peers join a network. Returns the time from the second announcement until the two peers have discovered
/// each other. If they do not, returns why, and whether an answer was late.
async fn introduce(
    first: &mut Visitor,
    second: &mut Visitor,
    network: &str,
    patience: Duration,
) -> Result<Duration, (String, bool)> {
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

fn why(visitor: &Visitor, what: &str, missing: &Missing) -> (String, bool) {
    match &visitor.error {
        Some(error) => (format!("no answer to {what}: the hub says {error}"), false),
        None => (format!("no answer to {what}: {missing}"), matches!(missing, Missing::Late)),
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
    /// The offer did not arrive in time, and no outcome says why. The text says what arrived instead.
    Late(String),
    /// The offer did not arrive. The text is the outcome in the receipt, or another reason for the loss.
    Lost(String),
}

/// The text of an offer, its id, and its data.
struct Offer<'a> {
    text: &'a str,
    id: &'a str,
    data: &'a str,
}

/// Sends an offer, waits for its arrival for `patience` at most, and then waits for its receipt for `for_receipt` at
/// most.
async fn send(
    from: &mut Visitor,
    to: &mut Visitor,
    offer: Offer<'_>,
    patience: Duration,
    for_receipt: Duration,
) -> Fate {
    let begin = Instant::now();
    from.say(offer.text);
    let sender = from.id.to_string();
    let arrived = to.expect(patience, |message| message.kind == "offer" && message.from == sender).await;
    // If the offer has arrived, the receipt follows soon. If the offer has not arrived, the outcome in the receipt may
    // be the reason.
    let receipt = from.expect(for_receipt, |message| {
        message.kind == "receipt" && message.field("id").as_deref() == Some(offer.id) || message.kind == "error"
    });
    let receipt = receipt.await;
    let outcome = receipt.as_ref().ok().and_then(|message| message.field("outcome").or_else(|| message.field("code")));
    match (arrived, receipt) {
        (Ok(message), _) if message.data.get() != offer.data => Fate::Changed,
        (Ok(message), _) => {
            let at = message.at.unwrap_or(begin);
            Fate::Arrived(at.saturating_duration_since(begin), outcome)
        }
        (Err(missing), Ok(_)) => {
            let outcome = outcome.unwrap_or_default();
            let why = format!("its outcome is {outcome}");
            let is_on_its_way = matches!(missing, Missing::Late) && matches!(outcome.as_str(), "delivered" | "unknown");
            if is_on_its_way { Fate::Late(why) } else { Fate::Lost(why) }
        }
        (Err(_), Err(Missing::Ended(ended))) => Fate::Lost(format!("the sender's connection ended: {ended}")),
        (Err(missing @ Missing::Late), Err(Missing::Late)) => Fate::Late(missing.to_string()),
        (Err(missing @ Missing::Ended(_)), Err(Missing::Late)) => Fate::Lost(missing.to_string()),
    }
}

/// The path of offers between two peers.
struct Path<'a> {
    check: &'static str,
    /// The beginning of the messages, such as the name of another hub.
    what: &'a str,
    network: &'a str,
    /// The time that an offer should take.
    rtt: Duration,
    /// The topic if the offers take longer.
    slow: Topic,
    /// Added to the message if the offers take longer.
    beside: String,
}

/// Sends [`OFFERS`] offers, alternately in both directions. Returns whether all of them arrive unchanged.
async fn relay(
    path: &Path<'_>,
    first: &mut Visitor,
    second: &mut Visitor,
    welcome: &Welcome,
    pace: &mut Pace,
    report: &mut Report,
) -> bool {
    let Path { check, what, network, .. } = *path;
    let mut times = Vec::new();
    let mut receipts = 0;
    let patience = pace.patience(0);
    let mut for_receipt = patience;
    // The hub forwards data byte for byte, so numbers keep their digits, and spaces stay.
    let data = r#"{"sdp": "v=0\r\n", "n": 1.50}"#;
    for n in 0..OFFERS {
        let (from, to) = if n % 2 == 0 { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
        let id = format!("doctor-{n}");
        let text = offer(to.id, network, &id, data);
        let lost = |why: String| format!("{what}offer {} of {OFFERS} did not arrive: {why}", n + 1);
        match send(from, to, Offer { text: &text, id: &id, data }, patience, for_receipt).await {
            Fate::Arrived(time, outcome) => {
                times.push(time);
                match outcome {
                    Some(_) => receipts += 1,
                    None => for_receipt = RECEIPT_PATIENCE,
                }
            }
            Fate::Changed => {
                let message = format!("{what}the data of an offer was changed on its way");
                report.add(Finding::problem(check, Topic::SignalChanged, message));
                return false;
            }
            Fate::Late(why) => {
                report.add(pace.late(check, Topic::SignalLost, lost(why), patience));
                return false;
            }
            Fate::Lost(why) => {
                report.add(Finding::problem(check, Topic::SignalLost, lost(why)));
                return false;
            }
        }
    }
    if let Some(times) = Times::of(times) {
        let grade = pace.add(format!("{what}offers"), times, path.rtt);
        let message = format!("{what}{OFFERS} offers between two peers arrive: {}", times.shown());
        report.add(Finding::timed(check, grade, path.slow, message, &path.beside));
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
async fn sizes(
    first: &mut Visitor,
    second: &mut Visitor,
    network: &str,
    welcome: &Welcome,
    pace: &mut Pace,
    report: &mut Report,
) {
    let limit = welcome.max_message_bytes.unwrap_or(LARGE);
    let mut sizes = vec![LARGE.min(limit), limit.min(LONGEST)];
    sizes.dedup();
    for size in sizes {
        let is_limit = if size == limit { " (the hub's limit)" } else { "" };
        let what = format!("an offer of {size} bytes{is_limit}");
        let finding = offers_of(size, &what, (first, second), network, pace).await;
        let failed = finding.topic.is_some_and(|topic| topic != Topic::Slow);
        report.add(finding);
        if failed {
            return;
        }
    }
}

/// Sends an offer of this size. If the offer is slow and has at most [`LARGE`] bytes, it is sent again.
async fn offers_of(
    size: usize,
    what: &str,
    (first, second): (&mut Visitor, &mut Visitor),
    network: &str,
    pace: &mut Pace,
) -> Finding {
    const CHECK: &str = "size";
    let (expected, patience) = (pace.rtt + transfer(size), pace.patience(size));
    let begin = Instant::now();
    let mut times = Vec::new();
    let times = loop {
        let id = format!("doctor-size-{size}-{}", times.len());
        let frame = offer(second.id, network, &id, "\"\"").len();
        let data = format!("\"{}\"", "x".repeat(size.saturating_sub(frame)));
        let text = offer(second.id, network, &id, &data);
        match send(first, second, Offer { text: &text, id: &id, data: &data }, patience, RECEIPT_PATIENCE).await {
            Fate::Arrived(time, _) => times.push(time),
            Fate::Changed => {
                let message = format!("an offer of {size} bytes arrives changed");
                return Finding::problem(CHECK, Topic::SignalChanged, message);
            }
            Fate::Late(why) => {
                return pace.late(CHECK, Topic::LargeLost, format!("{what} does not arrive: {why}"), patience);
            }
            Fate::Lost(why) => {
                return Finding::problem(CHECK, Topic::LargeLost, format!("{what} does not arrive: {why}"));
            }
        }
        let measured = Times::of(times.clone());
        let is_slow = measured.is_some_and(|times| times.grade(expected) > Grade::Ok);
        let may_repeat = size <= LARGE && times.len() < REPEATS && begin.elapsed() < REPEATS_TIME;
        if let Some(measured) = measured.filter(|_| !is_slow || !may_repeat) {
            break measured;
        }
    };
    let beside = pace.beside();
    // Few applications send larger messages, and on a slow line they take long although the hub is quick.
    let grade = if size <= LARGE {
        pace.add(format!("offers of {size} bytes"), times, expected)
    } else {
        times.grade(expected).min(Grade::Warning)
    };
    let message = format!("{what} arrives in {:.1} ms", millis(times.median));
    Finding::timed(CHECK, grade, Topic::Slow, message, &beside)
}

/// Lets a peer of this hub and a peer of another hub discover each other and send signals to each other.
pub(super) async fn mesh(
    first: &mut Visitor,
    (here, other): (&Entry<'_>, &Entry<'_>),
    welcome: &Welcome,
    pace: &mut Pace,
    operator: &Operator<'_>,
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
    // The times of both hubs show whether a hub or the link between them is slow.
    let mut there = Pace::new(address::host_and_port(name), address::round_trip(name).await.unwrap_or(pace.rtt));
    match pings(&mut second).await {
        Ok(Some(times)) => {
            let grade = there.add(format!("{name}: pings"), times, there.rtt);
            let found = answers(CHECK, grade, times, &there);
            report.add(Finding { message: format!("{name}: {}", found.message), ..found });
        }
        Ok(None) => {}
        Err(missing) => {
            report.add(Finding::problem(CHECK, Topic::NoAnswer, format!("{name}: no pong: {missing}")));
            return;
        }
    }
    let (slow, beside) = between(pace, &there);
    let mut both = pace.with(&there);
    let network = format!("doctor-mesh-{}", first.id);
    let patience = both.patience(0).max(MESH_PATIENCE);
    match discoveries(first, &mut second, &network, both.rtt, patience).await {
        Ok(Some(times)) => {
            let grade = both.add("discovery", times, both.rtt);
            let same = if is_one_hub { " (both URLs led to one hub)" } else { "" };
            let time = millis(times.median);
            let message = format!("{name}: a peer there and a peer here discover each other in {time:.1} ms{same}");
            report.add(Finding::timed(CHECK, grade, slow, message, &beside));
        }
        Ok(None) => {}
        Err((why, _)) => {
            let (ours, theirs) = (apart::reasons(here.url, operator).await, apart::reasons(name, operator).await);
            let message =
                format!("{name}: a peer there and a peer here do not discover each other: {why}. {ours}. {theirs}");
            report.add(Finding::problem(CHECK, Topic::HubsApart, message));
            return;
        }
    }
    let what = format!("{name}: ");
    let path = Path { check: CHECK, what: &what, network: &network, rtt: both.rtt, slow, beside };
    relay(&path, first, &mut second, welcome, &mut both, report).await;
}

/// The topic of slow signals between two hubs, and what the times of each hub say about the cause.
fn between(here: &Pace, there: &Pace) -> (Topic, String) {
    let connections = format!("{}, and {}", here.beside(), there.beside());
    let slow = [here, there].into_iter().filter(|pace| pace.is_slow()).map(|pace| pace.hub.as_str());
    match &slow.collect::<Vec<_>>()[..] {
        [] => (Topic::LinkSlow, format!("{connections}; each hub answers quickly, so the path between them is slow")),
        hubs => (Topic::Slow, format!("{connections}; {} answers slowly", hubs.join(" and "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_hub_is_not_a_slow_link() {
        let pace = |hub: &str, millis: u64| {
            let mut pace = Pace::new(hub, Duration::from_millis(1));
            pace.add("pings", Times::of(vec![Duration::from_millis(millis)]).unwrap(), pace.rtt);
            pace
        };
        let (topic, beside) = between(&pace("a:1", 2), &pace("b:2", 3));
        assert_eq!(topic, Topic::LinkSlow);
        assert!(beside.starts_with("a TCP connection to a:1 takes 1.0 ms, and a TCP connection to b:2"), "{beside}");
        assert!(beside.ends_with("; each hub answers quickly, so the path between them is slow"), "{beside}");
        let (topic, beside) = between(&pace("a:1", 2), &pace("b:2", 30));
        assert_eq!(topic, Topic::Slow);
        assert!(beside.ends_with("; b:2 answers slowly"), "{beside}");
        assert_eq!(between(&pace("a:1", 30), &pace("b:2", 3)).0, Topic::Slow);
    }
}
