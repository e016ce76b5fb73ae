//! Checks the addresses of the hub, and TLS at each address.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mesh::{MaybeTlsStream, Tls};
use tls::{Explained, Presenter, explain_certificate};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};

use super::finding::{Finding, Grade, Report, Topic, counted};
use crate::client::HubUrl;

/// Maximum number of addresses that are examined.
const MAX_ADDRESSES: usize = 8;

/// Maximum time for a connection, and for a TLS handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// Days until a certificate expires. With fewer days than the first number, the doctor reports a warning. With fewer
/// days than the second number, the doctor reports a problem. The alerts use the same limits.
const DAYS_LEFT: (f64, f64) = (14.0, 3.0);

/// The addresses that accept connections.
#[derive(Debug)]
pub(super) struct Reachable {
    pub(super) addresses: Vec<SocketAddr>,
    /// The time that the first successful TCP connection took.
    pub(super) rtt: Duration,
}

/// Resolves the name of the hub, and connects to each address, at most [`MAX_ADDRESSES`]. Returns `None` if no address
/// accepts a connection.
pub(super) async fn addresses(url: &HubUrl, report: &mut Report) -> Option<Reachable> {
    const CHECK: &str = "address";
    let (host, port) = (url.host(), url.port());
    let resolved = timeout(PATIENCE, mesh::resolve(host, port)).await;
    let mut addresses: Vec<SocketAddr> = match resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(addresses) => addresses,
        Err(error) => {
            let message = format!("{host} cannot be resolved: {error}");
            report.add(Finding::problem(CHECK, Topic::NoAddress, message));
            return None;
        }
    };
    addresses.dedup();
    let more = addresses.len().saturating_sub(MAX_ADDRESSES);
    addresses.truncate(MAX_ADDRESSES);
    let mut works = Vec::new();
    let mut rtt = None;
    let mut failed = Vec::new();
    for &address in &addresses {
        let begin = Instant::now();
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(_) => {
                rtt.get_or_insert(begin.elapsed());
                works.push(address);
            }
            Err(error) => failed.push((address, error)),
        }
    }
    for (address, error) in &failed {
        let finding = if is_of_this_machine(*address, error) {
            Finding::skipped(CHECK, format!("{address}: this machine has no route to it ({error})"))
        } else if works.is_empty() {
            Finding::problem(CHECK, Topic::AddressUnreachable, format!("{address} accepts no connection: {error}"))
        } else {
            let message = format!("{address} accepts no connection, but other addresses of {host} do: {error}");
            Finding::warning(CHECK, Topic::AddressUnreachable, message)
        };
        report.add(finding);
    }
    if addresses.is_empty() {
        report.add(Finding::problem(CHECK, Topic::NoAddress, format!("{host} has no address")));
    }
    let rtt = rtt?;
    let millis = rtt.as_secs_f64() * 1000.0;
    let and_more = if more > 0 { format!(" ({more} more were not tried)") } else { String::new() };
    let message =
        format!("{host} accepts connections at {}{and_more}; the first took {millis:.1} ms", shown_addresses(&works));
    report.add(Finding::ok(CHECK, message));
    let is_name = host.parse::<std::net::IpAddr>().is_err() && host != "localhost";
    if is_name && !addresses.iter().any(SocketAddr::is_ipv6) {
        report.add(Finding::note(CHECK, Topic::NoIpv6, format!("{host} has no IPv6 address")));
    }
    Some(Reachable { addresses: works, rtt })
}

/// The time of a TCP connection to the first address of this hub that accepts one.
pub(super) async fn round_trip(url: &HubUrl) -> Option<Duration> {
    let addresses = timeout(PATIENCE, mesh::resolve(url.host(), url.port())).await.ok()?.ok()?;
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        let begin = Instant::now();
        if let Ok(Ok(_)) = timeout(PATIENCE, TcpStream::connect(address)).await {
            return Some(begin.elapsed());
        }
    }
    None
}

