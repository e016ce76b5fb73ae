//! The settings of links between hubs, and of the Redis bridge.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::Uri;
use ipnet::IpNet;
use mesh::BridgeConfig;
use proto::limits::{LEAST_RESUME_TOKEN_BYTES, MAX_HUB_URL_BYTES};
use proto::{Discovery, HubId, PeerId, Redacted};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::mesh_certificates::MeshCertificates;
use super::parse::{entries, hub, hubs, shown_entry};
use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::{Config, MeshBudgets, Token, settings};

/// The settings by which the hubs of a mesh find and trust each other.
#[derive(Clone, Debug)]
pub struct MeshSettings {
    /// URL at which other hubs can dial this hub (MESH_ADVERTISE).
    pub advertise: Option<Arc<str>>,
    /// Additional CA certificates (PEM), from MESH_CA.
    pub ca: Option<Arc<[u8]>>,
    /// MESH_CERT, MESH_KEY and MESH_CLIENT_CA.
    pub certificates: MeshCertificates,
    /// MESH_DNS.
    pub dns: Option<MeshDns>,
    /// Whether hubs may send MESH_TOKEN itself over a link, as hubs of version 2.0.0 do (MESH_AUTH=both).
    pub takes_bearer: bool,
    /// Whether this hub uses its certificate, and not its token, when it dials `wss://` URLs (MESH_AUTH=certificate).
    pub prefers_certificate: bool,
    /// MESH_INSECURE.
    pub insecure: bool,
    /// MESH_LEGACY.
    pub legacy: Legacy,
    /// MESH_PORT, if it differs from PORT. 0 means any free port.
    pub port: Option<u16>,
    /// MESH_ADMIN_URL.
    pub admin_url: Option<Arc<str>>,
    /// Budgets of memory for data of other hubs. MESH_PRESENCE_BYTES sets one of these budgets.
    pub budgets: MeshBudgets,
    /// PUBLIC_URL.
    pub public_url: Option<Arc<str>>,
    /// REDIS_URL, with its secrets.
    pub redis_url: Option<RedisUrl>,
    /// MESH_TOKEN.
    pub token: Option<Token>,
    /// MESH_TOKEN_ALSO.
    pub also: Option<Token>,
}

/// A DNS name that resolves to the addresses of hubs (MESH_DNS).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeshDns {
    /// The name.
    pub host: String,
    /// The hubs' port. `None` means the port on which this hub accepts links.
    pub port: Option<u16>,
    /// Whether to dial with TLS.
    pub tls: bool,
}

/// Go hubs: MESH_LEGACY.
#[derive(Clone, Default, Debug)]
pub struct Legacy {
    /// URLs to dial.
    pub urls: Vec<Uri>,
    /// Address ranges from which Go hubs dial.
    pub addresses: Vec<IpNet>,
}

/// The value of REDIS_URL. REDIS_URL may contain a password, so it is never printed.
#[derive(Clone)]
pub struct RedisUrl {
    url: String,
    /// The database number in the URL, if it is not 0. The number has no effect, because pub/sub does not use
    /// databases.
    ignored_database: Option<i64>,
}

impl RedisUrl {
    /// The URL itself, for the connection.
    pub fn expose(&self) -> &str {
        &self.url
    }

