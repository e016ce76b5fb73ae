//! What the text of a setting means, or what is wrong with it and what is allowed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};

use hyper::Uri;
use hyper::header::HeaderValue;
use proto::HubId;
use tracing_subscriber::EnvFilter;

use super::reader::quoted;
use super::{LogFormat, TOKEN_IS_SET, Token};

/// What Go's ParseBool takes, and what people write besides.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "n" | "no" | "off" => Ok(false),
        _ => Err(format!("{} is neither true nor false: true, false, 1, 0, yes, no, on, off", quoted(text))),
    }
}

/// The addresses that a host means.
pub(super) fn host(text: &str) -> Result<Vec<IpAddr>, String> {
    const ALLOWED: &str = "an address or a name of this machine, such as localhost, 0.0.0.0 or ::";
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(loopback());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!("{} is a URL: {ALLOWED}", quoted(text)));
    }
    if text.contains(':') {
        return Err(format!("{} names a port, which PORT is for: {ALLOWED}", quoted(text)));
    }
    match (text, 0).to_socket_addrs() {
        Ok(found) => {
            let found: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
            if found.is_empty() {
                return Err(format!("{} has no address: {ALLOWED}", quoted(text)));
            }
            Ok(found.into_iter().collect())
        }
        Err(error) => Err(format!("{} has no address ({error}): {ALLOWED}", quoted(text))),
    }
}

/// The loopback addresses that this machine has: in many containers there is no IPv6.
fn loopback() -> Vec<IpAddr> {
    let has = |address: &IpAddr| UdpSocket::bind((*address, 0)).is_ok();
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut found: Vec<IpAddr> = [v4, IpAddr::V6(Ipv6Addr::LOCALHOST)].into_iter().filter(has).collect();
    if found.is_empty() {
        found.push(v4);
    }
    found
}

pub(super) fn token(text: &str) -> Result<Token, String> {
    const LONGEST: usize = 4096;
    if text == TOKEN_IS_SET {
        return Err("this is what --print-config shows in a token's place: set the token itself".to_owned());
    }
    if text.len() > LONGEST || !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "the token cannot travel in a header: 1 to {LONGEST} visible ASCII characters, no space among them"
        ));
    }
    Ok(Token(text.to_owned()))
}

pub(super) fn origin(text: &str) -> Result<HeaderValue, String> {
    let refused = || {
        format!(
            "{} is not an origin: *, null, or one scheme://host[:port] without a path, such as https://app.example.com",
            quoted(text)
        )
    };
    if text != "*" && text != "null" {
        let (scheme, host) = text.split_once("://").ok_or_else(refused)?;
        let scheme_ok = scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c)) && !scheme.is_empty();
        let host_ok = host.bytes().all(|c| c.is_ascii_graphic() && !b"/?#@,;\\*\"<>".contains(&c)) && !host.is_empty();
        if !scheme_ok || !host_ok {
            return Err(refused());
        }
    }
    HeaderValue::from_str(text).map_err(|_| refused())
}

pub(super) fn hub_id(text: &str) -> Result<HubId, String> {
    text.parse().map(HubId).map_err(|_| format!("{} is not an id: 40 hexadecimal digits", quoted(text)))
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    const LONGEST: usize = 256;
    if text.len() > LONGEST || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{} is not a name: 1 to {LONGEST} bytes, no space among them", quoted(text)));
    }
    Ok(text.to_owned())
}

/// URLs of hubs, with commas between them. Blanks between commas are nothing.
pub(super) fn hubs(text: &str) -> Result<Vec<Uri>, String> {
    const MOST: usize = 256;
    let mut hubs: Vec<Uri> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let refused = || {
            let item = quoted(&without_secrets(item));
            format!("{item} is not the URL of a hub: ws://host[:port] or wss://host[:port]")
        };
        let uri: Uri = item.parse().map_err(|_| refused())?;
        let known_scheme = matches!(uri.scheme_str(), Some("ws" | "wss"));
        if !known_scheme || uri.host().is_none_or(str::is_empty) {
            return Err(refused());
        }
        if !hubs.contains(&uri) {
            hubs.push(uri);
        }
    }
    if hubs.len() > MOST {
        return Err(format!("{} hubs are too many: up to {MOST}", hubs.len()));
    }
    Ok(hubs)
}

/// A URL without what may be secret in it: user, password and query.
pub(crate) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{}", path.trim_end_matches('/'))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{} is not a format: auto, json or human", quoted(text))),
    }
}

/// A filter as the subscriber reads it, made sure of by its parser.
///
/// Stricter in one thing: a bare word has to be a level. The parser takes any word for a module to be logged in
/// full, so that a misspelt level would silence the hub.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let refused = |item: &str| {
        let levels = LEVELS.join(", ");
        format!("{} is not a level or a filter: {levels}, or pairs such as shard=debug with commas", quoted(item))
    };
    for item in text.split(',').map(str::trim) {
        let level = item.rsplit_once('=').map_or(item, |(_, level)| level);
        let is_level = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        // `a[b{c=d}]` without a level is a span filter; its parser judges it.
        if !is_level && !item.contains('[') {
            return Err(refused(item));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| refused(text))?;
    Ok(text.to_owned())
}