fn shown_addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether a connection failed because this machine has no route to IPv6 addresses. Such a failure says nothing about
/// the hub.
fn is_of_this_machine(address: SocketAddr, error: &io::Error) -> bool {
    address.is_ipv6() && matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
}

/// The result of the examination of TLS.
#[derive(Debug)]
pub(super) enum Trust {
    /// The certificate is valid, or the URL has no TLS. All further connections use these TLS settings.
    Proven(Option<Tls>),
    /// The certificate is invalid, so nothing secret may be sent.
    Unproven(Tls),
    /// TLS fails at every address, or the port needs TLS and the URL has none. The doctor makes no further checks.
    Broken,
}

/// Examines TLS at each address. Removes the addresses that the later checks must not use: if the certificate is valid
/// at some addresses, the others are removed, else those at which TLS fails.
pub(super) async fn tls(url: &HubUrl, reachable: &mut Reachable, ca: Option<&[u8]>, report: &mut Report) -> Trust {
    const CHECK: &str = "tls";
    let (strict, lax) = match (Tls::new(ca), Tls::without_proof()) {
        (Ok(strict), Ok(lax)) => (strict, lax),
        (Err(error), _) | (_, Err(error)) => {
            report.add(Finding::problem(CHECK, Topic::TlsHandshake, error.to_string()));
            return Trust::Broken;
        }
    };
    let (mut valid, mut speaking) = (Vec::new(), Vec::new());
    for &address in &reachable.addresses {
        let (finding, is_speaking) = match shake(&strict, url.host(), address).await {
            Ok(stream) => (proven(address, &stream), true),
            Err(error) => {
                let lax = shake(&lax, url.host(), address).await;
                (unproven(url.host(), address, &error, lax.as_ref().ok()), lax.is_ok())
            }
        };
        let failed = finding.grade == Grade::Problem && finding.topic != Some(Topic::TlsExpiresSoon);
        report.add(finding);
        if !failed {
            valid.push(address);
        } else if is_speaking {
            speaking.push(address);
        }
    }
    let (addresses, trust) = match (valid.is_empty(), speaking.is_empty()) {
        (false, _) => (valid, Trust::Proven(Some(strict))),
        (true, false) => (speaking, Trust::Unproven(lax)),
        (true, true) => return Trust::Broken,
    };
    if addresses.len() < reachable.addresses.len() {
        let used = shown_addresses(&addresses);
        report.add(Finding::skipped(CHECK, format!("the checks below use only the addresses that work: {used}")));
        reachable.addresses = addresses;
    }
    trust
}

/// Examines a URL without TLS. `speaks_http` is true if the port has answered a request in clear text.
pub(super) async fn plain(url: &HubUrl, reachable: &Reachable, speaks_http: bool, report: &mut Report) -> Trust {
    const CHECK: &str = "tls";
    // A hub logs failed handshakes, so the doctor tries none if the port has answered without TLS.
    if !speaks_http
        && let (Ok(lax), Some(&address)) = (Tls::without_proof(), reachable.addresses.first())
        && shake(&lax, url.host(), address).await.is_ok()
    {
        let message = format!("{address} speaks TLS, and the URL begins with ws://");
        report.add(Finding::problem(CHECK, Topic::TlsWanted, message));
        return Trust::Broken;
    }
    let is_here = reachable.addresses.iter().all(|address| address.ip().is_loopback());
    report.add(if is_here {
        Finding::skipped(CHECK, "the hub is on this machine, and the URL begins with ws://")
    } else {
        Finding::warning(CHECK, Topic::NoTls, "the URL begins with ws://, so nothing is encrypted")
    });
    Trust::Proven(None)
}

