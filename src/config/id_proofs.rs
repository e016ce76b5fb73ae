//! The settings of proofs of ids: PEER_ID_PROOF and PEER_ID_HOSTS.

use hyper::Uri;
use proto::limits::MAX_ID_HOSTS;
use shard::IdProofs;

use super::parse::{entries, shown_entry};
use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::settings;

/// Whether clients prove that their id is their own (PEER_ID_PROOF), and the hosts that a proof may name
/// (PEER_ID_HOSTS).
#[derive(Clone, Debug)]
pub struct IdProofSettings {
    mode: Mode,
    hosts: Vec<String>,
}

/// PEER_ID_PROOF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// No client is asked for a proof.
    Off,
    /// Clients that send a key must prove their id. Other clients need no proof.
    Offered,
    /// Clients without a proof are refused, unless their token names the id.
    Required,
}

impl IdProofSettings {
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Self> {
        let mode = reader.text(&settings::PEER_ID_PROOF, || Ok(Mode::Off), mode);
        let hosts = reader.text(&settings::PEER_ID_HOSTS, || Ok(Vec::new()), hosts);
        Some(Self { mode: mode?, hosts: hosts? })
    }

    /// The rules by which the shards of a hub with this PUBLIC_URL check proofs of ids. `None` if clients are not asked
    /// for a proof.
    pub fn proofs(&self, public_url: Option<&str>) -> Option<IdProofs> {
        let hosts =
            if self.hosts.is_empty() { public_url.and_then(host).into_iter().collect() } else { self.hosts.clone() };
        (self.mode != Mode::Off).then_some(IdProofs { is_required: self.mode == Mode::Required, hosts })
    }

    /// Checks that there is a host that a proof may name, if clients are asked for a proof.
    pub(super) fn check(&self, public_url: Option<&str>) -> Option<SettingError> {
        let is_nameless = self.proofs(public_url).is_some_and(|proofs| proofs.hosts.is_empty());
        is_nameless.then(|| {
            let problem = "a proof names the host of the hub's URL, which is unknown: set PEER_ID_HOSTS or PUBLIC_URL";
            SettingError::new(&settings::PEER_ID_PROOF, problem)
        })
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(Mode::Off),
        "offered" => Ok(Mode::Offered),
        "required" => Ok(Mode::Required),
        _ => Err(format!("{} is not a way to prove ids: use off, offered or required", quoted(text))),
    }
}

/// The host of a URL as browsers write it (`URL.host`). The host is in lower case, and includes the port if that is not
/// the default port.
fn host(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let name = url.host()?.to_ascii_lowercase();
    let usual = if matches!(url.scheme_str(), Some("wss" | "https")) { 443 } else { 80 };
    Some(url.port_u16().filter(|port| *port != usual).map_or_else(|| name.clone(), |port| format!("{name}:{port}")))
}

/// Parses hosts, which are separated by commas.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let is_valid =
        |host: &str| !host.contains(['/', '@', '?', '#']) && host.parse::<hyper::http::uri::Authority>().is_ok();
    let hosts = entries(text).map(|(number, host)| {
        if is_valid(host) {
            return Ok(host.to_ascii_lowercase());
        }
        Err(format!(
            "{} is not a host: use entries such as hub.example.com or localhost:8080",
            shown_entry(text, number)
        ))
    });
    let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    if hosts.len() > MAX_ID_HOSTS {
        return Err(format!("{} hosts are too many: use {MAX_ID_HOSTS} at most", hosts.len()));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn a_proof_names_a_host_of_peer_id_hosts_or_else_the_host_of_the_public_url() {
        let accepted = |pairs: &[(&str, &str)]| {
            let config = Config::from_pairs(pairs).unwrap();
            config.id_proofs.proofs(config.mesh.public_url.as_deref()).map(|proofs| (proofs.is_required, proofs.hosts))
        };
        let hosts = |hosts: &[&str]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(accepted(&[]), None);
        for (url, host) in [
            ("wss://Hub.example", "hub.example"),
            ("wss://hub.example:443", "hub.example"),
            ("wss://hub.example:8443", "hub.example:8443"),
            ("ws://localhost:8080", "localhost:8080"),
            ("ws://hub.example:80", "hub.example"),
        ] {
            let proofs = accepted(&[("PEER_ID_PROOF", "offered"), ("PUBLIC_URL", url)]);
            assert_eq!(proofs, Some((false, hosts(&[host]))), "{url}");
        }
        let named = [("PEER_ID_PROOF", "required"), ("PEER_ID_HOSTS", "a.example, B:1"), ("PUBLIC_URL", "ws://c")];
        assert_eq!(accepted(&named), Some((true, hosts(&["a.example", "b:1"]))));
    }

    #[test]
    fn at_most_sixteen_hosts_are_accepted() {
        let list = |n: usize| vec!["h"; n].join(",");
        assert!(Config::from_pairs(&[("PEER_ID_HOSTS", &list(MAX_ID_HOSTS))]).is_ok());
        assert!(Config::from_pairs(&[("PEER_ID_HOSTS", &list(MAX_ID_HOSTS + 1))]).is_err());
    }
}
