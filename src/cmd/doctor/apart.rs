//! Reads the reasons for which a hub has no connection to other hubs, from its page /hubstats.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Uri};
use mesh::Tls;
use serde::Deserialize;

use super::finding::counted;
use crate::client::HubUrl;
use crate::cmd::http;

/// Maximum time for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum number of reasons of one hub, and of characters of one reason. Further reasons are left out: a mesh of a
/// hundred hubs would fill the report with one reason.
const MAX_REASONS: (usize, usize) = (4, 300);

/// What the doctor needs to read the pages of operators.
pub(super) struct Operator<'a> {
    pub(super) token: Option<&'a str>,
    pub(super) ca: Option<&'a [u8]>,
}

/// The parts of /hubstats that say why hubs are apart.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HubStats {
    bootstrap_hubs: Vec<Dial>,
    found_hubs: Option<Vec<Dial>>,
    links: Option<Vec<serde::de::IgnoredAny>>,
    redis: Option<Redis>,
}

/// A hub that this hub dials.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Dial {
    connected: bool,
    last_error: Option<String>,
    own: bool,
    uri: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Redis {
    address: String,
    connected: bool,
    last_error: Option<String>,
    one_way: Vec<serde::de::IgnoredAny>,
}

impl HubStats {
    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(redis) = &self.redis {
            if !redis.connected {
                let why = redis.last_error.as_deref().unwrap_or("not connected yet");
                reasons.push(format!("Redis {}: {why}", redis.address));
            }
            if !redis.one_way.is_empty() {
                let hubs = counted(redis.one_way.len(), "hub");
                reasons.push(format!("Redis carries messages in only one direction for {hubs}"));
            }
        }
        let dials = || self.bootstrap_hubs.iter().chain(self.found_hubs.iter().flatten()).filter(|dial| !dial.own);
        reasons.extend(dials().filter(|dial| !dial.connected).map(|dial| {
            let why = dial.last_error.as_deref().unwrap_or("not dialed yet");
            format!("no link to {}: {why}", dial.uri)
        }));
        if self.redis.is_none() && dials().next().is_none() && self.links.iter().flatten().next().is_none() {
            reasons.push("it has no links and dials no hub: set BOOTSTRAP_HUBS, MESH_DNS or REDIS_URL".to_owned());
        }
        reasons
    }
}

/// A sentence with the reasons that /hubstats of this hub gives, or why the page cannot be read.
pub(super) async fn reasons(url: &HubUrl, operator: &Operator<'_>) -> String {
    let stats = match read(url, operator).await {
        Ok(stats) => stats,
        Err(why) => return format!("/hubstats of {url} cannot be read: {why}"),
    };
    let mut reasons = stats.reasons();
    let left_out = reasons.len().saturating_sub(MAX_REASONS.0);
    reasons.truncate(MAX_REASONS.0);
    let mut shown: Vec<String> = reasons.iter().map(|reason| reason.chars().take(MAX_REASONS.1).collect()).collect();
    if left_out > 0 {
        shown.push(format!("and {left_out} more"));
    }
    if shown.is_empty() {
        return format!("/hubstats of {url} reports no error");
    }
    format!("/hubstats of {url} says: {}", shown.join("; "))
}

async fn read(url: &HubUrl, operator: &Operator<'_>) -> Result<HubStats, String> {
    let scheme = if url.is_tls() { "https" } else { "http" };
    let page: Uri = format!("{scheme}://{}/hubstats", url.authority())
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?;
    let mut request = Request::get("/hubstats");
    let token = operator.token.filter(|token| !token.is_empty());
    let is_safe = keeps_secrets(url);
    if let Some(token) = token.filter(|_| is_safe) {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    // A verified certificate makes sure that the token reaches no other server.
    let tls = || Tls::new(operator.ca);
    match Box::pin(http::ask(&page, request, Bytes::new(), tls, &[], PATIENCE)).await {
        Ok((status, text)) if status.is_success() => {
            serde_json::from_str(&text).map_err(|_| "the answer is not that of a hub".to_owned())
        }
        Ok((status, _)) if status.as_u16() == 401 => Err(match token {
            None => format!("{status}: set ADMIN_TOKEN, or use --admin-token"),
            Some(_) if is_safe => format!("{status}: the token of --admin-token or ADMIN_TOKEN is wrong"),
            Some(_) => format!("{status}: the token was not sent, because it would not be encrypted: use a wss:// URL"),
        }),
        Ok((status, _)) if status.as_u16() == 404 => {
            Err(format!("{status}: if the hub has ADMIN_PORT, read the page there"))
        }
        Ok((status, _)) => Err(format!("it answers {status}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether nobody between the doctor and the hub can read what the doctor sends.
fn keeps_secrets(url: &HubUrl) -> bool {
    let host = url.host().trim_matches(['[', ']']);
    url.is_tls() || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_only_if_nobody_else_can_read_it() {
        let cases = [
            ("wss://hub.example", true),
            ("ws://localhost:8080", true),
            ("ws://127.0.0.1", true),
            ("ws://[::1]:8080", true),
            ("ws://hub.example", false),
            ("ws://10.0.0.1:8080", false),
        ];
        for (url, is_safe) in cases {
            assert_eq!(keeps_secrets(&url.parse().expect("a URL")), is_safe, "{url}");
        }
    }

    #[test]
    fn each_missing_connection_is_a_reason() {
        let reasons = |text: &str| serde_json::from_str::<HubStats>(text).unwrap().reasons();
        let replica = r#"{"links":[],"redis":{"address":"r:6379","connected":false,"lastError":"is a replica"}}"#;
        assert_eq!(reasons(replica), ["Redis r:6379: is a replica"]);
        let dials = r#"{"bootstrapHubs":[{"uri":"ws://a","lastError":"401"},{"uri":"ws://b","own":true},
            {"uri":"ws://c","connected":true}],"foundHubs":[{"uri":"ws://d"}],"redis":{"connected":true,"oneWay":["x"]}}"#;
        let expected = [
            "Redis carries messages in only one direction for 1 hub",
            "no link to ws://a: 401",
            "no link to ws://d: not dialed yet",
        ];
        assert_eq!(reasons(dials), expected);
        assert!(reasons(r#"{"links":[]}"#)[0].starts_with("it has no links and dials no hub"));
        assert_eq!(reasons(r#"{"links":[{}]}"#), [""; 0]);
    }
}