async fn shake(tls: &Tls, host: &str, address: SocketAddr) -> io::Result<MaybeTlsStream> {
    let shake = async {
        let tcp = TcpStream::connect(address).await?;
        // A ticket of an earlier handshake would let the server omit its certificate.
        tls.clone().keeping_tickets(0).connect(host, tcp).await
    };
    timeout(PATIENCE, shake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The certificate of the server, how many certificates it sent, and the version of TLS.
fn shown(stream: &MaybeTlsStream) -> Option<(tls::CertificateFacts, usize, String)> {
    let MaybeTlsStream::Tls(stream) = stream else { return None };
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates()?;
    let facts = tls::CertificateFacts::read(Path::new("the hub's"), chain.first()?).ok()?;
    let version = connection.protocol_version().map(|version| format!("{version:?}").replace('_', "."));
    Some((facts, chain.len(), version.unwrap_or_default().replace("TLSv", "TLS ")))
}

/// The finding for a valid certificate.
fn proven(address: SocketAddr, stream: &MaybeTlsStream) -> Finding {
    const CHECK: &str = "tls";
    let Some((facts, chain, version)) = shown(stream) else {
        return Finding::ok(CHECK, format!("{address}: the certificate is valid"));
    };
    let days = facts.seconds_left(SystemTime::now()) / 86_400.0;
    let certificates = counted(chain, "certificate");
    let message = format!("{address}: {version}, {certificates} sent, valid for {days:.0} more days");
    if days < DAYS_LEFT.1 {
        let message = format!("{address}: the certificate expires in {days:.1} days");
        Finding::problem(CHECK, Topic::TlsExpiresSoon, message)
    } else if days < DAYS_LEFT.0 {
        let message = format!("{address}: the certificate expires in {days:.0} days");
        Finding::warning(CHECK, Topic::TlsExpiresSoon, message)
    } else if version == "TLS 1.2" {
        Finding::note(CHECK, Topic::TlsOld, message)
    } else {
        Finding::ok(CHECK, message)
    }
}

/// The finding for a failed handshake. `lax` is a connection that verified no certificate.
fn unproven(host: &str, address: SocketAddr, error: &io::Error, lax: Option<&MaybeTlsStream>) -> Finding {
    const CHECK: &str = "tls";
    let shown = lax.and_then(shown);
    let (topic, message) = match Explained::find(error) {
        Some(TlsError::InvalidCertificate(why)) => invalid(host, why, shown.as_ref()),
        Some(TlsError::InvalidMessage(_)) => (Topic::TlsMissing, "the port does not speak TLS".to_owned()),
        _ if error.kind() == io::ErrorKind::TimedOut => {
            (Topic::TlsHandshake, format!("no TLS handshake within {} s", PATIENCE.as_secs()))
        }
        _ => (Topic::TlsHandshake, format!("the TLS handshake failed: {error}")),
    };
    Finding::problem(CHECK, topic, format!("{address}: {message}"))
}

/// The topic and the message for an invalid certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many more, which are rare")]
fn invalid(
    host: &str,
    why: &CertificateError,
    shown: Option<&(tls::CertificateFacts, usize, String)>,
) -> (Topic, String) {
    let now = SystemTime::now();
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let hours = shown.map(|(facts, ..)| (-facts.seconds_left(now) / 3600.0).max(0.0).round() as usize);
            let ago = hours.map(|hours| match hours {
                0..48 => format!(" {} ago", counted(hours, "hour")),
                hours => format!(" {} ago", counted(hours / 24, "day")),
            });
            (Topic::TlsExpired, format!("the certificate expired{}", ago.unwrap_or_default()))
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (Topic::TlsNotYetValid, "the certificate is not valid yet".to_owned())
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = shown.map(|(facts, ..)| facts.names.join(", ")).filter(|names| !names.is_empty());
            let names = names.map(|names| format!(", but for {names}"));
            (Topic::TlsWrongName, format!("the certificate is not for {host}{}", names.unwrap_or_default()))
        }
        CertificateError::UnknownIssuer => {
            let sent = shown.map_or_else(String::new, |(_, sent, _)| format!(" ({})", counted(*sent, "certificate")));
            let message = format!("no known authority has signed the certificates that the server sends{sent}");
            (Topic::TlsUnknownIssuer, message)
        }
        _ => {
            let why = explain_certificate(why, Presenter::Server);
            (Topic::TlsHandshake, format!("the certificate {why}"))
        }
    }
}