    /// The URL without its secrets.
    pub(super) fn shown(&self) -> String {
        Redacted(&self.url).to_string()
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl MeshSettings {
    /// Reads the settings. Returns `None` if a setting is invalid. `port` is PORT, and `budgets` has the default of
    /// MESH_PRESENCE_BYTES.
    pub(super) fn read(reader: &mut SettingsReader<'_>, port: Option<u64>, budgets: MeshBudgets) -> Option<Self> {
        let advertise = reader.text(&settings::MESH_ADVERTISE, || Ok(None), |text| own_url(text).map(Some));
        let admin_url = reader.text(&settings::MESH_ADMIN_URL, || Ok(None), |text| admin_url(text).map(Some));
        let public_url = reader.text(&settings::PUBLIC_URL, || Ok(None), |text| own_url(text).map(Some));
        let token = reader.text(&settings::MESH_TOKEN, || Ok(None), |text| super::parse::token(text).map(Some));
        let also = reader.text(&settings::MESH_TOKEN_ALSO, || Ok(None), |text| super::parse::token(text).map(Some));
        let auth = reader.text(&settings::MESH_AUTH, || Ok(MeshAuth::Both), mesh_auth);
        let mesh_certificates = MeshCertificates::read(reader);
        let insecure = reader.switch(&settings::MESH_INSECURE);
        let dns = reader.text(&settings::MESH_DNS, || Ok(None), |text| mesh_dns(text).map(Some));
        let ca = reader.text(&settings::MESH_CA, || Ok(None), |text| certificates(text).map(Some));
        let legacy = reader.text(&settings::MESH_LEGACY, || Ok(Legacy::default()), legacy);
        let mesh_port = reader.number(&settings::MESH_PORT, || port.unwrap_or_default());
        let presence_bytes = reader.number(&settings::MESH_PRESENCE_BYTES, || budgets.presence as u64);
        let redis_url = reader.text(&settings::REDIS_URL, || Ok(None), |text| redis_url(text).map(Some));
        if let Some(Some(url)) = &redis_url {
            reader.show_as(&settings::REDIS_URL, url.shown());
        }
        if let Some(legacy) = &legacy {
            let urls = legacy.urls.iter().map(|url| Redacted(&url.to_string()).to_string());
            let shown: Vec<_> = urls.chain(legacy.addresses.iter().map(IpNet::to_string)).collect();
            reader.show_as(&settings::MESH_LEGACY, shown.join(","));
        }
        Some(Self {
            admin_url: admin_url?,
            advertise: advertise?,
            ca: ca?,
            dns: dns?,
            takes_bearer: auth? == MeshAuth::Both,
            prefers_certificate: auth? == MeshAuth::Certificate,
            certificates: mesh_certificates?,
            insecure: insecure?,
            legacy: legacy?,
            port: mesh_port.filter(|_| mesh_port != port).map(|port| u16::try_from(port).unwrap_or_default()),
            budgets: MeshBudgets { presence: usize::try_from(presence_bytes?).unwrap_or(usize::MAX), ..budgets },
            public_url: public_url?,
            redis_url: redis_url?,
            token: token?,
            also: also?,
        })
    }

    /// Whether a setting other than BOOTSTRAP_HUBS says where other hubs are found.
    pub(super) fn finds_hubs(&self) -> bool {
        self.dns.is_some() || self.redis_url.is_some()
    }
}

/// MESH_AUTH.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MeshAuth {
    Both,
    Certificate,
    Challenge,
}

/// Parses MESH_AUTH.
fn mesh_auth(text: &str) -> Result<MeshAuth, String> {
    match text {
        "both" => Ok(MeshAuth::Both),
        "certificate" => Ok(MeshAuth::Certificate),
        "challenge" => Ok(MeshAuth::Challenge),
        _ => Err("set challenge, certificate, or both if hubs of version 2.0.0 are in the mesh".to_owned()),
    }
}

impl Config {
    /// Whether this hub may dial links other than legacy links.
    pub fn dials_are_trusted(&self) -> bool {
        self.mesh.token.is_some() || self.mesh.insecure || self.mesh.certificates.own.is_some()
    }

    /// Whether links (other than legacy links) are allowed, dialed or accepted.
    fn links_are_trusted(&self) -> bool {
        self.dials_are_trusted() || self.mesh.certificates.authorities.is_some()
    }

