//! A connection of the doctor to a hub, as a peer.

use std::time::{Duration, Instant};

use proto::PeerId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant as Deadline, timeout_at};

use crate::client::{ConnectError, Ended, Endpoint, MessageSender};
use crate::cmd::generate_peer_ids::random_id;

/// Maximum number of received messages that the doctor has not processed. While so many messages wait, the connection
/// is not read.
const UNREAD: usize = 256;

/// A message of the hub.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) data: Box<RawValue>,
    #[serde(rename = "fromPeerId", default)]
    pub(super) from: String,
    #[serde(default)]
    pub(super) timestamp: u64,
    /// Time at which the message arrived.
    #[serde(skip)]
    pub(super) at: Option<Instant>,
}

impl Message {
    /// A text field of its data.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let data: Value = serde_json::from_str(self.data.get()).ok()?;
        Some(data.get(name)?.as_str()?.to_owned())
    }
}

/// Why an expected message did not arrive.
#[derive(Debug)]
pub(super) enum Missing {
    /// The message did not arrive in time.
    Late,
    /// The connection ended.
    Ended(Ended),
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late => f.write_str("it did not arrive in time"),
            Self::Ended(ended) => write!(f, "the connection ended: {ended}"),
        }
    }
}

/// An open connection.
pub(super) struct Visitor {
    pub(super) id: PeerId,
    pub(super) sender: MessageSender,
    inbox: mpsc::Receiver<Result<Message, Ended>>,
    /// The last `error` of the hub that arrived while the doctor waited for another message.
    pub(super) error: Option<String>,
}

impl Visitor {
    /// Connects with these headers. Until the hub sends `connected`, it has not admitted the peer.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        headers: impl IntoIterator<Item = (hyper::header::HeaderName, String)>,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let id = random_id().map_err(|error| ConnectError::Tcp(std::io::Error::other(error.to_string())))?;
        let (sender, mut receiver) = endpoint.connect_with(&id, headers, patience).await?;
        let (messages, inbox) = mpsc::channel(UNREAD);
        // A read must not be cancelled in the middle of a frame, so a task does the reading.
        tokio::task::spawn_local(async move {
            loop {
                let message = match receiver.next().await {
                    Ok(payload) => serde_json::from_slice::<Message>(&payload).ok().map(Ok),
                    Err(ended) => Some(Err(ended)),
                };
                // A hub sends only JSON, so other data is ignored.
                let Some(message) = message else { continue };
                let is_over = message.is_err();
                let message = message.map(|message| Message { at: Some(Instant::now()), ..message });
                if messages.send(message).await.is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Self { id, sender, inbox, error: None })
    }

    /// Waits for the first message that `wanted` accepts, and ignores earlier messages.
    pub(super) async fn expect(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, Missing> {
        let deadline = Deadline::now() + patience;
        loop {
            match timeout_at(deadline, self.inbox.recv()).await {
                Ok(Some(Ok(message))) if wanted(&message) => return Ok(message),
                Ok(Some(Ok(message))) if message.kind == "error" => {
                    let code = message.field("code").unwrap_or_default();
                    self.error = Some(format!("{code}: {}", message.field("message").unwrap_or_default()));
                }
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(ended))) => return Err(Missing::Ended(ended)),
                Ok(None) => return Err(Missing::Ended(Ended::Lost("the connection is over".to_owned()))),
                Err(_) => return Err(Missing::Late),
            }
        }
    }

    /// Like [`Self::expect`], for a message of this type.
    pub(super) async fn expect_kind(&mut self, patience: Duration, kind: &str) -> Result<Message, Missing> {
        self.expect(patience, |message| message.kind == kind).await
    }

    /// Waits until the connection ends. `None` if it stays open for this time.
    pub(super) async fn end(&mut self, patience: Duration) -> Option<Ended> {
        match self.expect(patience, |_| false).await {
            Ok(_) | Err(Missing::Late) => None,
            Err(Missing::Ended(ended)) => Some(ended),
        }
    }

    /// Sends a message. If the connection has ended, the wait for the answer reports that.
    pub(super) fn say(&self, text: &str) {
        _ = self.sender.send(text.as_bytes());
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        _ = self.sender.close(1000, "");
    }
}

/// The facts about the hub in its message `connected`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Welcome {
    /// The version of the protocol. A Go hub sends none.
    #[serde(default)]
    pub(super) protocol: Option<u64>,
    #[serde(default)]
    pub(super) hub_id: Option<String>,
    #[serde(default)]
    pub(super) heartbeat_ms: Option<u64>,
    #[serde(default)]
    pub(super) max_message_bytes: Option<usize>,
    #[serde(default)]
    pub(super) ice_servers: Vec<Value>,
    /// The hub's clock, in milliseconds since 1970.
    #[serde(skip)]
    pub(super) clock_ms: u64,
}

impl Welcome {
    pub(super) fn of(message: &Message) -> Option<Self> {
        let welcome = serde_json::from_str::<Self>(message.data.get()).ok()?;
        Some(Self { clock_ms: message.timestamp, ..welcome })
    }
}
