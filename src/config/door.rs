//! The settings that say who may knock, and how often.

use std::net::IpAddr;

use ipnet::IpNet;
use proto::limits::MAX_PROXY_RANGES;

use super::parse::{entries, shown_entry};
use super::reader::{SettingError, SettingsReader};
use super::settings;
use super::tls::{PortNames, ports};

/// The door of a hub.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// TRUSTED_PROXIES.
    pub trusted_proxies: Vec<IpNet>,
    /// PROXY_PROTOCOL.
    pub proxy_protocol: PortNames,
}

impl DoorSettings {
    /// `None`, with the refusals in `reader`, if something was refused.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Self> {
        let trusted_proxies = reader.text(&settings::TRUSTED_PROXIES, || Ok(Vec::new()), ranges);
        let proxy_protocol = reader.text(&settings::PROXY_PROTOCOL, || Ok(PortNames::default()), ports);
        Some(Self { trusted_proxies: trusted_proxies?, proxy_protocol: proxy_protocol? })
    }

    /// Contradictions among these settings.
    pub(super) fn check(&self) -> Option<SettingError> {
        let is_useless = self.trusted_proxies.is_empty() && self.proxy_protocol != PortNames::default();
        is_useless.then(|| {
            let problem = "no proxy is trusted to speak it: name the addresses of your proxies in TRUSTED_PROXIES";
            SettingError::new(&settings::PROXY_PROTOCOL, problem)
        })
    }

    /// What an operator should hear at start.
    pub(super) fn warnings(&self) -> Option<String> {
        let all = self.trusted_proxies.iter().find(|range| range.prefix_len() == 0)?;
        Some(format!(
            "{}: {all} is every address, so every client can pretend to be another one: name only your proxies",
            settings::TRUSTED_PROXIES.name
        ))
    }
}

/// Address ranges, separated by commas.
fn ranges(text: &str) -> Result<Vec<IpNet>, String> {
    let ranges = entries(text).map(|(number, item)| {
        item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            let item = shown_entry(text, number);
            format!("{item} is not an address range: use entries such as 10.0.0.0/8, 192.0.2.1 or fd00::/8, separated by commas")
        })
    });
    let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
    if ranges.len() > MAX_PROXY_RANGES {
        return Err(format!("{} ranges are too many: use {MAX_PROXY_RANGES} at most", ranges.len()));
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn the_protocol_of_proxies_needs_proxies() {
        let refused = Config::from_pairs(&[("PROXY_PROTOCOL", "PORT")]).unwrap_err();
        assert!(
            refused[0].to_string().starts_with("PROXY_PROTOCOL (--proxy-protocol): no proxy is trusted"),
            "{refused:?}"
        );
        let config =
            Config::from_pairs(&[("PROXY_PROTOCOL", "PORT,MESH_PORT"), ("TRUSTED_PROXIES", "10.0.0.1,fd00::/8")])
                .unwrap();
        let ports = config.door.proxy_protocol;
        assert!(ports.peers && ports.links && !ports.admin && config.warnings().is_empty(), "{:?}", config.warnings());
    }

    #[test]
    fn whoever_trusts_everybody_is_warned() {
        let warnings = Config::from_pairs(&[("TRUSTED_PROXIES", "10.0.0.0/8,::/0")]).unwrap().warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("::/0 is every address"), "{warnings:?}");
        let many = vec!["10.0.0.1"; super::MAX_PROXY_RANGES + 1].join(",");
        assert!(Config::from_pairs(&[("TRUSTED_PROXIES", &many)]).unwrap_err()[0].to_string().contains("65 ranges"));
    }
}