    /// Finds contradictions among the settings of certificates between hubs.
    fn check_mesh_certificates(&self) -> Vec<SettingError> {
        let mut refusals = Vec::new();
        let MeshCertificates { own, authorities } = &self.mesh.certificates;
        let has_tls = self.tls.as_ref().is_some_and(|tls| tls.ports.links);
        if authorities.is_some() && (self.mesh.port.is_none() || !has_tls) {
            let problem = "hubs present certificates only at a MESH_PORT with TLS (at PORT, browsers would ask their \
                           users for a certificate): set MESH_PORT to another port than PORT, add MESH_PORT to \
                           TLS_PORTS, and set TLS_CERT and TLS_KEY";
            refusals.push(SettingError::new(&settings::MESH_CLIENT_CA, problem));
        }
        if self.mesh.prefers_certificate && own.is_none() {
            let problem = "certificate needs a certificate: set MESH_CERT and MESH_KEY";
            refusals.push(SettingError::new(&settings::MESH_AUTH, problem));
        }
        refusals
    }

    /// Warnings for a hub of a mesh with certificates and without MESH_TOKEN.
    fn certificate_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let MeshCertificates { own, authorities } = &self.mesh.certificates;
        if self.mesh.insecure {
            return warnings;
        }
        match (own, authorities) {
            (None, _) => warnings.push(
                "MESH_CERT and MESH_TOKEN are unset, so this hub accepts links and dials none: set MESH_CERT and \
                 MESH_KEY"
                    .to_owned(),
            ),
            (Some(_), None) => warnings.push(
                "MESH_CLIENT_CA and MESH_TOKEN are unset, so this hub dials links and accepts none: set MESH_CLIENT_CA"
                    .to_owned(),
            ),
            (Some(_), Some(_)) => {}
        }
        let is_plain = |url: &&Uri| url.scheme_str() == Some("ws") && !self.is_legacy(url);
        for url in self.bootstrap_hubs.iter().filter(is_plain).filter(|_| own.is_some()) {
            let url = url.to_string();
            let url = Redacted(&url);
            warnings.push(format!(
                "BOOTSTRAP_HUBS names {url}, which is not dialed, because ws:// proves no certificates: use wss://, or \
                 set MESH_TOKEN"
            ));
        }
        if own.is_some() && self.mesh.dns.as_ref().is_some_and(|dns| !dns.tls) {
            warnings.push(
                "MESH_DNS names hubs without TLS, which are not dialed, because ws:// proves no certificates: use \
                 wss://host:port, or set MESH_TOKEN"
                    .to_owned(),
            );
        }
        if self.mesh.advertise.as_ref().is_some_and(|url| url.starts_with("ws://")) {
            warnings.push(
                "MESH_ADVERTISE begins with ws://, so hubs without MESH_TOKEN do not dial it: use wss://".to_owned(),
            );
        }
        warnings
    }

    /// Whether the hub needs a mesh thread. A hub with IS_HUB alone needs none, because it cannot link to other hubs.
    pub fn has_mesh(&self) -> bool {
        let legacy = &self.mesh.legacy;
        let dials = self.bootstrap_hubs.iter().any(|url| self.is_legacy(url));
        let can_link = self.links_are_trusted() || !legacy.addresses.is_empty() || dials;
        self.is_hub && (can_link || self.mesh.redis_url.is_some())
    }

    /// Whether the URL belongs to a Go hub, because MESH_LEGACY contains it.
    pub fn is_legacy(&self, url: &Uri) -> bool {
        self.mesh.legacy.urls.iter().any(|legacy| HubAddress::of(legacy) == HubAddress::of(url))
    }

