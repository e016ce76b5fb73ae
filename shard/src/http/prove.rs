//! Lets a client prove that it owns its peer id, after the upgrade and before its session begins.

use std::io;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use bytes::Bytes;
use proto::limits::MAX_ID_PROOF_BYTES;
use proto::proof::{self, NONCE_BYTES, Proof};
use proto::ws::{self, Decoder, Event, Progress};
use proto::{PeerId, isolated};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The settings of PEER_ID_PROOF, if it is not `off`. Clients that send a key must prove that they own the key whose
/// hash is their id.
#[derive(Clone, Debug)]
pub struct IdProofs {
    /// Whether clients without a key are refused. Clients with a token whose `sub` names the id need no key.
    pub is_required: bool,
    /// PEER_ID_HOSTS, the names of this hub in the URLs of its clients. A proof for another host is refused.
    pub hosts: Vec<String>,
}

/// Why a client has not proven its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoProof {
    /// The client's connection has ended.
    Gone,
    /// The client did not send the proof in time.
    Late,
    /// The client sent another message than a proof, or a wrong signature.
    Wrong,
    /// The client's signature is for a host that is not this hub.
    Host,
}

impl NoProof {
    /// The name in the log.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Late => "late",
            Self::Wrong => "wrong",
            Self::Host => "host",
        }
    }

    /// One sentence for people: what is wrong, then what to do.
    pub(super) const fn explain(self) -> &'static str {
        match self {
            Self::Gone | Self::Late => "no proof of the id arrived in time: answer the challenge within 10 s",
            Self::Wrong => "the proof of the id is wrong: sign the challenge with the private key of the id",
            Self::Host => "the proof of the id is for another host: sign the host of the hub's URL (PEER_ID_HOSTS)",
        }
    }
}

impl From<io::Error> for NoProof {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Asks the client of an upgraded socket to prove that it has the private key of its id. `read` contains the bytes that
/// arrived after the client's request. Returns the bytes that follow the proof.
pub(super) async fn prove(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    read: Bytes,
    (peer, key): (&PeerId, &[u8; 32]),
    hosts: &[String],
    patience: Duration,
    wall_ms: u64,
) -> Result<Bytes, NoProof> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| NoProof::Gone)?;
    let exchange = async {
        socket.write_all(&proof::challenge(peer, &nonce, wall_ms)).await?;
        socket.flush().await?;
        answer(socket, read).await
    };
    let (Proof { host, signature }, rest) = timeout(patience, exchange).await.map_err(|_| NoProof::Late)??;
    if !hosts.contains(&host) {
        return Err(NoProof::Host);
    }
    let text = proof::signed_text(&host, &nonce, peer);
    let is_right = UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok();
    if is_right { Ok(rest) } else { Err(NoProof::Wrong) }
}

/// Reads the client's first message, which must be the proof. Answers the pings that arrive before the proof.
async fn answer(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), read: Bytes) -> Result<(Proof, Bytes), NoProof> {
    let mut decoder = Decoder::new(MAX_ID_PROOF_BYTES);
    let mut unread = read.to_vec();
    // Maximum number of bytes of the message's fragments and of the pings before it.
    let mut left = 4 * MAX_ID_PROOF_BYTES;
    loop {
        let progress = isolated(|| {
            let (consumed, sent) = match decoder.decode(&mut unread).map_err(|_| NoProof::Wrong)? {
                Progress::Need(_) => return Ok(None),
                Progress::Took { consumed, event } => {
                    let sent = match event {
                        Some(Event::Text(text)) => Sent::Proof(proof::parse(text).ok_or(NoProof::Wrong)?),
                        Some(Event::Ping(payload)) => {
                            let mut pong = Vec::new();
                            ws::put_pong(&mut pong, payload);
                            Sent::Ping(pong)
                        }
                        Some(Event::Pong(_)) | None => Sent::Nothing,
                        Some(Event::Binary(_)) => return Err(NoProof::Wrong),
                        Some(Event::Close(_)) => return Err(NoProof::Gone),
                    };
                    (consumed, sent)
                }
            };
            unread.drain(..consumed);
            Ok(Some(sent))
        });
        match progress.ok_or(NoProof::Wrong)?? {
            Some(Sent::Proof(proof)) => return Ok((proof, unread.into())),
            Some(Sent::Ping(pong)) => socket.write_all(&pong).await?,
            Some(Sent::Nothing) => {}
            None => {
                let mut buffer = [0; MAX_ID_PROOF_BYTES];
                let n = socket.read(&mut buffer).await?;
                left = left.checked_sub(n).ok_or(NoProof::Wrong)?;
                if n == 0 {
                    return Err(NoProof::Gone);
                }
                unread.extend_from_slice(&buffer[..n]);
            }
        }
    }
}

/// The content of a frame of the client.
enum Sent {
    Proof(Proof),
    /// The client has sent a ping. Contains the frame of the pong.
    Ping(Vec<u8>),
    Nothing,
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const HOST: &str = "hub.example";

    fn frame(opcode: ws::Opcode, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        ws::put_masked_header(&mut frame, opcode, payload.len(), [0; 4]);
        frame.extend_from_slice(payload);
        frame
    }

    struct Owner {
        pair: Ed25519KeyPair,
        key: [u8; 32],
        peer: PeerId,
    }