/// Host and port of a URL, without a password.
pub(super) fn host_and_port(url: &HubUrl) -> String {
    format!("{}:{}", url.host(), url.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_without_tls_is_a_warning_unless_the_hub_is_on_this_machine() {
        for (address, topic) in [("127.0.0.1:80", None), ("[::1]:80", None), ("192.0.2.1:80", Some(Topic::NoTls))] {
            let reachable = Reachable { addresses: vec![address.parse().unwrap()], rtt: Duration::ZERO };
            let mut report = Report::new("ws://hub".to_owned(), true);
            let trust = plain(&"ws://hub".parse().unwrap(), &reachable, true, &mut report).await;
            assert!(matches!(trust, Trust::Proven(None)), "{trust:?}");
            assert_eq!(report.topics(), [topic], "{address}");
        }
    }

    #[tokio::test]
    async fn tls_that_fails_at_one_address_leaves_the_others() {
        let local = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (plain, secure) = (local(), local());
        let (without, with) = (plain.local_addr().unwrap(), secure.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut client in plain.incoming().map_while(Result::ok) {
                _ = io::Write::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = std::sync::Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
        std::thread::spawn(move || {
            for mut client in secure.incoming().map_while(Result::ok) {
                let mut connection = tokio_rustls::rustls::ServerConnection::new(config.clone()).unwrap();
                while connection.is_handshaking() && connection.complete_io(&mut client).is_ok() {}
            }
        });
        let mut reachable = Reachable { addresses: vec![without, with], rtt: Duration::ZERO };
        let mut report = Report::new("wss://localhost".to_owned(), true);
        let trust = tls(&"wss://localhost".parse().unwrap(), &mut reachable, None, &mut report).await;
        assert!(matches!(trust, Trust::Unproven(_)), "{trust:?}");
        assert_eq!(reachable.addresses, [with]);
        assert_eq!(report.topics(), [Some(Topic::TlsMissing), Some(Topic::TlsUnknownIssuer), None]);
    }

    #[test]
    fn a_machine_without_ipv6_says_nothing_about_the_hub() {
        let is_ours = |address: &str, kind: io::ErrorKind| is_of_this_machine(address.parse().unwrap(), &kind.into());
        assert!(is_ours("[2001:db8::1]:80", io::ErrorKind::NetworkUnreachable));
        assert!(is_ours("[2001:db8::1]:80", io::ErrorKind::AddrNotAvailable));
        assert!(!is_ours("[2001:db8::1]:80", io::ErrorKind::ConnectionRefused));
        assert!(!is_ours("192.0.2.1:80", io::ErrorKind::NetworkUnreachable));
    }

    #[test]
    fn each_fault_of_a_certificate_has_its_topic() {
        let topic = |error: CertificateError| invalid("hub", &error, None).0;
        assert_eq!(topic(CertificateError::Expired), Topic::TlsExpired);
        assert_eq!(topic(CertificateError::NotValidYet), Topic::TlsNotYetValid);
        assert_eq!(topic(CertificateError::NotValidForName), Topic::TlsWrongName);
        assert_eq!(topic(CertificateError::UnknownIssuer), Topic::TlsUnknownIssuer);
        assert_eq!(topic(CertificateError::Revoked), Topic::TlsHandshake);
        let address = "127.0.0.1:443".parse().unwrap();
        let handshake = |error: io::Error| unproven("hub", address, &error, None).topic;
        assert_eq!(handshake(io::ErrorKind::TimedOut.into()), Some(Topic::TlsHandshake));
        let wrapped = |error: TlsError| io::Error::new(io::ErrorKind::InvalidData, error);
        let bytes = tokio_rustls::rustls::InvalidMessage::InvalidContentType;
        assert_eq!(handshake(wrapped(TlsError::InvalidMessage(bytes))), Some(Topic::TlsMissing));
        let expired = wrapped(TlsError::InvalidCertificate(CertificateError::Expired));
        assert_eq!(handshake(expired), Some(Topic::TlsExpired));
    }
}
