//! Checks STUN and TURN servers, which help peers to connect through NATs. The hub sends their URLs in `connected`, or
//! the user names them with `--ice-servers`.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh::{MaybeTlsStream, Tls};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::finding::{Finding, Grade, Report, Topic};
use super::stun::{self, Answer, HEADER, Login, MAX_MESSAGE, Method};

const CHECK: &str = "ice";

/// Maximum number of entries that the doctor reads from a hub, and of URLs that it examines.
const MAX_SERVERS: usize = 16;

/// Maximum time for a connection to a server, and for each of its answers.
const PATIENCE: Duration = Duration::from_secs(4);

/// Time after which a request over UDP is repeated. This time doubles with each repetition.
const REPEAT: Duration = Duration::from_millis(500);

/// An entry of `iceServers`, in the form that `RTCPeerConnection` accepts.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Server {
    urls: Urls,
    #[serde(default)]
    username: String,
    #[serde(default)]
    credential: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Many(Vec<String>),
}

impl Server {
    fn urls(&self) -> &[String] {
        match &self.urls {
            Urls::One(url) => std::slice::from_ref(url),
            Urls::Many(urls) => urls,
        }
    }
}

/// Reads the servers of a hub. Entries of another form are reported as findings.
pub(super) fn read(servers: &[Value], report: &mut Report) -> Vec<Server> {
    let mut read = Vec::new();
    left_out(servers.len(), "entries", report);
    for server in servers.iter().take(MAX_SERVERS) {
        match Server::deserialize(server) {
            Ok(server) => read.push(server),
            Err(error) => {
                let message = format!("the hub hands out a server that is not an RTCIceServer: {error}");
                report.add(Finding::problem(CHECK, Topic::IceInvalid, message));
            }
        }
    }
    read
}

/// Reports the part of a list beyond [`MAX_SERVERS`], which is not examined.
fn left_out(length: usize, what: &str, report: &mut Report) {
    if length > MAX_SERVERS {
        let more = length - MAX_SERVERS;
        let message = format!("{more} of {length} {what} were not examined: the doctor examines {MAX_SERVERS}");
        report.add(Finding::skipped(CHECK, message));
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// The URL of a server (RFC 7064, RFC 7065).
#[derive(PartialEq, Eq, Debug)]
struct ServerUrl<'a> {
    is_turn: bool,
    transport: Transport,
    host: &'a str,
    port: u16,
}

fn parse(url: &str) -> Option<ServerUrl<'_>> {
    let (scheme, rest) = url.split_once(':')?;
    let (is_turn, is_tls) = match scheme {
        "stun" => (false, false),
        "stuns" => (false, true),
        "turn" => (true, false),
        "turns" => (true, true),
        _ => return None,
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let transport = match (query, is_tls) {
        ("" | "transport=tcp", true) => Transport::Tls,
        ("" | "transport=udp", false) => Transport::Udp,
        ("transport=tcp", false) => Transport::Tcp,
        _ => return None,
    };
    let default = if is_tls { 5349 } else { 3478 };
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (host, port.strip_prefix(':').map_or(Some(default), |port| port.parse().ok())?)
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (place, default),
        }
    };
    (!host.is_empty() && !host.contains('/')).then_some(ServerUrl { is_turn, transport, host, port })
}

