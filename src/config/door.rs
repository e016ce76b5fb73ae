//! The settings of trusted proxies, and of the limits of connections per address.

use std::net::IpAddr;

use ipnet::IpNet;
use proto::limits::{DEFAULT_ADDRESS_CONNECTIONS, LEAST_ADDRESS_CONNECTIONS, MAX_PROXY_RANGES};
use shard::AddressLimits;

use super::parse::{entries, shown_entry};
use super::reader::{SettingError, SettingsReader};
use super::settings::{self, Setting};
use super::tls::{PortNames, ports};

/// The settings of a hub's admission.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// TRUSTED_PROXIES.
    pub trusted_proxies: Vec<IpNet>,
    /// PROXY_PROTOCOL.
    pub proxy_protocol: PortNames,
    /// MAX_CONNECTIONS_PER_ADDRESS, if it is set.
    max_connections_per_address: Option<u32>,
    max_unfinished_per_address: u32,
    connect_rate_per_address: u32,
    /// CONNECT_RATE.
    pub connect_rate: u32,
}

impl DoorSettings {
    /// Reads the settings. Returns `None` if a setting is invalid; `reader` then has the errors.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Self> {
        let trusted_proxies = reader.text(&settings::TRUSTED_PROXIES, || Ok(Vec::new()), ranges);
        let proxy_protocol = reader.text(&settings::PROXY_PROTOCOL, || Ok(PortNames::default()), ports);
        // If MAX_CONNECTIONS_PER_ADDRESS is unset, `limits` computes the limit from MAX_CONNECTIONS.
        let connections = reader.number(&settings::MAX_CONNECTIONS_PER_ADDRESS, || DEFAULT_ADDRESS_CONNECTIONS.into());
        let is_set = reader.is_set(&settings::MAX_CONNECTIONS_PER_ADDRESS);
        let mut number = |setting: &'static Setting| reader.number(setting, || setting.default_number());
        let unfinished = number(&settings::MAX_UNFINISHED_PER_ADDRESS);
        let connects = number(&settings::CONNECT_RATE_PER_ADDRESS);
        let connect_rate = number(&settings::CONNECT_RATE);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Self {
            trusted_proxies: trusted_proxies?,
            proxy_protocol: proxy_protocol?,
            max_connections_per_address: connections.map(small).map(|n| is_set.then_some(n))?,
            max_unfinished_per_address: small(unfinished?),
            connect_rate_per_address: small(connects?),
            connect_rate: small(connect_rate?),
        })
    }

    /// The limits per address of a hub with this number of seats.
    pub fn limits(&self, seats: usize) -> AddressLimits {
        let most = u32::try_from(seats / 3 * 2).unwrap_or(u32::MAX);
        AddressLimits {
            connections: self
                .max_connections_per_address
                .unwrap_or_else(|| most.clamp(LEAST_ADDRESS_CONNECTIONS, DEFAULT_ADDRESS_CONNECTIONS)),
            unfinished: self.max_unfinished_per_address,
            connects: self.connect_rate_per_address,
        }
    }

    /// Returns an error if PROXY_PROTOCOL is set without TRUSTED_PROXIES.
    pub(super) fn check(&self) -> Option<SettingError> {
        let is_useless = self.trusted_proxies.is_empty() && self.proxy_protocol != PortNames::default();
        is_useless.then(|| {
            let problem = "no proxy is trusted: set TRUSTED_PROXIES to the addresses of your proxies";
            SettingError::new(&settings::PROXY_PROTOCOL, problem)
        })
    }

    /// Warnings for the operator at the start.
    pub(super) fn warnings(&self) -> Option<String> {
        let all = self.trusted_proxies.iter().find(|range| range.prefix_len() == 0)?;
        Some(format!(
            "{}: {all} is every address, so every client can pretend to be another one: name only your proxies",
            settings::TRUSTED_PROXIES.name
        ))
    }
}

/// Parses address ranges, which are separated by commas.
pub(super) fn ranges(text: &str) -> Result<Vec<IpNet>, String> {
    let ranges = entries(text).map(|(number, item)| {
        item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            let item = shown_entry(text, number);
            format!(
                "{item} is not an address range: use entries such as 10.0.0.0/8, 192.0.2.1 or fd00::/8, separated \
                by commas"
            )
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
    fn proxy_protocol_requires_trusted_proxies() {
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
    fn by_default_one_address_gets_two_thirds_of_the_seats_but_at_least_64_and_at_most_512() {
        let limit = |pairs: &[(&str, &str)], seats| Config::from_pairs(pairs).unwrap().door.limits(seats).connections;
        assert_eq!([10_000, 1000, 300, 10].map(|seats| limit(&[], seats)), [512, 512, 200, 64]);
        assert_eq!(limit(&[("MAX_CONNECTIONS_PER_ADDRESS", "2000")], 1000), 2000);
        assert_eq!(limit(&[("MAX_CONNECTIONS_PER_ADDRESS", "0")], 1000), 0, "0 means no limit");
    }

    #[test]
    fn trusting_every_address_causes_a_warning() {
        let warnings = Config::from_pairs(&[("TRUSTED_PROXIES", "10.0.0.0/8,::/0")]).unwrap().warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("::/0 is every address"), "{warnings:?}");
        let many = vec!["10.0.0.1"; super::MAX_PROXY_RANGES + 1].join(",");
        assert!(Config::from_pairs(&[("TRUSTED_PROXIES", &many)]).unwrap_err()[0].to_string().contains("65 ranges"));
    }
}
