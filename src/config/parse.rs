//! Parsers of settings. The errors of a parser say what is wrong, and which values are allowed.

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};

use hyper::Uri;
use proto::HubId;
use shard::Origins;
use tracing_subscriber::EnvFilter;

use super::quoted::quoted;
use super::{LogFormat, TOKEN_IS_SET, Token};

/// Parses a boolean. Accepts the words that Go's ParseBool accepts, and also y, yes, n, no, on and off.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "n" | "no" | "off" => Ok(false),
        _ => Err(format!("{} is not a boolean: use true, false, 1, 0, yes, no, on or off", quoted(text))),
    }
}

/// The addresses of a host.
pub(super) fn host(text: &str) -> Result<Vec<IpAddr>, String> {
    const ALLOWED: &str = "use an address or a name of this machine, such as localhost, 0.0.0.0 or ::";
    if mesh::is_localhost(text) {
        return Ok(mesh::loopback());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!("{} is a URL: {ALLOWED}", quoted(text)));
    }
    if text.contains(':') {
        return Err(format!("{} has a port, which belongs in PORT: {ALLOWED}", quoted(text)));
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

pub(super) fn token(text: &str) -> Result<Token, String> {
    const LONGEST: usize = 4096;
    if text == TOKEN_IS_SET {
        return Err("this is the placeholder that --print-config prints: use the token itself".to_owned());
    }
    if text.len() > LONGEST || !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "the value is too long or has characters that are not allowed: use 1 to {LONGEST} visible ASCII characters \
             without spaces"
        ));
    }
    Ok(Token(text.to_owned()))
}

/// Trims a token as the hub does, for tools that send it. A parser of tokens must not fail, because clap would print
/// the token in its error.
#[allow(clippy::unnecessary_wraps, reason = "clap requires a Result")]
pub fn trimmed(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.trim().to_owned())
}

/// A list of origins, separated by commas.
pub(super) fn origins(text: &str) -> Result<Origins, String> {
    text.parse().map_err(|number| {
        format!(
            "{} is not an origin: use *, null, scheme://host[:port] without a path, such as https://app.example.com, \
             or https://*.example.com for all names below a domain, separated by commas",
            shown_entry(text, number)
        )
    })
}

pub(super) fn hub_id(text: &str) -> Result<HubId, String> {
    text.parse().map(HubId).map_err(|_| format!("{} is not an id: use 40 hexadecimal digits", quoted(text)))
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    const LONGEST: usize = 256;
    if text.len() > LONGEST || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{} is not a name: use 1 to {LONGEST} bytes without spaces", quoted(text)));
    }
    Ok(text.to_owned())
}

/// URLs of hubs, separated by commas. Empty entries are skipped.
pub(super) fn hubs(text: &str) -> Result<Vec<Uri>, String> {
    const MOST: usize = 256;
    let mut hubs: Vec<Uri> = Vec::new();
    for (number, item) in entries(text) {
        let refused = || {
            let item = shown_entry(text, number);
            format!("{item} is not the URL of a hub: use ws://host[:port] or wss://host[:port]")
        };
        let uri = hub(item)?.ok_or_else(refused)?;
        if !hubs.contains(&uri) {
            hubs.push(uri);
        }
    }
    if hubs.len() > MOST {
        return Err(format!("{} hubs are too many: name at most {MOST}", hubs.len()));
    }
    Ok(hubs)
}

/// The URL of one hub. `None` if the text is not such a URL.
///
/// # Errors
///
/// If there is an `@` after the host. The text before the `@` looks like a host, but may be a part of a password.
pub(super) fn hub(text: &str) -> Result<Option<Uri>, String> {
    // The text is checked instead of the parsed URL, because the parsed URL has lost its fragment.
    let tail = text.split_once("://").and_then(|(_, rest)| rest.split_once(['/', '?', '#']));
    if tail.is_some_and(|(_, tail)| tail.contains('@')) {
        return Err(MISPLACED_AT.to_owned());
    }
    let Ok(uri) = text.parse::<Uri>() else { return Ok(None) };
    let known_scheme = matches!(uri.scheme_str(), Some("ws" | "wss"));
    let Some(authority) = uri.authority().filter(|authority| known_scheme && !authority.host().is_empty()) else {
        return Ok(None);
    };
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = place.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none() {
        return Ok(None);
    }
    Ok(Some(uri))
}

/// The error for a URL with an `@` after its host.
const MISPLACED_AT: &str = "the URL has an @ after its host: percent-encode special characters of the user name and \
                            password, and any @ in the path (/ is %2F, ? is %3F, # is %23, @ is %40)";

/// The non-empty entries of a comma-separated list, with their numbers.
pub(super) fn entries(list: &str) -> impl Iterator<Item = (usize, &str)> {
    list.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty())
}

/// An entry of a list, as an error may show it. If a later entry contains an `@`, this entry may be part of a password
/// that contains a comma. The error then shows only the number of the entry.
pub(super) fn shown_entry(list: &str, number: usize) -> String {
    let mut rest = list.split(',').skip(number);
    let entry = rest.next().unwrap_or_default().trim();
    if rest.any(|later| later.contains('@')) { format!("entry {}", number + 1) } else { quoted(entry) }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{} is not a log format: use auto, json or human", quoted(text))),
    }
}

/// Validates a log filter with the subscriber's parser.
///
/// A word without `=` must be a level. The parser would accept a misspelt level as the name of a module, and the hub
/// would then log nothing.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let refused = |item: String| {
        let levels = LEVELS.join(", ");
        format!("{item} is not a log level or filter: use {levels}, or pairs such as shard=debug separated by commas")
    };
    for (number, item) in text.split(',').map(str::trim).enumerate() {
        let level = item.rsplit_once('=').map_or(item, |(_, level)| level);
        let is_level = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
        // `a[b{c=d}]` without a level is a span filter, which the parser validates.
        if !is_level && !item.contains('[') {
            return Err(refused(shown_entry(text, number)));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| refused(quoted(text)))?;
    Ok(text.to_owned())
}