    impl Owner {
        fn new() -> Self {
            let pair = Ed25519KeyPair::generate().unwrap();
            let key = pair.public_key().as_ref().try_into().unwrap();
            Self { pair, key, peer: PeerId::of_key(&key) }
        }

        /// A proof that names `host` and has a signature of `text`.
        fn proof(&self, host: &str, text: &str) -> Vec<u8> {
            let signature: String =
                self.pair.sign(text.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect();
            let message = format!(r#"{{"type":"proof","data":{{"host":"{host}","signature":"{signature}"}}}}"#);
            frame(ws::Opcode::Text, message.as_bytes())
        }
    }

    fn text(host: &str, nonce: &str, peer: &PeerId) -> String {
        format!("peerpigeon-id-proof-1\n{host}\n{nonce}\n{peer}")
    }

    /// Receives the challenge, and returns the nonce.
    async fn nonce(client: &mut DuplexStream) -> String {
        let mut buffer = [0; 1024];
        let n = client.read(&mut buffer).await.unwrap();
        let text = std::str::from_utf8(ws::payload(&buffer[..n])).unwrap();
        text.split_once(r#""nonce":""#).unwrap().1[..2 * NONCE_BYTES].to_owned()
    }

    /// Lets the client answer the challenge, and returns the result.
    async fn exchange(owner: &Owner, early: &[u8], answer: impl FnOnce(&str) -> Vec<u8>) -> Result<Bytes, NoProof> {
        let (mut server, mut client) = duplex(8192);
        let early = Bytes::copy_from_slice(early);
        let client = async {
            let nonce = nonce(&mut client).await;
            // The hub may have closed the connection before it has read the whole answer.
            _ = client.write_all(&answer(&nonce)).await;
            client
        };
        let hosts = ["other.example".to_owned(), HOST.to_owned()];
        let (proven, _client) =
            tokio::join!(prove(&mut server, early, (&owner.peer, &owner.key), &hosts, PATIENCE, 1), client);
        proven
    }

    #[tokio::test]
    async fn the_owner_of_the_key_signs_the_nonce_and_may_send_more_at_once() {
        let owner = Owner::new();
        let more = frame(ws::Opcode::Text, b"{}");
        let answer = |nonce: &str| [owner.proof(HOST, &text(HOST, nonce, &owner.peer)), more.clone()].concat();
        assert_eq!(exchange(&owner, &[], answer).await.unwrap(), more);
        // The first bytes of a ping may arrive together with the request.
        let ping = frame(ws::Opcode::Ping, b"p");
        let answer = |nonce: &str| [&ping[3..], &owner.proof(HOST, &text(HOST, nonce, &owner.peer))].concat();
        assert!(exchange(&owner, &ping[..3], answer).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_without_the_private_key_proves_the_id() {
        let (owner, other) = (Owner::new(), Owner::new());
        let recorded = owner.proof(HOST, &text(HOST, &"00".repeat(NONCE_BYTES), &owner.peer));
        type Answer<'a> = Box<dyn Fn(&str) -> Vec<u8> + 'a>;
        let answers: [Answer<'_>; 9] = [
            Box::new(|nonce| other.proof(HOST, &text(HOST, nonce, &owner.peer))),
            Box::new(|_| recorded.clone()),
            Box::new(|nonce| owner.proof(HOST, &text(HOST, nonce, &other.peer))),
            // The owner signed a text with the name of a hostile hub. The hostile hub sends this signature with the
            // name of this hub.
            Box::new(|nonce| owner.proof(HOST, &text("rogue.example", nonce, &owner.peer))),
            Box::new(|nonce| owner.proof(HOST, nonce)),
            Box::new(|_| frame(ws::Opcode::Text, br#"{"type":"announce"}"#)),
            Box::new(|_| frame(ws::Opcode::Binary, b"proof")),
            Box::new(|_| b"garbage".to_vec()),
            Box::new(|_| frame(ws::Opcode::Text, &[b' '; MAX_ID_PROOF_BYTES + 1])),
        ];
        for (at, answer) in answers.iter().enumerate() {
            assert_eq!(exchange(&owner, &[], |nonce| answer(nonce)).await, Err(NoProof::Wrong), "{at}");
        }
        let pings = exchange(&owner, &[], |_| frame(ws::Opcode::Ping, &[0; 100]).repeat(50)).await;
        assert_eq!(pings, Err(NoProof::Wrong));
        assert_eq!(exchange(&owner, &[], |_| frame(ws::Opcode::Close, &[])).await, Err(NoProof::Gone));
    }

    #[tokio::test]
    async fn a_proof_for_another_hub_is_refused() {
        let owner = Owner::new();
        let answer = |nonce: &str| owner.proof("rogue.example", &text("rogue.example", nonce, &owner.peer));
        assert_eq!(exchange(&owner, &[], answer).await, Err(NoProof::Host));
    }

    #[tokio::test]
    async fn a_client_that_sends_no_proof_in_time_is_refused() {
        let owner = Owner::new();
        let (mut server, _client) = duplex(4096);
        let patience = Duration::from_millis(1);
        let proven = prove(&mut server, Bytes::new(), (&owner.peer, &owner.key), &[], patience, 1).await;
        assert_eq!(proven, Err(NoProof::Late));
    }
}
