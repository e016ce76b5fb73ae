use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};

use super::*;

/// The example of RFC 6455.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The time limit of a dial. A silent address gets half of this time if one other address is left.
const PATIENCE: Duration = proto::limits::DIAL_TIMEOUT;

#[test]
fn the_example_of_the_rfc_is_accepted() {
    assert_eq!(accept(KEY), ACCEPT);
}

fn answer(change: impl FnOnce(&mut Response<()>), asked: Option<&'static str>) -> Result<(), String> {
    let mut response = Response::builder()
        .status(101)
        .header(CONNECTION, "keep-alive, Upgrade")
        .header(UPGRADE, "WebSocket")
        .header(SEC_WEBSOCKET_ACCEPT, ACCEPT)
        .body(())
        .unwrap();
    change(&mut response);
    check(&response, KEY, asked.map(HeaderValue::from_static).as_ref(), false).map_err(|error| error.to_string())
}

#[test]
fn an_answer_to_an_upgrade_that_violates_the_rfc_is_refused() {
    let set = |name: HeaderName, value: &'static str| {
        move |response: &mut Response<()>| {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    };
    let without = |name: HeaderName| move |response: &mut Response<()>| _ = response.headers_mut().remove(name);
    assert_eq!(answer(|_| (), None), Ok(()));
    assert_eq!(answer(set(SEC_WEBSOCKET_PROTOCOL, "chat"), Some("chat")), Ok(()));
    assert!(answer(|_| (), Some("chat")).unwrap_err().contains("subprotocol is missing"));
    assert!(answer(set(SEC_WEBSOCKET_PROTOCOL, "chat"), None).unwrap_err().contains("not requested"));
    assert!(answer(set(SEC_WEBSOCKET_PROTOCOL, "other"), Some("chat")).unwrap_err().contains("not requested"));
    assert!(answer(set(SEC_WEBSOCKET_ACCEPT, "AAAA"), None).unwrap_err().contains("Sec-WebSocket-Accept"));
    assert!(answer(without(SEC_WEBSOCKET_ACCEPT), None).unwrap_err().contains("Sec-WebSocket-Accept"));
    assert!(answer(set(SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate"), None).unwrap_err().contains("extension"));
    assert!(answer(without(UPGRADE), None).unwrap_err().contains("not an upgrade"));
    assert!(answer(set(CONNECTION, "close"), None).unwrap_err().contains("not an upgrade"));
}

/// A local address that accepts no connection, because its backlog is full and the kernel drops each SYN. The sockets
/// keep the backlog full.
fn swallows() -> (SocketAddr, Vec<Socket>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap();
    let mut sockets = vec![socket];
    // A backlog of 0 has room for one connection, but the kernel may accept more.
    loop {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = full.connect_timeout(&address, Duration::from_millis(300));
        sockets.push(full);
        if connected.is_err() {
            return (address.as_socket().unwrap(), sockets);
        }
        assert!(sockets.len() < 20, "the backlog never fills");
    }
}

/// A server that answers every request with `answer`, and counts its requests. The server runs until the test ends,
/// even if the handle is dropped.
fn server(answer: impl Fn(&mut StdStream, &str) + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = Arc::clone(&asked);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            asks.fetch_add(1, Ordering::Relaxed);
            answer(&mut stream, &head);
        }
    });
    (address, asked)
}

fn upgrade_to_websocket(stream: &mut StdStream, head: &str) {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = accept(key);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
         {accept}\r\n\r\nhi"
    );
    stream.write_all(answer.as_bytes()).unwrap();
}

