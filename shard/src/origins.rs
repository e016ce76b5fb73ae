//! Lists of web origins. Pages of these origins may open WebSockets, or read the hub's pages.

use std::fmt;
use std::str::FromStr;

use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, ORIGIN, VARY};

/// A list of web origins: ALLOWED_ORIGINS, or CORS_ORIGIN.
#[derive(Clone, Debug)]
pub struct Origins(Vec<Rule>);

/// One entry of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Rule {
    /// `*`.
    Any,
    /// An origin as browsers write it, or `null`.
    Exact(HeaderValue),
    /// An entry such as `https://*.example.com`, which allows all names below the domain, but not the domain itself.
    Below {
        /// `https://`.
        scheme: String,
        /// The end of each allowed host, such as `.example.com`, with the port if the entry has a port.
        domain: String,
    },
}

impl Default for Origins {
    fn default() -> Self {
        Self(vec![Rule::Any])
    }
}

impl Origins {
    /// Whether every origin is allowed.
    pub fn is_open(&self) -> bool {
        self.0.contains(&Rule::Any)
    }

    /// Whether pages of this origin are allowed. Browsers send an origin in lower case and without a default port.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::Any => true,
            Rule::Exact(allowed) => allowed == origin,
            Rule::Below { scheme, domain } => origin.to_str().is_ok_and(|origin| {
                let name = origin.strip_prefix(scheme.as_str()).and_then(|host| host.strip_suffix(domain.as_str()));
                name.is_some_and(|name| !name.is_empty() && name.bytes().all(is_of_a_name))
            }),
        })
    }

    /// Returns the origin because of which a request must be refused, if there is one. Browsers send the `Origin`
    /// header with each request for a WebSocket.
    pub(crate) fn refused<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        // Browsers send one Origin header. If a request has several Origin headers, each origin must be allowed.
        headers.get_all(ORIGIN).iter().find(|origin| !self.allow(origin))
    }

    /// Adds the CORS headers to an answer for a page of this origin.
    ///
    /// If the list is one exact origin, every answer names this origin, and browsers compare it with the origin of the
    /// requesting page. Otherwise, the answer names the requesting origin if it is allowed, or `*` if every origin is
    /// allowed.
    pub fn put(&self, asking: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let allowed = match &self.0[..] {
            _ if self.is_open() => Some(HeaderValue::from_static("*")),
            [Rule::Exact(only)] => Some(only.clone()),
            _ => asking.filter(|origin| self.allow(origin)).cloned(),
        };
        if let Some(allowed) = allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        if !self.is_open() {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// The entries, separated by commas, as `--print-config` shows them.
impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, rule) in self.0.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "," })?;
            match rule {
                Rule::Any => f.write_str("*")?,
                Rule::Exact(origin) => f.write_str(&String::from_utf8_lossy(origin.as_bytes()))?,
                Rule::Below { scheme, domain } => write!(f, "{scheme}*{domain}")?,
            }
        }
        Ok(())
    }
}

/// Parses the entries of a list. If an entry is not an origin, the error is the number of this entry, counted from 0.
/// For an empty list, the error is 0.
impl FromStr for Origins {
    type Err = usize;

    fn from_str(list: &str) -> Result<Self, usize> {
        let entries = list.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty());
        let rules = entries.map(|(number, entry)| rule(entry).ok_or(number)).collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() { Err(0) } else { Ok(Self(rules)) }
    }
}

fn rule(entry: &str) -> Option<Rule> {
    match entry {
        "*" => return Some(Rule::Any),
        "null" => return Some(Rule::Exact(HeaderValue::from_static("null"))),
        _ => {}
    }
    let entry = entry.to_ascii_lowercase();
    let (scheme, host) = entry.split_once("://")?;
    let scheme_ok = !scheme.is_empty() && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    let (below, host) = match host.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, host),
    };
    let host = match scheme {
        "https" => host.strip_suffix(":443").unwrap_or(host),
        "http" => host.strip_suffix(":80").unwrap_or(host),
        _ => host,
    };
    let host_ok = !host.is_empty() && host.bytes().all(|c| c.is_ascii_graphic() && !b"/?#@,;\\*\"<>".contains(&c));
    if !scheme_ok || !host_ok || below && !host.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    Some(if below {
        Rule::Below { scheme: format!("{scheme}://"), domain: format!(".{host}") }
    } else {
        Rule::Exact(HeaderValue::from_str(&format!("{scheme}://{host}")).ok()?)
    })
}

