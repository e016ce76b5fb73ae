//! What holds: every setting, read and judged once, before anything binds.

#[cfg(test)]
mod chinese;
#[cfg(test)]
mod deployed;
mod mesh;
mod parse;
mod reader;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use hyper::Uri;
use hyper::header::HeaderValue;
use proto::limits::SEND_FLOOR_BYTES;
use proto::{Discovery, HubId, PeerId, Redacted};

pub use mesh::{Legacy, MeshDns, MeshSettings, RedisUrl, certificates};
pub use parse::trimmed as token;
pub use reader::Refusal;
pub use settings::{Flags, Place};
pub use tls::{TlsPorts, TlsSettings, expiry_warning};

use reader::{Reader, Shown, Source};
use settings::Setting;

#[cfg(test)]
pub(crate) use chinese::SETTINGS_IN_CHINESE;

/// What `--print-config` says in a token's place. It is refused as a token, so that its output, read back as an env
/// file, cannot stand for a secret.
const TOKEN_IS_SET: &str = "<set>";

/// The most that a hub adds to a client's `data`: the frame's header, the keys, two ids, a timestamp, and a network
/// name of 256 bytes, each of them escaped as six.
const MAX_ENVELOPE_BYTES: usize = 2 * 1024;

/// A secret. It is compared and never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Whether this is what was presented, in a time that tells nothing of where they differ.
    pub fn matches(&self, presented: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let differences = secret.iter().zip(presented).fold(0, |seen, (a, b)| seen | (a ^ b));
        std::hint::black_box(differences) == 0 && secret.len() == presented.len()
    }

    /// Whether it stands in quotes. They are a part of it, and hardly meant to be.
    fn is_quoted(&self) -> bool {
        ['"', '\''].iter().any(|quote| self.0.len() > 1 && self.0.starts_with(*quote) && self.0.ends_with(*quote))
    }

    /// The secret, for whoever has to pass it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TOKEN_IS_SET)
    }
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// What is logged, as tracing-subscriber's `EnvFilter` reads it. It has been parsed once already.
    pub filter: String,
}

/// Every setting, resolved: what a hub is told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where operators find their pages, if not where everything is. 0 is any free port.
    pub admin_port: Option<u16>,
    /// Bytes of announcements that may be kept for all sessions together.
    pub announce_budget_bytes: usize,
    /// What peers must present, if anything.
    pub auth_token: Option<Token>,
    /// The hubs to link to.
    pub bootstrap_hubs: Vec<Uri>,
    /// `Access-Control-Allow-Origin` of every answer.
    pub cors_origin: HeaderValue,
    /// Whether pages of the public internet may reach this hub in a private network.
    pub cors_private_network: bool,
    /// Of whom peers are told.
    pub discovery: Discovery,
    /// The time over which closes are spread when the hub stops.
    pub drain: Duration,
    /// FLY_APP_NAME.
    pub fly_app_name: String,
    /// FLY_REGION.
    pub fly_region: String,
    /// HOST as it was said, for /stats.
    pub host: String,
    /// This hub.
    pub hub_id: HubId,
    /// Variables that are not settings, although they are named like one.
    ignored: Vec<String>,
    /// Whether this hub is part of a mesh: IS_HUB, or what asks for links.
    pub is_hub: bool,
    is_hub_said: bool,
    /// Where to listen. With PORT=0 each has port 0: the first one bound says which port the others have to take.
    pub listen: Vec<SocketAddr>,
    /// What is logged.
    pub log: LogConfig,
    /// WebSockets at once.
    pub max_connections: usize,
    /// Longest message of a client.
    pub max_message_bytes: usize,
    /// Networks a peer may be in.
    pub max_networks_per_peer: usize,
    /// Peers a network may have.
    pub max_peers_per_network: usize,
    /// How hubs find and trust each other.
    pub mesh: MeshSettings,
    /// The mesh this hub belongs to.
    pub mesh_namespace: String,
    /// Messages per second and session.
    pub message_rate: u32,
    /// Bytes of messages per second and session.
    pub message_rate_bytes: u64,
    /// Silence after which a session is dead.
    pub peer_timeout: Duration,
    /// Whether browsers get the playground at `/`.
    pub playground: bool,
    /// PORT as it was said: 0 is any.
    pub port: u16,
    /// Whether /readyz says ready while the hub is full.
    pub ready_when_full: bool,
    /// Bytes that may wait for all sessions together.
    pub send_budget_bytes: usize,
    /// Bytes that may wait for one session.
    pub send_queue_bytes: usize,
    /// Frames that may wait for one session.
    pub send_queue_frames: usize,
    /// Cores to serve on.
    pub shards: u16,
    /// How the hub speaks TLS, if it does.
    pub tls: Option<TlsSettings>,
    shown: Vec<Shown>,
}

