//! The command `peerpigeon peer` joins a network as one peer, and prints the messages that this peer receives.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::{NetworkName, PeerId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::duration;
use super::generate_peer_ids::random_id;
use crate::client::{Ended, HubUrl, MessageSender, Receiver};
use crate::config::{certificates, token};

/// Maximum time until the hub sends `connected`. If another connection uses the peer's id, its takeover can delay
/// `connected` by two seconds or more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time for the hub's answer to a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of messages queued for printing. While so many messages are queued, the connection is not read.
const UNPRINTED: usize = 64;

/// The id of the offer, for its receipt.
const OFFER_ID: &str = "offer-1";

/// Join a network as a peer and print the messages it receives
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Hub to connect to
    #[arg(long, value_name = "URL", default_value = HubUrl::DEFAULT)]
    pub hub: HubUrl,

    /// Name to announce, as the field `name` of the announced data
    #[arg(long)]
    pub name: Option<String>,

    /// Network to join
    #[arg(long, default_value = NetworkName::GLOBAL)]
    pub network: String,

    /// Peer id to connect with, 40 hexadecimal digits [default: a random id]
    #[arg(long, value_name = "HEX")]
    pub peer_id: Option<PeerId>,

    /// AUTH_TOKEN of the hub
    #[arg(long, env = "AUTH_TOKEN", hide_env_values = true, value_parser = token)]
    pub token: Option<String>,

    /// File with additional CA certificates (PEM) for wss://
    #[arg(long, value_name = "FILE", value_parser = certificates)]
    pub ca: Option<Arc<[u8]>>,

    /// Time to stay connected, such as 10s, 500ms or 2m; 0 means until ctrl-c [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub listen: Option<Duration>,

    /// Id of a peer to send one offer to
    #[arg(long, value_name = "ID")]
    pub offer_to: Option<PeerId>,

    /// Data of the offer, as JSON
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = json)]
    pub data: Box<RawValue>,

    /// Data to announce, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json_object)]
    pub announce_data: Map<String, Value>,

    /// Print one JSON object per line: each message with the time it was received
    #[arg(long)]
    pub json: bool,
}

fn json(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

fn json_object(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_str(text)
}

/// Joins the network, prints the messages, and leaves. Fails if the hub is unreachable or ends the connection with an
/// error, or if the offer is not delivered.
pub async fn run(args: Args) -> ExitCode {
    match LocalSet::new().run_until(session(&args)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

fn complain(problem: &str) {
    // If stderr is closed, only the exit code shows the failure.
    _ = writeln!(io::stderr(), "peerpigeon peer: {problem}");
}

async fn session(args: &Args) -> Result<(), String> {
    let peer = match args.peer_id {
        Some(peer) => peer,
        None => random_id().map_err(|error| error.to_string())?,
    };
    let mut printer = Printer { json: args.json, begin: Instant::now(), outcome: None };
    let connect = async {
        let endpoint = args.hub.resolve(args.ca.as_deref()).await.map_err(|error| error.to_string())?;
        let (sender, mut receiver) =
            endpoint.connect(&peer, args.token.as_deref(), CONNECT_TIMEOUT).await.map_err(|error| error.to_string())?;
        // A full hub upgrades the connection and then closes it, so only the first message shows that the hub has
        // admitted the peer.
        let first = receiver.next().await.map_err(|ended| ended.to_string())?;
        Ok::<_, String>((sender, receiver, first))
    };
    let (sender, receiver, first) = tokio::time::timeout(CONNECT_TIMEOUT, connect)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
        .map_err(|problem| format!("cannot connect to {}: {problem}", args.hub))?;
    if !printer.message(&first) {
        return Ok(());
    }
    let send = |message: String| sender.send(message.as_bytes()).map_err(|error| error.to_string());
    send(announce(args)?)?;
    if !args.json && !printer.line(&format!("announced  in {:?}", args.network)) {
        return Ok(());
    }
    if let Some(target) = args.offer_to {
        send(offer(args, &target)?)?;
    }
    if let Some(ended) = listen(args.listen, &sender, receiver, &mut printer).await {
        printer.ended(&ended);
        if !matches!(ended, Ended::Closed { code: 1000 | 1001, .. }) {
            return Err(ended.to_string());
        }
    }
    match (&args.offer_to, printer.outcome.as_deref()) {
        (None, _) | (Some(_), Some("delivered" | "forwarded")) => Ok(()),
        (Some(target), Some(outcome)) => Err(format!("the offer to {target} was not delivered: {outcome}")),
        (Some(target), None) => Err(format!("no receipt arrived for the offer to {target}: stay longer (--listen)")),
    }
}

fn announce(args: &Args) -> Result<String, String> {
    let mut data = args.announce_data.clone();
    if let Some(name) = &args.name {
        data.insert("name".to_owned(), Value::from(name.as_str()));
    }
    to_json(&Outgoing { kind: "announce", network_name: &args.network, target_peer_id: None, id: None, data })
}

/// The offer requests a receipt. A Go hub ignores this request.
fn offer(args: &Args, target: &PeerId) -> Result<String, String> {
    to_json(&Outgoing {
        kind: "offer",
        network_name: &args.network,
        target_peer_id: Some(target.to_string()),
        id: Some(OFFER_ID),
        data: &args.data,
    })
}

fn to_json(message: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(message).map_err(|error| error.to_string())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    network_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_peer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    data: T,
}

/// Prints messages until the connection ends. Returns `None` if this program ended the connection. The program ends the
/// connection when the time of `--listen` is over, when the user interrupts the program, or when its output is closed.
async fn listen(
    time: Option<Duration>,
    sender: &MessageSender,
    mut receiver: Receiver,
    printer: &mut Printer,
) -> Option<Ended> {
    // Reading a frame cannot be cancelled, so a separate task reads and passes messages through a channel.
    let (messages, mut heard) = mpsc::channel(UNPRINTED);
    let mut reader = tokio::task::spawn_local(async move {
        loop {
            match receiver.next().await {
                // Messages are still read after printing has ended, because the hub's close frame follows them.
                Ok(message) => drop(messages.send(message).await),
                Err(ended) => return ended,
            }
        }
    });
    let over = async {
        match time {
            Some(time) if !time.is_zero() => tokio::time::sleep(time).await,
            Some(_) | None => std::future::pending().await,
        }
    };
    let mut over = std::pin::pin!(over);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            message = heard.recv() => match message {
                Some(message) => if !printer.message(&message) { break },
                None => return Some(reader.await.unwrap_or_else(|error| Ended::Lost(error.to_string()))),
            },
            () = &mut over => break,
            _ = &mut interrupted => break,
        }
    }
    drop(heard);
    // The wait is limited, because a hub that answers the close frame slowly must not delay the exit.
    if sender.close(1000, "").is_ok() {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut reader).await;
    }
    None
}

