use std::sync::Arc;
use std::time::Duration;

use fastwebsockets::OpCode;
use proto::PeerId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::connection::{MAX_QUEUED_BYTES, SendQueue, closed};
use super::*;

/// Deadline of each wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn peer() -> PeerId {
    PeerId::from_bytes([0xab; 20])
}

fn for_peer(url: &str) -> String {
    url.parse::<HubUrl>().unwrap().for_peer(&peer()).replace(&"ab".repeat(20), "ID")
}

#[test]
fn a_url_without_a_path_gets_the_path_ws() {
    assert_eq!(for_peer("ws://localhost:8080"), "ws://localhost:8080/ws?peerId=ID");
    assert_eq!(for_peer("ws://localhost:8080/"), "ws://localhost:8080/ws?peerId=ID");
    assert_eq!(for_peer("wss://hub.example"), "wss://hub.example/ws?peerId=ID");
    assert_eq!(for_peer("ws://[::1]:9/"), "ws://[::1]:9/ws?peerId=ID");
}

#[test]
fn path_and_query_of_a_url_are_kept() {
    assert_eq!(for_peer("ws://h/signal"), "ws://h/signal?peerId=ID");
    assert_eq!(for_peer("ws://h/ws?token=t"), "ws://h/ws?token=t&peerId=ID");
    assert_eq!(for_peer("ws://h?token=t"), "ws://h/ws?token=t&peerId=ID");
    assert_eq!(for_peer("ws://h/ws?"), "ws://h/ws?peerId=ID");
}

#[test]
fn a_token_in_the_query_is_encoded() {
    let with = |url: &str| url.parse::<HubUrl>().unwrap().with_token("a&b=ä").request_target(&peer());
    let token = "token=a%26b%3D%C3%A4&peerId=";
    assert_eq!(with("ws://h"), format!("/ws?{token}{}", peer()));
    assert_eq!(with("ws://h/x?y=z"), format!("/x?y=z&{token}{}", peer()));
}

#[test]
fn invalid_urls_of_hubs_are_refused() {
    assert_eq!("http://h".parse::<HubUrl>(), Err(HubUrlError::Scheme));
    assert_eq!("localhost:8080".parse::<HubUrl>(), Err(HubUrlError::Malformed));
    assert_eq!("".parse::<HubUrl>(), Err(HubUrlError::Malformed));
    assert_eq!("ws://".parse::<HubUrl>(), Err(HubUrlError::Malformed));
}

#[test]
fn queued_frames_are_masked_and_in_order() {
    let queue = SendQueue::default();
    queue.push(OpCode::Text, b"hello").unwrap();
    queue.push(OpCode::Close, &1000u16.to_be_bytes()).unwrap();
    assert_eq!(queue.push(OpCode::Text, b"late"), Err(SendError::Closed));

    let bytes = queue.queued.borrow();
    assert_eq!(bytes[..2], [0x81, 0x85]);
    let mut text = bytes[6..11].to_vec();
    assert_ne!(text, b"hello");
    fastwebsockets::unmask(&mut text, bytes[2..6].try_into().unwrap());
    assert_eq!(text, b"hello");
    assert_eq!(bytes[11..13], [0x88, 0x82]);
}

#[test]
fn the_queue_is_bounded() {
    let queue = SendQueue::default();
    let chunk = vec![b'x'; MAX_QUEUED_BYTES / 2 + 1];
    assert_eq!(queue.push(OpCode::Text, &chunk), Ok(()));
    assert_eq!(queue.push(OpCode::Text, &chunk), Err(SendError::Full));
}

#[test]
fn a_close_frame_is_read_with_and_without_its_code() {
    assert_eq!(closed(&[]), Ended::Closed { code: 1005, reason: String::new() });
    assert_eq!(closed(b"\x0f\xa9in use"), Ended::Closed { code: 4009, reason: "in use".to_owned() });
}