impl Config {
    /// Weighs what the command line and the environment say. `env` is asked for a variable by its name.
    pub fn resolve(flags: &Flags, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Vec<Refusal>> {
        let mut reader = Reader::new(flags, env);
        match Self::read(&mut reader) {
            Some(mut config) if reader.refusals.is_empty() => {
                config.shown = reader.shown;
                config.shown.sort_by_key(|shown| shown.name);
                config.cross_check().map(|()| config)
            }
            _ => Err(reader.refusals),
        }
    }

    /// The configuration that these variables make, whatever the environment says: for hubs inside other programs.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, Vec<Refusal>> {
        Self::resolve(&Flags::default(), &|name| {
            pairs.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let name = |text: &str| Ok(text.to_owned());
        let nothing = || Ok(String::new());

        // Each is read before any is missed, so that all refusals are told at once.
        let host = reader.text(&settings::HOST, || host("localhost"), host);
        let port = reader.number(&settings::PORT, || settings::PORT.default_number());
        let admin_port = reader.number(&settings::ADMIN_PORT, || port.unwrap_or_default());
        let shards = reader.number(&settings::SHARDS, available_cores);
        let auth_token = reader.text(&settings::AUTH_TOKEN, || Ok(None), |text| parse::token(text).map(Some));
        let cors_origin = reader.text(&settings::CORS_ORIGIN, || parse::origin("*"), parse::origin);
        let cors_private_network = reader.switch(&settings::CORS_PRIVATE_NETWORK);
        let playground = reader.switch(&settings::PLAYGROUND);
        let mut number = |setting: &'static Setting| reader.number(setting, || setting.default_number());
        let max_connections = number(&settings::MAX_CONNECTIONS);
        let max_message_bytes = number(&settings::MAX_MESSAGE_BYTES);
        let max_networks_per_peer = number(&settings::MAX_NETWORKS_PER_PEER);
        let max_peers_per_network = number(&settings::MAX_PEERS_PER_NETWORK);
        let message_rate = number(&settings::MESSAGE_RATE);
        let message_rate_bytes = number(&settings::MESSAGE_RATE_BYTES);
        let discovery = reader.text(&settings::DISCOVERY, || Ok(Discovery::All), str::parse);
        let mut number = |setting: &'static Setting| reader.number(setting, || setting.default_number());
        let peer_timeout_ms = number(&settings::PEER_TIMEOUT_MS);
        let send_queue_frames = number(&settings::SEND_QUEUE_FRAMES);
        let send_queue_bytes = number(&settings::SEND_QUEUE_BYTES);
        let send_budget_bytes = number(&settings::SEND_BUDGET_BYTES);
        let announce_budget_bytes = number(&settings::ANNOUNCE_BUDGET_BYTES);
        let drain_secs = number(&settings::DRAIN_SECS);
        let cleanup_interval_ms = number(&settings::CLEANUP_INTERVAL_MS);
        let ready_when_full = reader.switch(&settings::READY_WHEN_FULL);
        let is_hub = reader.switch(&settings::IS_HUB);
        let hub_id = reader.text(&settings::HUB_ID, random_hub_id, parse::hub_id);
        let namespace =
            reader.text(&settings::HUB_MESH_NAMESPACE, || Ok("pigeonhub-mesh".to_owned()), parse::namespace);
        let bootstrap_hubs = reader.text(&settings::BOOTSTRAP_HUBS, || Ok(Vec::new()), parse::hubs);
        let mesh = MeshSettings::read(reader, port);
        let tls = TlsSettings::read(reader);
        let log_format = reader.text(&settings::LOG_FORMAT, || Ok(LogFormat::Auto), parse::log_format);
        let log_filter =
            reader.aliased(&settings::LOG_LEVEL, &["RUST_LOG"], || Ok("info".to_owned()), parse::log_filter);
        let fly_app_name = reader.text(&settings::FLY_APP_NAME, nothing, name);
        let fly_region = reader.text(&settings::FLY_REGION, nothing, name);

        if let Some(hubs) = &bootstrap_hubs {
            reader.show_as(
                &settings::BOOTSTRAP_HUBS,
                hubs.iter().map(|hub| Redacted(&hub.to_string()).to_string()).collect::<Vec<_>>().join(","),
            );
        }

        // A hub that makes no links has no use for MESH_PORT, and whoever runs it did not set it.
        let alone = is_hub == Some(false)
            && bootstrap_hubs.as_ref().is_some_and(Vec::is_empty)
            && mesh.as_ref().is_some_and(|mesh| mesh.dns.is_none() && mesh.redis_url.is_none());
        let mut ignored = Vec::new();
        for (setting, problem) in std::mem::take(&mut reader.of_services) {
            if alone && setting.name == settings::MESH_PORT.name {
                ignored.push(format!("{} is ignored: {problem}", setting.name));
            } else {
                reader.refusals.push(Refusal::new(setting, problem));
            }
        }

        let (host, addresses) = host?;
        let (mesh, bootstrap_hubs, is_hub_said) = (mesh?, bootstrap_hubs?, is_hub?);
        let is_hub = is_hub_said || !bootstrap_hubs.is_empty() || mesh.dns.is_some() || mesh.redis_url.is_some();
        reader.show_as(&settings::IS_HUB, is_hub.to_string());
        let port = u16::try_from(port?).ok()?;
        cleanup_interval_ms?;
        Some(Self {
            admin_port: (admin_port? != u64::from(port)).then_some(u16::try_from(admin_port?).ok()?),
            announce_budget_bytes: size(announce_budget_bytes?),
            auth_token: auth_token?,
            bootstrap_hubs,
            cors_origin: cors_origin?,
            cors_private_network: cors_private_network?,
            discovery: discovery?,
            drain: Duration::from_secs(drain_secs?),
            fly_app_name: fly_app_name?,
            fly_region: fly_region?,
            host,
            hub_id: hub_id?,
            ignored,
            is_hub,
            is_hub_said,
            listen: addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect(),
            log: LogConfig { format: log_format?, filter: log_filter? },
            max_connections: size(max_connections?),
            max_message_bytes: size(max_message_bytes?),
            max_networks_per_peer: size(max_networks_per_peer?),
            max_peers_per_network: size(max_peers_per_network?),
            mesh,
            mesh_namespace: namespace?,
            message_rate: u32::try_from(message_rate?).ok()?,
            message_rate_bytes: message_rate_bytes?,
            peer_timeout: Duration::from_millis(peer_timeout_ms?),
            port,
            playground: playground?,
            ready_when_full: ready_when_full?,
            send_budget_bytes: size(send_budget_bytes?),
            send_queue_bytes: size(send_queue_bytes?),
            send_queue_frames: size(send_queue_frames?),
            shards: u16::try_from(shards?).ok()?,
            tls: tls?,
            shown: Vec::new(),
        })
    }

    /// What no setting can say alone.
    fn cross_check(&self) -> Result<(), Vec<Refusal>> {
        let mut refusals = self.check_mesh(&|setting| self.is_said(setting));
        let mut at_least = |setting: &Setting, said: usize, least: usize, because: &str| {
            if said < least {
                refusals.push(Refusal::new(setting, format!("{said} is too small: use at least {least}, {because}")));
            }
        };
        at_least(
            &settings::SEND_QUEUE_BYTES,
            self.send_queue_bytes,
            self.max_message_bytes + MAX_ENVELOPE_BYTES,
            "which is one message of MAX_MESSAGE_BYTES plus the hub's own fields",
        );
        at_least(
            &settings::SEND_BUDGET_BYTES,
            self.send_budget_bytes,
            self.send_queue_bytes,
            "which is SEND_QUEUE_BYTES, the queue of one peer",
        );
        at_least(
            &settings::SEND_BUDGET_BYTES,
            self.send_budget_bytes,
            usize::from(self.shards) * SEND_FLOOR_BYTES,
            "which is 256 KiB per shard (SHARDS)",
        );
        if let (Some(admin), Some(links)) = (self.admin_port, self.mesh.port)
            && admin == links
            && admin != 0
        {
            let problem = format!("{admin} is also MESH_PORT, which accepts only links: use different ports");
            refusals.push(Refusal::new(&settings::ADMIN_PORT, problem));
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    /// What `--print-config` prints: an env file, with where each value was said at its end.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for Shown { name, value, .. } in &self.shown {
            let _ = writeln!(out, "{name}={value}");
        }
        // Comments of their own: `docker run --env-file` takes one behind a value for a part of the value.
        for (source, place) in [
            (Source::Flag, "set by flags"),
            (Source::Environment, "set by the environment"),
            (Source::Default, "defaults"),
        ] {
            let names: Vec<_> = self.shown.iter().filter(|shown| shown.source == source).map(|s| s.name).collect();
            if !names.is_empty() {
                let _ = writeln!(out, "# {place}: {}", names.join(" "));
            }
        }
        out
    }

    /// Whether a setting was said, by a flag or by a variable.
    fn is_said(&self, setting: &Setting) -> bool {
        self.shown.iter().any(|shown| shown.name == setting.name && shown.source != Source::Default)
    }

    /// What an operator should hear at start: settings that hold but do not do what they seem to.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.ignored.clone();
        warnings.extend(self.mesh_warnings(&|setting| self.is_said(setting)));
        match &self.tls {
            Some(tls) => warnings.extend(tls.warnings(SystemTime::now())),
            None => {
                let idle = [&settings::TLS_PORTS, &settings::TLS_TICKET_KEY];
                for setting in idle.into_iter().filter(|setting| self.is_said(setting)) {
                    warnings.push(format!("{} without effect: TLS_CERT and TLS_KEY are unset", setting.name));
                }
            }
        }
        let tokens = [
            (&settings::AUTH_TOKEN, &self.auth_token),
            (&settings::MESH_TOKEN, &self.mesh.token),
            (&settings::MESH_TOKEN_ALSO, &self.mesh.also),
        ];
        for (setting, _) in tokens.iter().filter(|(_, token)| token.as_ref().is_some_and(Token::is_quoted)) {
            warnings.push(format!(
                "{}: the quotes are part of the token, since Docker's --env-file keeps them; remove them if they are not meant",
                setting.name
            ));
        }
        if self.is_said(&settings::CLEANUP_INTERVAL_MS) {
            warnings.push("CLEANUP_INTERVAL_MS has no effect, since peers are removed at once: unset it".to_owned());
        }
        warnings
    }
}

/// Name and meaning of each variable that has no flag, for those who document them.
#[cfg(test)]
pub(crate) fn variables_without_a_flag() -> impl Iterator<Item = (&'static str, &'static str)> {
    settings::ALL.iter().filter(|setting| setting.flag().is_none()).map(|setting| (setting.name, setting.help))
}

fn host(text: &str) -> Result<(String, Vec<IpAddr>), String> {
    Ok((text.to_owned(), parse::host(text)?))
}

/// Affinity and the quota of a cgroup, version 1 or 2, are accounted for by the standard library.
fn available_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn random_hub_id() -> Result<HubId, String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system has no randomness ({error}): set HUB_ID"))?;
    Ok(HubId(PeerId::from_bytes(bytes)))
}