    /// Finds URLs of Go hubs that MESH_LEGACY spells differently. Without this check, the hub would send MESH_TOKEN to
    /// Go hubs.
    fn near_misses(&self) -> Vec<SettingError> {
        let legacy = &self.mesh.legacy.urls;
        let near = |place: &HubAddress| legacy.iter().find(|url| HubAddress::of(url).is_beside(place));
        let shown = |url: &Uri| Redacted(&url.to_string()).to_string();
        let mut refusals = Vec::new();
        for url in self.bootstrap_hubs.iter().filter(|url| !self.is_legacy(url)) {
            if let Some(legacy) = near(&HubAddress::of(url)) {
                let problem = format!(
                    "{} has the same host and port as {} in MESH_LEGACY, so this hub would send MESH_TOKEN to a Go \
                     hub: use the same URL in both settings",
                    shown(url),
                    shown(legacy),
                );
                refusals.push(SettingError::new(&settings::BOOTSTRAP_HUBS, problem));
            }
        }
        let dns = self.mesh.dns.as_ref().and_then(|dns| Some((dns, dns.port?)));
        let dns = dns.map(|(dns, port)| HubAddress {
            tls: dns.tls,
            host: dns.host.to_ascii_lowercase(),
            port,
            path: "/".to_owned(),
        });
        if let Some(legacy) = dns.as_ref().and_then(near) {
            let problem = format!(
                "it has the same host and port as {} in MESH_LEGACY, so this hub would send MESH_TOKEN to a Go hub: \
                 name Go hubs only in BOOTSTRAP_HUBS and MESH_LEGACY",
                shown(legacy),
            );
            refusals.push(SettingError::new(&settings::MESH_DNS, problem));
        }
        refusals
    }

    /// Finds contradictions among the settings of the mesh. `said` returns whether a setting was set.
    pub(super) fn check_mesh(&self, said: &dyn Fn(&settings::Setting) -> bool) -> Vec<SettingError> {
        let mut refusals = Vec::new();
        let asking: Vec<_> = [&settings::BOOTSTRAP_HUBS, &settings::MESH_DNS, &settings::REDIS_URL]
            .into_iter()
            .filter(|setting| said(setting))
            .map(|setting| setting.name)
            .collect();
        if !self.is_hub_said && said(&settings::IS_HUB) && !asking.is_empty() {
            let problem = format!("false contradicts {}: unset one of them", asking.join(" and "));
            refusals.push(SettingError::new(&settings::IS_HUB, problem));
        }
        for (setting, token) in
            [(&settings::MESH_TOKEN, &self.mesh.token), (&settings::MESH_TOKEN_ALSO, &self.mesh.also)]
        {
            if let (Some(token), Some(auth)) = (token, &self.auth_token)
                && token.matches(auth.expose().as_bytes())
            {
                let problem = "it is the same as AUTH_TOKEN, so every peer could pose as a hub: use a different token";
                refusals.push(SettingError::new(setting, problem));
            }
        }
        // BOOTSTRAP_HUBS without a token is not refused, because it is also a setting of the Go hub, which has no
        // token. A hub that still has the Go hub's settings must serve its peers.
        if !self.dials_are_trusted() && self.mesh.dns.is_some() {
            let problem = "links need a token: set MESH_TOKEN to the same value on every hub. Instead of a token, you \
                           can set MESH_CERT and MESH_KEY, or MESH_INSECURE=true in a network where everyone may pose \
                           as a hub";
            refusals.push(SettingError::new(&settings::MESH_DNS, problem));
        }
        let legacy = &self.mesh.legacy;
        if self.discovery != Discovery::All && !(legacy.urls.is_empty() && legacy.addresses.is_empty()) {
            let problem = "Go hubs always announce every peer to every other peer: use DISCOVERY=all, or unset \
                           MESH_LEGACY";
            refusals.push(SettingError::new(&settings::DISCOVERY, problem));
        }
        refusals.extend(self.check_mesh_certificates());
        refusals.extend(self.near_misses());
        refusals
    }