fn opened(addresses: &[SocketAddr]) -> Result<WebSocket, ConnectError> {
    let request = Request::get("/").header("host", "hub").body(Empty::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(open(addresses.iter().copied().collect(), None, &request, PATIENCE))
}

#[test]
fn the_next_address_is_tried_if_an_address_drops_packets() {
    let (dead, _full) = swallows();
    let (alive, _) = server(upgrade_to_websocket);
    let opened = opened(&[dead, alive]).unwrap();
    assert_eq!((opened.address, &opened.leftover[..]), (alive, &b"hi"[..]));
}

#[test]
fn the_next_address_is_tried_if_an_address_never_answers_the_request() {
    let (mute, asked) = server(|stream, _| {
        // The server ends when the client gives up.
        _ = stream.read(&mut [0]);
    });
    let (alive, _) = server(upgrade_to_websocket);
    assert_eq!(opened(&[mute, alive]).unwrap().address, alive);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_request_to_a_host_tries_each_of_its_addresses() {
    use tokio::io::AsyncReadExt;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mute, _) = server(|stream, _| _ = stream.read(&mut [0]));
    let talks = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [mute, talks.local_addr().unwrap()].into();
    std::thread::spawn(move || talks.accept().unwrap().0.write_all(b"!").unwrap());
    let byte = async |mut stream: TcpStream| stream.read_u8().await.map_err(ConnectError::Tcp);
    let (_, answer) =
        runtime.block_on(reach(addresses, PATIENCE, &enough(), &tcp, async |_, tcp| byte(tcp).await)).unwrap();
    assert_eq!(answer, b'!');
    let late = runtime.block_on(ask("127.0.0.1", mute.port(), Duration::from_millis(50), byte));
    assert!(matches!(late, Err(ConnectError::Late)), "{late:?}");
}

#[test]
fn the_next_address_is_tried_after_a_busy_hub_but_not_after_a_refusal() {
    let refuse = |status: &'static str| {
        move |stream: &mut StdStream, _: &str| {
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nno!\n").as_bytes()).unwrap();
        }
    };
    let (alive, asked) = server(upgrade_to_websocket);
    let (busy, _) = server(refuse("503 Service Unavailable"));
    assert_eq!(opened(&[busy, alive]).unwrap().address, alive);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let (refuses, _) = server(refuse("401 Unauthorized"));
    let error = opened(&[refuses, alive]).unwrap_err();
    assert_eq!(error.to_string(), "the hub answered 401 Unauthorized: no!");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn an_answer_that_opens_no_websocket_is_an_error() {
    let (http, _) = server(|stream, _| {
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: AAAA\r\n\r\n",
            )
            .unwrap();
    });
    assert_eq!(opened(&[http]).unwrap_err().to_string(), "the handshake failed: Sec-WebSocket-Accept is wrong");
    assert_eq!(opened(&[]).unwrap_err().to_string(), "the host has no address");
}