/// Asks the servers at their first [`MAX_SERVERS`] URLs.
pub(super) async fn examine(servers: &[Server], ca: Option<&[u8]>, report: &mut Report) {
    if servers.is_empty() {
        let message = "the hub sends no ICE servers, and --ice-servers names none";
        report.add(Finding::note(CHECK, Topic::NoIceServers, message));
        return;
    }
    // While the secret of a server is replaced, the hub sends the server twice, with one credential for each secret.
    let mut urls: Vec<(&str, Vec<&Server>)> = Vec::new();
    let all: Vec<_> =
        servers.iter().flat_map(|server| server.urls().iter().map(move |url| (server, url.as_str()))).collect();
    left_out(all.len(), "URLs", report);
    let has_turn = all.iter().any(|(_, url)| parse(url).is_some_and(|url| url.is_turn));
    for (server, url) in all.into_iter().take(MAX_SERVERS) {
        match urls.iter_mut().find(|(known, _)| *known == url) {
            Some((_, servers)) => servers.push(server),
            None => urls.push((url, vec![server])),
        }
    }
    for (url, servers) in urls {
        let Some(parsed) = parse(url) else {
            let message = format!("{url} is not the URL of a server: use stun:, stuns:, turn: or turns:");
            report.add(Finding::problem(CHECK, Topic::IceInvalid, message));
            continue;
        };
        let mut findings = Vec::new();
        for server in servers {
            findings.push(ask(server, url, &parsed, ca).await);
        }
        let works = findings.iter().any(|finding| finding.grade == Grade::Ok);
        for finding in findings {
            report.add(if works && finding.topic == Some(Topic::TurnRefused) {
                let message = format!("{}, but the server accepts the other credential in the list", finding.message);
                Finding::note(CHECK, Topic::TurnRefused, message)
            } else {
                finding
            });
        }
    }
    if !has_turn {
        let message = "no TURN server is named: pairs behind strict NATs or firewalls cannot connect";
        report.add(Finding::note(CHECK, Topic::NoTurn, message));
    }
}

async fn ask(server: &Server, url: &str, parsed: &ServerUrl<'_>, ca: Option<&[u8]>) -> Finding {
    let (what, dead) = if parsed.is_turn { ("TURN", Topic::TurnDead) } else { ("STUN", Topic::StunDead) };
    let begin = Instant::now();
    let mut connection = match Connection::open(parsed, ca).await {
        Ok(connection) => connection,
        Err(error) => {
            return Finding::problem(CHECK, dead, format!("{url}: no connection to the {what} server: {error}"));
        }
    };
    let asked = if parsed.is_turn { allocate(server, &mut connection).await } else { bind(&mut connection).await };
    let took = begin.elapsed().as_secs_f64() * 1000.0;
    match asked {
        Ok(address) if parsed.is_turn => Finding::ok(CHECK, format!("{url} has reserved {address} in {took:.0} ms")),
        Ok(address) => Finding::ok(CHECK, format!("{url} sees this machine as {address}, in {took:.0} ms")),
        Err(Failure::Io(error)) => {
            Finding::problem(CHECK, dead, format!("{url}: the {what} server does not answer: {error}"))
        }
        Err(Failure::Refused(code, reason)) => {
            let topic = if code == 486 || code == 508 { Topic::TurnFull } else { Topic::TurnRefused };
            Finding::problem(CHECK, topic, format!("{url} refuses with {code} {reason:?}"))
        }
        Err(Failure::Strange) => {
            Finding::problem(CHECK, dead, format!("{url}: the answer is not that of a {what} server"))
        }
    }
}