    /// Warnings about valid settings of the mesh that have no effect or are probably a mistake.
    pub(super) fn mesh_warnings(&self, said: &dyn Fn(&settings::Setting) -> bool) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.is_hub {
            let idle: Vec<_> = settings::NEEDS_LINKS.iter().filter(|s| said(s)).map(|s| s.name).collect();
            if !idle.is_empty() {
                warnings.push(format!(
                    "{}: unused, because this hub is not part of a mesh: set IS_HUB, BOOTSTRAP_HUBS, MESH_DNS or \
                     REDIS_URL",
                    idle.join(", ")
                ));
            }
            return warnings;
        }
        let has_certificates = self.mesh.certificates.own.is_some() || self.mesh.certificates.authorities.is_some();
        if self.mesh.token.is_none() {
            if has_certificates {
                warnings.extend(self.certificate_warnings());
            }
            if self.mesh.insecure {
                warnings.push(
                    "MESH_INSECURE: anyone who can reach this hub can link to it, act as any peer and read every \
                     signal"
                        .to_owned(),
                );
            } else if !has_certificates {
                warnings.push(
                    "MESH_TOKEN is unset, so this hub has no links to other hubs: set MESH_TOKEN to the same value on \
                     every hub, or MESH_INSECURE=true where everyone may pose as a hub. Name Go hubs in MESH_LEGACY"
                        .to_owned(),
                );
            }
            if self.mesh.also.is_some() {
                warnings.push("MESH_TOKEN_ALSO has no effect while MESH_TOKEN is unset: set MESH_TOKEN".to_owned());
            }
            if self.mesh.redis_url.is_some() {
                warnings.push(
                    "REDIS_URL without MESH_TOKEN: anyone who can publish at this Redis server can pose as a hub. Set \
                     MESH_TOKEN"
                        .to_owned(),
                );
            }
        }
        warnings.extend(self.mesh.certificates.warnings(SystemTime::now()));
        if self.mesh.token.as_ref().is_some_and(|token| token.expose().len() < LEAST_RESUME_TOKEN_BYTES) {
            warnings.push(format!(
                "MESH_TOKEN is shorter than {LEAST_RESUME_TOKEN_BYTES} characters: a client's resume secret is only \
                 valid at the hub that issued it. Make a longer token with `openssl rand -hex 32`"
            ));
        }
        if let Some(database) = self.mesh.redis_url.as_ref().and_then(|url| url.ignored_database) {
            warnings.push(format!(
                "REDIS_URL names database {database}, which has no effect: pub/sub channels do not belong to a \
                 database. To separate two meshes on one Redis server, set a different HUB_MESH_NAMESPACE for each"
            ));
        }
        let is_dialed =
            |legacy: &Uri| self.bootstrap_hubs.iter().any(|url| HubAddress::of(url) == HubAddress::of(legacy));
        for url in self.mesh.legacy.urls.iter().filter(|url| !is_dialed(url)) {
            let url = url.to_string();
            let url = Redacted(&url);
            warnings.push(format!("MESH_LEGACY names {url}, which is not dialed: add it to BOOTSTRAP_HUBS"));
        }
        warnings
    }
}

/// A hub's URL in the normal form that dials use.
#[derive(PartialEq, Eq, Debug)]
struct HubAddress {
    tls: bool,
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

impl HubAddress {
    fn of(url: &Uri) -> Self {
        let tls = url.scheme_str() == Some("wss");
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        // A URL may have a query and no path.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Self { tls, host: url.host().unwrap_or_default().to_ascii_lowercase(), port, path }
    }

    /// Whether both addresses may belong to one hub. Two addresses can belong to one hub if their hosts are equal, and
    /// their ports are equal or are the default ports of both schemes.
    fn is_beside(&self, other: &Self) -> bool {
        let usual = |place: &Self| place.port == if place.tls { 443 } else { 80 };
        let same_port = self.port == other.port || usual(self) && usual(other);
        same_port && machine(&self.host) == machine(&other.host)
    }
}

/// A text that identifies the machine that a host name refers to. All spellings of an address give the same text, and
/// so do all loopback addresses.
fn machine(host: &str) -> String {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if address.is_loopback() || address.is_unspecified() => "localhost".to_owned(),
        Ok(address) => address.to_string(),
        Err(_) => host.to_owned(),
    }
}

