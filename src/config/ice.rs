//! The settings of the STUN and TURN servers that the hub names to its clients.

use std::time::Duration;

use proto::limits::{MAX_ICE_SERVERS_BYTES, MAX_TURN_URLS};
use proto::{IceServers, Turn};
use serde_json::Value;

use super::parse::{entries, shown_entry, token};
use super::reader::SettingsReader;
use super::{Token, settings};

/// STUN and TURN servers for clients.
#[derive(Clone, Debug)]
pub struct IceSettings {
    /// ICE_SERVERS: the elements of its array. The array may contain passwords, so it is never printed.
    fixed: Hidden,
    /// TURN_URLS.
    urls: Vec<String>,
    /// TURN_SECRET and TURN_SECRET_ALSO.
    secrets: [Option<Token>; 2],
    /// TURN_TTL.
    ttl: Duration,
}

#[derive(Clone, Default)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl IceSettings {
    /// Reads the settings. Returns `None` if a setting is invalid; `reader` then has the errors.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Self> {
        let fixed = reader.text(&settings::ICE_SERVERS, || Ok(Hidden::default()), servers);
        let urls = reader.text(&settings::TURN_URLS, || Ok(Vec::new()), turn_urls);
        let secret = reader.text(&settings::TURN_SECRET, || Ok(None), |text| token(text).map(Some));
        let also = reader.text(&settings::TURN_SECRET_ALSO, || Ok(None), |text| token(text).map(Some));
        let ttl = reader.number(&settings::TURN_TTL, || settings::TURN_TTL.default_number());
        Some(Self { fixed: fixed?, urls: urls?, secrets: [secret?, also?], ttl: Duration::from_secs(ttl?) })
    }

    /// The servers for clients, if there are any.
    pub fn servers(&self) -> Option<IceServers> {
        let secrets: Vec<Box<str>> = self.secrets.iter().flatten().map(|secret| secret.expose().into()).collect();
        let urls = Value::from(self.urls.clone()).to_string().into();
        let turn = (!self.urls.is_empty() && !secrets.is_empty()).then_some(Turn { urls, secrets, ttl: self.ttl });
        (turn.is_some() || !self.fixed.0.is_empty()).then(|| IceServers::new(&self.fixed.0, turn))
    }

    /// Warnings for the operator at the start.
    pub(super) fn warnings(&self, is_said: impl Fn(&settings::Setting) -> bool) -> Vec<String> {
        let [secret, also] = &self.secrets;
        let mut warnings = Vec::new();
        if self.urls.is_empty() {
            let idle = [&settings::TURN_SECRET, &settings::TURN_SECRET_ALSO, &settings::TURN_TTL];
            for setting in idle.into_iter().filter(|setting| is_said(setting)) {
                warnings.push(format!("{} has no effect: TURN_URLS is unset", setting.name));
            }
        } else if secret.is_none() && also.is_none() {
            warnings.push("TURN_URLS has no effect: set TURN_SECRET to the static-auth-secret of coturn".to_owned());
        }
        warnings
    }
}

/// ICE_SERVERS: an array of `RTCIceServer` in JSON. Errors do not show the value, which may contain passwords.
fn servers(text: &str) -> Result<Hidden, String> {
    const ADVICE: &str = r#"use JSON such as [{"urls":"stun:stun.example.com"}]"#;
    if text.len() > MAX_ICE_SERVERS_BYTES {
        return Err(format!("the list has {} bytes: use at most {MAX_ICE_SERVERS_BYTES}", text.len()));
    }
    let list: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON ({error}): {ADVICE}"))?;
    let Value::Array(list) = list else { return Err(format!("it is not a list of servers: {ADVICE}")) };
    for (number, server) in (1..).zip(&list) {
        let urls: Vec<&Value> = match server.get("urls") {
            Some(Value::Array(urls)) => urls.iter().collect(),
            Some(url) => vec![url],
            None => return Err(format!("server {number} has no `urls`: {ADVICE}")),
        };
        let is_fit = |url: &&Value| url.as_str().is_some_and(|url| is_url(url, &["stun", "stuns", "turn", "turns"]));
        if urls.is_empty() || !urls.iter().all(is_fit) {
            return Err(format!(
                "a URL of server {number} is not stun:, stuns:, turn: or turns: with a host: {ADVICE}"
            ));
        }
        for field in ["username", "credential"] {
            if server.get(field).is_some_and(|value| !value.is_string()) {
                return Err(format!("`{field}` of server {number} is not a string: {ADVICE}"));
            }
        }
    }
    let list: Vec<String> = list.iter().map(Value::to_string).collect();
    Ok(Hidden(list.join(",")))
}