/// Connects to a server that answers the handshake with `answer` and then sends `then`.
async fn with_hub(answer: &'static [u8], then: &'static [u8]) -> Result<(MessageSender, Receiver), ConnectError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::task::spawn_local(async move {
        let (stream, _) = listener.accept().await.unwrap();
        be_hub(stream, &[answer, then].concat()).await;
    });
    url.parse::<HubUrl>().unwrap().resolve(None).await.unwrap().connect(&peer(), None, PATIENCE).await
}

/// Answers a WebSocket request, and returns the bytes received after the request. In the answer, `ACCEPT` is replaced
/// by the accept value for the request's key.
async fn be_hub(mut stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin, answer: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut head).await.unwrap();
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = mesh::accept(key);
    let mut answer = answer.to_vec();
    if let Some(at) = answer.windows(6).position(|window| window == b"ACCEPT") {
        answer.splice(at..at + 6, accept.into_bytes());
    }
    stream.write_all(&answer).await.unwrap();
    stream.flush().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

fn local<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: ACCEPT\r\n\r\n";

#[test]
fn bytes_after_the_handshake_are_read_and_pings_are_answered() {
    local(async {
        let (sender, mut receiver) =
            with_hub(SWITCHING, b"\x89\x01p\x01\x01h\x80\x01i\x88\x04\x0f\xa1go").await.unwrap();
        assert_eq!(&*receiver.next().await.unwrap(), b"hi");
        assert_eq!(sender.pongs(), 1);
        assert_eq!(receiver.next().await.unwrap_err(), Ended::Closed { code: 4001, reason: "go".to_owned() });
    });
}

#[test]
fn tls_requires_a_certificate_for_the_hub() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![made.cert.der().clone()];
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let server = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let roots = made.cert.pem().into_bytes();
    local(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, mut hears) = tokio::sync::mpsc::channel(1);
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                heard.send(be_hub(stream, &[SWITCHING, b"\x81\x02hi"].concat()).await).await.unwrap();
            }
        });
        let connect = async |host: &str, roots: Option<&[u8]>| {
            let url: HubUrl = format!("wss://{host}:{port}").parse().unwrap();
            url.resolve(roots).await.unwrap().connect(&peer(), None, PATIENCE).await
        };
        for (host, roots) in [("localhost", None), ("127.0.0.1", Some(&roots[..]))] {
            let Err(error) = connect(host, roots).await else { panic!("{host} has the wrong certificate") };
            assert!(error.to_string().starts_with("TLS: the certificate of the server is "), "{error}");
        }
        let (sender, mut receiver) = connect("localhost", Some(&roots)).await.unwrap();
        assert_eq!(&*receiver.next().await.unwrap(), b"hi");
        sender.send(&[b'x'; 70_000]).unwrap();
        sender.close(1000, "").unwrap();
        sender.cut(false);
        drop(receiver);
        assert_eq!(hears.recv().await.unwrap().len(), 14 + 70_000 + 8);
    });
}

#[test]
fn a_refusal_contains_the_answer_of_the_hub() {
    local(async {
        let refused = with_hub(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 13\r\n\r\nunauthorized\n", b"").await;
        let Err(error) = refused else { panic!("a refused handshake is an error") };
        assert_eq!(error.to_string(), "the hub answered 401 Unauthorized: unauthorized");
    });
}

#[test]
fn an_answer_with_a_wrong_accept_value_is_refused() {
    local(async {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let Err(error) = with_hub(answer, b"\x81\x02hi").await else { panic!("a wrong answer was accepted") };
        assert_eq!(error.to_string(), "the handshake failed: Sec-WebSocket-Accept is wrong");
    });
}

#[test]
fn the_address_that_worked_is_tried_first() {
    local(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            be_hub(stream, SWITCHING).await;
        });
        let url: HubUrl = format!("ws://{closed}").parse().unwrap();
        let mut endpoint = url.resolve(None).await.unwrap();
        endpoint.addresses.push(alive);
        endpoint.connect(&peer(), None, PATIENCE).await.unwrap();
        assert_eq!(endpoint.worked.get(), Some(alive));
    });
}
