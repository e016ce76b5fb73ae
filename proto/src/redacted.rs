//! URLs without their secrets.

use std::fmt;

/// Schemes that may be shown. Any other word before `://` may be part of a secret.
const SCHEMES: [&str; 12] = [
    "http",
    "https",
    "redis",
    "redis+cluster",
    "redis-sentinel",
    "rediss",
    "rediss+cluster",
    "tcp",
    "valkey",
    "valkeys",
    "ws",
    "wss",
];

/// A URL, or text that should be a URL. The `Display` of this type hides secrets. The text has only the scheme and the
/// part after the last `@`, without query and fragment.
///
/// Every URL that may contain a secret is shown through this type in errors, in the log and on pages.
///
/// The last `@` of the whole text ends the hidden part, even if the user information ends earlier by the grammar of
/// URLs. Otherwise a part of a password with an unescaped `/`, `?` or `#` would be shown.
#[derive(Clone, Copy, Debug)]
pub struct Redacted<'a>(pub &'a str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) => {
                (Some(scheme), rest)
            }
            Some(_) | None => (None, self.0),
        };
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        if let Some(scheme) = scheme {
            write!(f, "{scheme}://")?;
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_before_the_last_at_sign_is_hidden() {
        for (url, shown) in [
            ("ws://h", "ws://h"),
            ("wss://h:1/a/", "wss://h:1/a"),
            ("ws://u:p@h/a?token=secret", "ws://h/a"),
            ("redis://:hun/ter2@h:6379", "redis://h:6379"),
            ("redis://:hun?ter2@h:6379/1", "redis://h:6379/1"),
            ("redis://:hun#ter2@h:6379", "redis://h:6379"),
            ("redis://:hun@ter2@h:6379", "redis://h:6379"),
            ("redis+cluster://u:p,q@a:1,b:2", "redis+cluster://a:1,b:2"),
            ("\"redis://:hunter2@h:6379\"", "h:6379\""),
            ("hunter2@h", "h"),
            ("hun://ter2@h", "h"),
            ("REDIS://:p@h", "REDIS://h"),
            ("ws://h/a?b=c@d", "ws://d"),
            ("@", ""),
            ("", ""),
            ("://@?#", ""),
            ("8080", "8080"),
        ] {
            assert_eq!(Redacted(url).to_string(), shown, "{url}");
        }
    }
}