/// Why a server gave no address.
enum Failure {
    Io(io::Error),
    Refused(u16, String),
    Strange,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn bind(connection: &mut Connection) -> Result<SocketAddr, Failure> {
    let answer = connection.ask(Method::Binding, None).await?;
    match (answer.error, answer.mapped) {
        (Some((code, reason)), _) => Err(Failure::Refused(code, reason)),
        (None, Some(address)) => Ok(address),
        (None, None) => Err(Failure::Strange),
    }
}

async fn allocate(server: &Server, connection: &mut Connection) -> Result<SocketAddr, Failure> {
    let first = connection.ask(Method::Allocate, None).await?;
    let (realm, nonce) = match (&first.error, first.realm, first.nonce) {
        // The server answers 401 to ask for a login.
        (Some((401, _)), Some(realm), Some(nonce)) => (realm, nonce),
        (Some((code, reason)), ..) => return Err(Failure::Refused(*code, reason.clone())),
        (None, ..) => return first.relayed.ok_or(Failure::Strange),
    };
    let (username, password) = (server.username.as_str(), server.credential.as_str());
    let login = Login { username, password, realm: &realm, nonce: &nonce };
    let second = connection.ask(Method::Allocate, Some(login)).await?;
    match (second.error, second.relayed) {
        (Some((code, reason)), _) => Err(Failure::Refused(code, reason)),
        (None, Some(address)) => {
            // Without a release, the TURN server would keep the relayed address reserved for ten minutes.
            _ = connection.ask(Method::Release, Some(login)).await;
            Ok(address)
        }
        (None, None) => Err(Failure::Strange),
    }
}

/// A connection to a server.
enum Connection {
    Udp(UdpSocket),
    Stream(MaybeTlsStream),
}

impl Connection {
    async fn open(url: &ServerUrl<'_>, ca: Option<&[u8]>) -> io::Result<Self> {
        let open = async {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in mesh::resolve(url.host, url.port).await? {
                match Self::at(url, address, ca).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        timeout(PATIENCE, open).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn at(url: &ServerUrl<'_>, address: SocketAddr, ca: Option<&[u8]>) -> io::Result<Self> {
        Ok(match url.transport {
            Transport::Udp => {
                let own: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
                let socket = UdpSocket::bind(own).await?;
                socket.connect(address).await?;
                Self::Udp(socket)
            }
            Transport::Tcp => Self::Stream(MaybeTlsStream::Plain(TcpStream::connect(address).await?)),
            Transport::Tls => Self::Stream(Tls::new(ca)?.connect(url.host, TcpStream::connect(address).await?).await?),
        })
    }

    async fn ask(&mut self, method: Method, login: Option<Login<'_>>) -> Result<Answer, Failure> {
        let mut transaction = [0; 12];
        getrandom::fill(&mut transaction).map_err(|error| io::Error::other(error.to_string()))?;
        let request = stun::request(method, transaction, login);
        let asked = timeout(PATIENCE, async {
            match self {
                Self::Udp(socket) => over_udp(socket, &request, method, transaction).await,
                Self::Stream(stream) => over_a_stream(stream, &request, method, transaction).await,
            }
        });
        asked.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

async fn over_udp(
    socket: &UdpSocket,
    request: &[u8],
    method: Method,
    transaction: [u8; 12],
) -> Result<Answer, Failure> {
    let mut buffer = [0; MAX_MESSAGE];
    let mut pause = REPEAT;
    loop {
        socket.send(request).await?;
        let heard = timeout(pause, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(answer) = stun::answer(&buffer[..length], method, transaction) {
                    return Ok::<_, io::Error>(answer);
                }
            }
        });
        match heard.await {
            Ok(answer) => return Ok(answer?),
            Err(_) => pause *= 2,
        }
    }
}

async fn over_a_stream(
    stream: &mut MaybeTlsStream,
    request: &[u8],
    method: Method,
    transaction: [u8; 12],
) -> Result<Answer, Failure> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let length = stun::body_length(&header);
    if length > MAX_MESSAGE {
        return Err(Failure::Strange);
    }
    let mut message = header.to_vec();
    message.resize(HEADER + length, 0);
    stream.read_exact(&mut message[HEADER..]).await?;
    stun::answer(&message, method, transaction).ok_or(Failure::Strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers_have_default_ports_and_transports() {
        let read = |url| parse(url).map(|url| (url.is_turn, url.transport, url.host.to_owned(), url.port));
        let is = |is_turn, transport, host: &str, port| Some((is_turn, transport, host.to_owned(), port));
        assert_eq!(read("stun:stun.example.com"), is(false, Transport::Udp, "stun.example.com", 3478));
        assert_eq!(read("turn:192.0.2.1:80?transport=tcp"), is(true, Transport::Tcp, "192.0.2.1", 80));
        assert_eq!(read("turns:t.example"), is(true, Transport::Tls, "t.example", 5349));
        assert_eq!(read("turn:[2001:db8::1]:99"), is(true, Transport::Udp, "2001:db8::1", 99));
        for bad in
            ["", "turn", "turn:", "http://t", "turn:t:x", "turn:[::1", "turns:t?transport=udp", "stun::1", "turn://t"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