#[test]
fn the_time_for_all_addresses_is_bounded() {
    let (dead, _full) = swallows();
    let request = Request::get("/").body(Empty::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opened = runtime.block_on(open([dead].into(), None, &request, Duration::from_millis(50)));
    assert!(matches!(opened, Err(ConnectError::Late)), "{opened:?}");
}

/// Starts `dials` dials of six addresses that never answer, for two seconds. Returns the maximum number of simultaneous
/// attempts.
fn attempts_at_once(dials: usize, extra: usize) -> usize {
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let attempt = async |_| {
        let count = running.fetch_add(1, Ordering::Relaxed) + 1;
        most.fetch_max(count, Ordering::Relaxed);
        let _ends = Ends(&running);
        std::future::pending::<Result<(), ConnectError>>().await
    };
    let addresses: VecDeque<_> = (1..=6).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
    let extra = Semaphore::new(extra);
    let exchange = async |_, ()| Ok(());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let patience = Duration::from_secs(2);
        let dial = || Box::pin(reach(addresses.clone(), patience, &extra, &attempt, &exchange));
        let mut dials: Vec<_> = (0..dials).map(|_| dial()).collect();
        poll_fn(|cx| {
            dials.retain_mut(|dial| dial.as_mut().poll(cx).is_pending());
            if dials.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    });
    assert_eq!(running.into_inner(), 0);
    most.into_inner()
}

struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn the_number_of_additional_attempts_of_all_dials_is_bounded() {
    assert_eq!(attempts_at_once(8, 3), 8 + 3);
    assert_eq!(attempts_at_once(1, MAX_CONNECT_ATTEMPTS), 6);
}

const DIALER: HubId = HubId(proto::PeerId::from_bytes([1; 20]));

/// A request for a link, which can prove that it knows a token.
fn link(sends_bearer: bool) -> Request<Empty<Bytes>> {
    let request = Request::get("/?peerId=x").header(SEC_WEBSOCKET_PROTOCOL, "mesh");
    let request = request.extension(LinkLogin { token: "token".into(), dialer: DIALER, sends_bearer });
    request.body(Empty::new()).unwrap()
}

/// The requests of one dial (whether each had the token), and its result.
fn dialed(sends_bearer: bool, answer: impl Fn(bool) -> String + Send + 'static) -> (Vec<bool>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, shown) = std::sync::mpsc::sync_channel(16);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            while let Some(head) = head(&mut stream) {
                assert!(
                    head.contains("sec-websocket-key: ") && head.contains("sec-websocket-protocol: mesh"),
                    "{head}"
                );
                let shows = head.contains("token");
                let answer = answer(shows);
                if heard.send(shows).is_err()
                    || stream.write_all(answer.as_bytes()).is_err()
                    || answer.contains("close")
                {
                    break;
                }
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opened = runtime.block_on(open([address].into(), None, &link(sends_bearer), PATIENCE));
    (shown.try_iter().collect(), opened.map(|_| ()).map_err(|error| error.to_string()))
}

fn head(stream: &mut StdStream) -> Option<String> {
    raw_head(stream).map(|head| head.to_ascii_lowercase())
}

fn raw_head(stream: &mut StdStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

fn refusal(text: &str) -> String {
    format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

#[test]
fn a_token_is_sent_only_to_servers_that_ask_as_hubs_do() {
    // The token itself is sent only with MESH_AUTH=both, and only to a server that asks as hubs of version 2.0.0 do.
    let (shown, opened) = dialed(false, |_| refusal(TOKEN_WANTED));
    assert!(shown == [false] && opened.as_ref().unwrap_err().contains("MESH_AUTH"), "{shown:?} {opened:?}");
    let (shown, opened) = dialed(true, |_| refusal(TOKEN_WANTED));
    assert!(shown == [false, true] && opened.unwrap_err().contains(TOKEN_WANTED), "the token is sent only once");
    let (shown, opened) = dialed(true, |_| refusal("unauthorized"));
    assert!(shown == [false] && opened.unwrap_err().contains("401 Unauthorized: unauthorized"));
    // The server does not ask for the token, so the token is not sent.
    let (shown, _) = dialed(true, |_| "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned());
    assert_eq!(shown, [false]);
    // The server asks for the token and ends the connection. The token is not sent on a new connection, because it
    // could lead to another hub.
    let (shown, opened) = dialed(true, |_| {
        let length = TOKEN_WANTED.len();
        format!("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{TOKEN_WANTED}")
    });
    assert!(shown == [false] && opened.as_ref().unwrap_err().contains("asked for the token"), "{shown:?} {opened:?}");
}

/// Dials a server that answers the first request with a challenge, and the second request with a `proof` that is made
/// from its credentials. Without a challenge, the server opens a WebSocket at once. Returns the header `authorization`
/// of each request, and the result of dialing: whether the server has proved that it knows the token, or an error.
fn challenged(
    sends_bearer: bool,
    challenge: Option<String>,
    proof: impl Fn(&LinkCredentials) -> String + Send + 'static,
) -> (Vec<String>, Result<bool, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, sent) = std::sync::mpsc::sync_channel(16);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            while let Some(head) = raw_head(&mut stream) {
                let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let credentials = LinkCredentials::parse(value("authorization: "));
                _ = heard.send(value("authorization: ").to_owned());
                let answer = match (&challenge, &credentials) {
                    (Some(challenge), None) => {
                        refusal(TOKEN_WANTED).replacen("\r\n", &format!("\r\nWWW-Authenticate: {challenge}\r\n"), 1)
                    }
                    (_, credentials) => {
                        let accept = accept(value("sec-websocket-key: "));
                        let proof = credentials.as_ref().map(&proof).unwrap_or_default();
                        format!(
                            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mesh\r\n\
                             Authentication-Info: {proof}\r\n\r\n"
                        )
                    }
                };
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opened = runtime.block_on(open([address].into(), None, &link(sends_bearer), PATIENCE));
    (sent.try_iter().collect(), opened.map(|socket| socket.is_proven).map_err(|error| error.to_string()))
}

#[test]
fn a_hub_with_a_challenge_must_prove_that_it_knows_the_token() {
    let issue = |n| proto::LinkChallenges::new([7; 32]).issue([n; 16], Duration::from_secs(1));
    for sends_bearer in [true, false] {
        let dial = |proof: fn(&LinkCredentials) -> String| challenged(sends_bearer, Some(issue(5)), proof);
        let (sent, opened) = dial(|credentials| credentials.reply(b"token", DIALER));
        assert_eq!(opened, Ok(true));
        // The token itself is never sent.
        assert!(sent.len() == 2 && sent[0] == LINK_SCHEME && !sent[1].contains("token"), "{sent:?}");
        let refused = |opened: Result<bool, String>| opened.is_err_and(|error| error.contains("did not prove"));
        assert!(refused(dial(|credentials| credentials.reply(b"a guess", DIALER)).1));
        assert!(refused(dial(|_| String::new()).1), "a stranger sends no proof");
        let own = |credentials: &LinkCredentials| {
            let header = credentials.header();
            header[header.find("proof=").unwrap()..].to_owned()
        };
        assert!(refused(dial(own).1), "the dialer's own proof is returned");
        // A recorded answer is wrong even if the challenge is the same, because it is for another nonce.
        let before = LinkCredentials::parse(&sent[1]).unwrap().reply(b"token", DIALER);
        assert!(refused(challenged(sends_bearer, Some(issue(5)), move |_| before.clone()).1));
    }
    // A stranger opens the link immediately. With MESH_AUTH=both, the stranger may be a hub of version 2.0.0.
    assert!(challenged(false, None, |_| String::new()).1.unwrap_err().contains("did not prove"));
    assert_eq!(challenged(true, None, |_| String::new()).1, Ok(false));
}

#[test]
fn servers_without_the_subprotocol_receive_no_token() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Both servers open a WebSocket without the subprotocol, as Go hubs do.
    let (one, asked_one) = server(upgrade_to_websocket);
    let (other, asked_other) = server(upgrade_to_websocket);
    let opened = runtime.block_on(open([one, other].into(), None, &link(true), PATIENCE));
    assert!(matches!(opened, Err(ConnectError::NoSubprotocol { shown: false })), "{opened:?}");
    assert_eq!((asked_one.load(Ordering::Relaxed), asked_other.load(Ordering::Relaxed)), (1, 1));
}