/// Ranges end below what an address space of 64 bits holds; a smaller one gets what it can hold.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where a hub of these settings is asked whether it is ready, by a tool on the same machine: its host as a URL writes it, and a
/// port, and whether TLS is spoken there. The settings are read as the hub reads them.
///
/// # Errors
///
/// What the hub would refuse as well.
pub fn place(flags: &Place, env: &dyn Fn(&str) -> Option<OsString>) -> Result<(String, u16, bool), Vec<Refusal>> {
    let mut reader = Reader::new(&flags.0, env);
    let host = reader.text(&settings::HOST, || host("localhost"), host);
    let port = reader.number(&settings::PORT, || settings::PORT.default_number());
    let peers = port;
    let port = reader.number(&settings::ADMIN_PORT, || port.unwrap_or_default());
    let is_admin = port != peers;
    let port = port.and_then(|port| u16::try_from(port).ok());
    let has_certificate = reader.text(&settings::TLS_CERT, || Ok(false), |_| Ok(true)) == Some(true);
    let tls = reader.text(&settings::TLS_PORTS, || tls::ports("PORT"), tls::ports);
    let speaks_tls = has_certificate && tls.is_some_and(|tls| if is_admin { tls.admin } else { tls.peers });
    let of_services = std::mem::take(&mut reader.of_services);
    reader.refusals.extend(of_services.into_iter().map(|(setting, problem)| Refusal::new(setting, problem)));
    match (host, port) {
        (Some((host, addresses)), Some(port)) if reader.refusals.is_empty() => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let host = match addresses[..] {
                // What listens at every address is asked at this machine's own.
                [address] if address.is_unspecified() => "localhost".to_owned(),
                [IpAddr::V6(_)] if bare.contains(':') => format!("[{bare}]"),
                _ => bare.to_owned(),
            };
            Ok((host, port, speaks_tls))
        }
        _ => Err(reader.refusals),
    }
}