/// Prints the events.
struct Printer {
    json: bool,
    begin: Instant,
    /// The outcome of the offer.
    outcome: Option<String>,
}

impl Printer {
    /// Prints one message. Returns false if the output was closed.
    fn message(&mut self, message: &[u8]) -> bool {
        let text = String::from_utf8_lossy(message);
        if let Some(outcome) = outcome(&text) {
            self.outcome = Some(outcome);
        }
        self.line(&if self.json { json_line(&text, wall_ms()) } else { human_line(&text) })
    }

    fn ended(&mut self, ended: &Ended) {
        let line = match (self.json, ended) {
            (false, _) => ended.to_string(),
            (true, Ended::Closed { code, reason }) => {
                serde_json::json!({"receivedAt": wall_ms(), "closed": {"code": code, "reason": reason}}).to_string()
            }
            (true, Ended::Lost(reason)) => {
                serde_json::json!({"receivedAt": wall_ms(), "closed": {"code": null, "reason": reason}}).to_string()
            }
        };
        self.line(&line);
    }

    fn line(&mut self, line: &str) -> bool {
        let mut out = io::stdout().lock();
        let printed = if self.json {
            writeln!(out, "{line}")
        } else {
            writeln!(out, "{:>9.3} {line}", self.begin.elapsed().as_secs_f64())
        };
        printed.and_then(|()| out.flush()).is_ok()
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The outcome of the offer, if the message contains it.
fn outcome(text: &str) -> Option<String> {
    let Incoming { kind, data, .. } = serde_json::from_str(text).ok()?;
    let field = |name| data.get(name).and_then(Value::as_str);
    match (kind.as_str(), field("id").or_else(|| field("inReplyTo"))?) {
        ("receipt", OFFER_ID) => Some(field("outcome")?.to_owned()),
        // A Go hub sends errors instead of receipts.
        ("error", "offer") => Some(field("code")?.to_owned()),
        _ => None,
    }
}

/// The message on one line. Line breaks can be replaced, because JSON allows them only between its tokens.
fn json_line(text: &str, received_at: u64) -> String {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(message) => {
            format!("{{\"receivedAt\":{received_at},\"message\":{}}}", message.get().replace(['\r', '\n'], " "))
        }
        Err(_) => serde_json::json!({"receivedAt": received_at, "unreadable": text}).to_string(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    from_peer_id: String,
    #[serde(default)]
    network_name: String,
}

/// The message in one readable line. Data of peers is shown as JSON, so that no control character reaches the terminal.
fn human_line(text: &str) -> String {
    let Ok(message) = serde_json::from_str::<Incoming>(text) else {
        return format!("unreadable {text:?}");
    };
    let Incoming { kind, data, from_peer_id, network_name } = message;
    let field = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or("?").escape_debug().to_string();
    let mut line = format!("{:<11}", short(&kind));
    // Writing to a String cannot fail.
    let _ = match kind.as_str() {
        "connected" => write!(line, "as {}", field("peerId")),
        "error" => write!(line, "{}: {}", field("code"), field("message")),
        "goodbye" => write!(line, "{from_peer_id:?} in {network_name:?}"),
        "peer-disconnected" => write!(line, "{} in {network_name:?}: {}", field("peerId"), field("reason")),
        "peer-discovered" => write!(line, "{} in {network_name:?} {data}", field("peerId")),
        "receipt" => write!(line, "{}: {}", field("id"), field("outcome")),
        "pong" => Ok(()),
        "go-away" => write!(line, "{data}"),
        _ => write!(line, "from {from_peer_id:?} in {network_name:?} {data}"),
    };
    line.trim_end().to_owned()
}

fn short(kind: &str) -> String {
    match kind {
        "peer-discovered" => "discovered".to_owned(),
        "peer-disconnected" => "left".to_owned(),
        kind => kind.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discovery_is_one_line() {
        let data = r#"{"info":"a\nb","isHub":false,"peerId":"ab"}"#;
        let from = r#""fromPeerId":"system","networkName":"n","timestamp":1"#;
        assert_eq!(
            human_line(&format!(r#"{{"type":"peer-discovered","data":{data},{from}}}"#)),
            format!(r#"discovered ab in "n" {data}"#)
        );
    }

    #[test]
    fn the_outcome_of_the_offer_is_recorded() {
        let said = |text: &str| outcome(text);
        assert_eq!(said(r#"{"type":"receipt","data":{"id":"offer-1","outcome":"delivered"}}"#).unwrap(), "delivered");
        assert_eq!(
            said(r#"{"type":"error","data":{"code":"wrong-network","inReplyTo":"offer"}}"#).unwrap(),
            "wrong-network"
        );
        assert_eq!(said(r#"{"type":"receipt","data":{"id":"another","outcome":"delivered"}}"#), None);
        assert_eq!(said(r#"{"type":"error","data":{"code":"invalid-json"}}"#), None);
        assert_eq!(said("no"), None);
    }

    #[test]
    fn an_offer_names_its_sender() {
        assert_eq!(
            human_line(r#"{"type":"offer","data":{"sdp":"x"},"fromPeerId":"ab","networkName":"global"}"#),
            r#"offer      from "ab" in "global" {"sdp":"x"}"#
        );
    }

    #[test]
    fn control_characters_of_peers_are_escaped() {
        for line in [
            "{\"type\":\"\\u001b[2J\"}",
            "{\"type\":\"error\",\"data\":{\"code\":\"\\u001b[2J\",\"message\":\"\\u0007\"}}",
            "{\"type\":\"offer\",\"fromPeerId\":\"\\u001b\",\"networkName\":\"\\n\",\"data\":\"\\u001b\"}",
            "\u{1b}[2J",
        ] {
            assert!(!human_line(line).contains(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn a_json_line_contains_the_unchanged_message() {
        assert_eq!(json_line("{\"b\": 1.0,\n\"a\":\"\\n\"}", 7), r#"{"receivedAt":7,"message":{"b": 1.0, "a":"\n"}}"#);
        assert_eq!(json_line("no", 7), r#"{"receivedAt":7,"unreadable":"no"}"#);
    }

    #[test]
    fn the_offer_contains_its_data_unchanged() {
        let args = Args {
            hub: HubUrl::DEFAULT.parse().unwrap(),
            name: Some("n".to_owned()),
            network: "net".to_owned(),
            peer_id: None,
            token: None,
            ca: None,
            listen: None,
            offer_to: None,
            data: json("{\"sdp\": 1.50}").unwrap(),
            announce_data: json_object(r#"{"info":"hi"}"#).unwrap(),
            json: false,
        };
        let target = PeerId::from_bytes([1; 20]);
        let rest = r#""id":"offer-1","data":{"sdp": 1.50}"#;
        assert_eq!(
            offer(&args, &target).unwrap(),
            format!(r#"{{"type":"offer","networkName":"net","targetPeerId":"{target}",{rest}}}"#)
        );
        assert_eq!(
            announce(&args).unwrap(),
            r#"{"type":"announce","networkName":"net","data":{"info":"hi","name":"n"}}"#
        );
    }
}