/// Whether a byte can be part of a host name. So `https://*.example.com` does not allow `https://a.evil/.example.com`,
/// which has another host.
fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &str) -> Origins {
        list.parse().unwrap_or_else(|number| panic!("entry {number} of {list}"))
    }

    #[test]
    fn an_origin_is_allowed_by_an_entry_of_the_list() {
        for (list, allowed, refused) in [
            ("*", &["https://a.example", "null"][..], &[][..]),
            ("https://a.example, *", &["http://b"], &[]),
            ("null", &["null"], &["https://null", "*"]),
            (
                "https://a.example",
                &["https://a.example"],
                &[
                    "http://a.example",
                    "https://a.example:8443",
                    "https://b.a.example",
                    "https://a.example.evil",
                    "null",
                ],
            ),
            (
                "HTTPS://A.example:443,http://b:80,http://c:443",
                &["https://a.example", "http://b", "http://c:443"],
                &["http://c"],
            ),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b.example.com", "https://x-1.example.com"],
                &[
                    "https://example.com",
                    "https://.example.com.evil",
                    "https://.example.com",
                    "https://evilexample.com",
                    "http://a.example.com",
                    "https://a.example.com:8443",
                    "https://evil/.example.com",
                    "https://evil:1.example.com",
                    "https://evil@a.example.com",
                ],
            ),
            ("https://*.example.com:8443", &["https://a.example.com:8443"], &["https://a.example.com"]),
            (
                "capacitor://localhost,http://localhost:3000",
                &["capacitor://localhost", "http://localhost:3000"],
                &["http://localhost"],
            ),
            ("http://[::1]:3000", &["http://[::1]:3000"], &["http://[::1]"]),
        ] {
            let origins = origins(list);
            let allows = |origin: &&str| origins.allow(&HeaderValue::from_str(origin).unwrap());
            assert_eq!(allowed.iter().find(|origin| !allows(origin)), None, "{list}");
            assert_eq!(refused.iter().find(|origin| allows(origin)), None, "{list}");
        }
    }

    #[test]
    fn an_invalid_entry_is_named() {
        for (list, entry) in [
            ("a.example", 0),
            ("*,https://a.example/", 1),
            ("https://a, https://*", 1),
            ("https://*example.com", 0),
            ("https://a.*.example", 0),
            ("https://*.*.example", 0),
            ("https://*..example", 0),
            ("https://u@a", 0),
            ("://a", 0),
            ("https://a b", 0),
            ("https://größer", 0),
            (",", 0),
        ] {
            assert_eq!(list.parse::<Origins>().err(), Some(entry), "{list}");
        }
    }

    /// The answers vary by origin, because a cache must not give a page an answer for a page of another origin.
    #[test]
    fn cors_headers_name_the_origin_of_the_request_if_it_is_allowed() {
        for (list, asking, allowed, vary) in [
            ("*", None, Some("*"), None),
            ("*", Some("https://a"), Some("*"), None),
            ("https://a", Some("https://b"), Some("https://a"), Some("Origin")),
            ("https://a,https://b", Some("https://b"), Some("https://b"), Some("Origin")),
            ("https://a,https://b", Some("https://c"), None, Some("Origin")),
            ("https://a,https://b", None, None, Some("Origin")),
            ("https://*.a", Some("https://x.a"), Some("https://x.a"), Some("Origin")),
        ] {
            let mut headers = HeaderMap::new();
            origins(list).put(asking.map(HeaderValue::from_static).as_ref(), &mut headers);
            let header = |name| headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((header(ACCESS_CONTROL_ALLOW_ORIGIN), header(VARY)), (allowed, vary), "{list} {asking:?}");
        }
    }
}