/// TURN_URLS: URLs of one TURN service, separated by commas.
fn turn_urls(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<String> = entries(text).map(|(_, url)| url.to_owned()).collect();
    if urls.len() > MAX_TURN_URLS {
        return Err(format!("{} URLs are too many: use at most {MAX_TURN_URLS}", urls.len()));
    }
    match entries(text).find(|(_, url)| !is_url(url, &["turn", "turns"])) {
        None => Ok(urls),
        Some((number, _)) => Err(format!(
            "{} is not a URL of a TURN server: use turn:host[:port] or turns:host[:port], with ?transport=udp or tcp",
            shown_entry(text, number)
        )),
    }
}

/// Whether the text is a URL of RFC 7064 or RFC 7065 with one of these schemes.
fn is_url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let (host, query) = rest.split_once('?').map_or((rest, None), |(host, query)| (host, Some(query)));
    let is_host = host.parse::<hyper::http::uri::Authority>().is_ok() && !host.contains('@');
    let is_query = query.is_none_or(|query| matches!(query, "transport=udp" | "transport=tcp"));
    schemes.contains(&scheme) && !rest.starts_with("//") && is_host && is_query
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn config(pairs: &[(&str, &str)]) -> Config {
        Config::from_pairs(pairs).unwrap()
    }

    #[test]
    fn a_hub_sends_servers_only_if_the_settings_name_some() {
        assert!(config(&[]).ice.servers().is_none());
        assert!(config(&[("ICE_SERVERS", "[]")]).ice.servers().is_none());
        assert!(config(&[("TURN_URLS", "turn:t")]).ice.servers().is_none());
        assert!(config(&[("ICE_SERVERS", r#"[{"urls":"stun:s"}]"#)]).ice.servers().unwrap().renewal().is_none());
        let turn = config(&[("TURN_URLS", "turn:t"), ("TURN_SECRET", "s"), ("TURN_TTL", "400")]).ice.servers().unwrap();
        assert_eq!(turn.renewal().unwrap().as_secs(), 300);
    }

    #[test]
    fn a_turn_secret_without_urls_and_turn_urls_without_a_secret_cause_a_warning() {
        let warned = |pairs: &[(&str, &str)]| config(pairs).warnings().join("\n");
        assert!(warned(&[("TURN_URLS", "turn:t")]).contains("TURN_SECRET"));
        assert!(warned(&[("TURN_SECRET", "s")]).contains("TURN_URLS is unset"));
        assert!(warned(&[("TURN_TTL", "400")]).contains("TURN_TTL has no effect"));
        assert!(!warned(&[("TURN_URLS", "turn:t"), ("TURN_SECRET", "s")]).contains("TURN"));
    }

    #[test]
    fn an_error_of_ice_servers_does_not_show_a_password() {
        for servers in [r#"[{"url":"turn:t","credential":"hunter2"}]"#, r#"{"credential":"hunter2"}"#, "hunter2"] {
            let refused = Config::from_pairs(&[("ICE_SERVERS", servers)]).unwrap_err();
            assert!(!refused[0].to_string().contains("hunter2"), "{}", refused[0]);
        }
        let config = config(&[("ICE_SERVERS", r#"[{"urls":"turn:t","username":"u","credential":"hunter2"}]"#)]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