/// Parses a URL of this hub that the hub sends to other hubs and to clients.
fn own_url(text: &str) -> Result<Arc<str>, String> {
    let refused = || {
        let text = quoted(text);
        format!(
            "{text} is not a URL of a hub: use one ws://host[:port] or wss://host[:port] of at most \
                {MAX_HUB_URL_BYTES} bytes"
        )
    };
    if Redacted(text).to_string() != text.trim_end_matches('/') {
        return Err(
            "it has a user or a query, which other hubs and clients would receive: use a URL without user and \
             query"
                .to_owned(),
        );
    }
    let urls = hubs(text).map_err(|_| refused())?;
    if urls.len() != 1 || text.contains(',') || text.len() > MAX_HUB_URL_BYTES {
        return Err(refused());
    }
    Ok(text.into())
}

/// Parses the URL of the operators' pages, which operators of other hubs see.
fn admin_url(text: &str) -> Result<Arc<str>, String> {
    let refused = || {
        let text = quoted(text);
        format!(
            "{text} is not a URL of operators' pages: use http://host[:port] or https://host[:port] of at most \
                {MAX_HUB_URL_BYTES} bytes"
        )
    };
    let url: Uri = text.parse().map_err(|_| refused())?;
    let is_http = matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some();
    if Redacted(text).to_string() != text.trim_end_matches('/') {
        return Err("it has a user or a query, which operators of other hubs would see: use a URL without user and \
                    query"
            .to_owned());
    }
    if !is_http || url.path() != "/" || text.len() > MAX_HUB_URL_BYTES {
        return Err(refused());
    }
    Ok(text.trim_end_matches('/').into())
}

fn mesh_dns(text: &str) -> Result<MeshDns, String> {
    let refused =
        || format!("{} is not a DNS name of hubs: use host[:port], or wss://host[:port] for TLS", quoted(text));
    let (tls, rest) = match text.split_once("://") {
        None | Some(("ws", _)) => (false, text.trim_start_matches("ws://")),
        Some(("wss", rest)) => (true, rest),
        Some(_) => return Err(refused()),
    };
    let authority: hyper::http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| refused())?;
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16();
    // Any other text in the authority is a user or an invalid port.
    let parts = authority.host().len() + authority.port().map_or(0, |port| 1 + port.as_str().len());
    if host.is_empty() || parts != authority.as_str().len() || port == Some(0) {
        return Err(refused());
    }
    Ok(MeshDns { host: host.to_owned(), port, tls })
}

/// Reads a PEM file and validates its certificates.
pub fn certificates(path: &str) -> Result<Arc<[u8]>, String> {
    let bytes = std::fs::read(path)
        .map_err(|error| format!("{} cannot be read ({error}): use a readable PEM file", quoted(path)))?;
    match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(bytes.into()),
        Ok(_) | Err(_) => Err(format!("{} has no valid certificates: use a PEM file with at least one", quoted(path))),
    }
}

fn legacy(text: &str) -> Result<Legacy, String> {
    let mut legacy = Legacy::default();
    for (number, item) in entries(text) {
        let range = item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
        if let Ok(addresses) = range {
            legacy.addresses.push(addresses);
            continue;
        }
        let url = hub(item)?.ok_or_else(|| {
            let item = shown_entry(text, number);
            format!(
                "{item} is neither the URL of a hub nor an address range: use entries such as ws://host:8080 or \
                10.0.0.0/8"
            )
        })?;
        legacy.urls.push(url);
    }
    Ok(legacy)
}

/// Parses REDIS_URL, in which commas separate the URLs of a cluster's nodes. The bridge validates each URL.
fn redis_url(text: &str) -> Result<RedisUrl, String> {
    if text.contains(char::is_control) {
        return Err("a Redis URL has no control characters: use redis://host[:port]".to_owned());
    }
    // The configuration of the bridge only validates the URL here, so the hub's id does not matter.
    let hub = HubId(PeerId::from_bytes([0; 20]));
    let bridge = BridgeConfig {
        url: text.to_owned(),
        namespace: String::new(),
        hub,
        token: None,
        also: None,
        extra_roots: None,
    };
    bridge.check()?;
    Ok(RedisUrl { url: text.to_owned(), ignored_database: bridge.ignored_database() })
}

#[cfg(test)]
mod tests;
