//! The configuration. Every setting is read and checked once, before the hub binds any port.

mod acme;
#[cfg(test)]
mod deployed;
mod door;
mod ice;
mod id_proofs;
mod memory;
mod mesh;
mod mesh_certificates;
mod parse;
mod quoted;
mod reader;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;
mod traces;

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::Uri;
use ipnet::IpNet;
use proto::limits::{DEFAULT_SEND_QUEUE_BYTES, LEAST_ADMIN_TOKEN_BYTES, SEND_FLOOR_BYTES};
use proto::{Budget, BudgetRates, Discovery, HubId, PeerId, Redacted};
use shard::Origins;

pub use acme::{AcmeBinding, AcmeSettings};
pub use door::DoorSettings;
pub use ice::IceSettings;
pub use id_proofs::IdProofSettings;
pub use mesh::{Legacy, MeshDns, MeshSettings, RedisUrl, certificates};
pub use mesh_certificates::{Authorities, MeshCertificates, OwnCertificate};
pub use parse::trimmed as token;
pub use reader::SettingError;
pub use settings::{Flags, ListenFlags};
pub use tls::{CertificateSources, PortNames, TlsSettings, expiry_warning};
pub use tokens::{TokenSettings, TokenSources};
pub use traces::{HiddenHeaders, TraceSettings};

use crate::telemetry::process;
use memory::MemoryBudgets;
pub use memory::MeshBudgets;
use reader::{SettingsReader, Shown, Source};
use settings::Setting;

/// Placeholder that `--print-config` prints for a token. The placeholder is invalid as a token. If the output of
/// `--print-config` is used as an env file, the hub refuses the placeholder, and does not use a wrong secret.
const TOKEN_IS_SET: &str = "<set>";

/// Maximum number of bytes that a hub adds to a client's `data`. The hub adds the frame's header, keys, two ids and a
/// timestamp. The hub also adds a network name of up to 256 bytes, each of which can be escaped as six bytes.
const MAX_ENVELOPE_BYTES: usize = 2 * 1024;

/// A secret string. The string can be compared, and is never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads a token, without the white space around it.
    ///
    /// # Errors
    ///
    /// Returns a sentence if the text cannot be sent in an HTTP header.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::token(text.trim())
    }

    /// Compares a presented token in constant time.
    pub fn matches(&self, presented: &[u8]) -> bool {
        proto::is_secret(presented, self.0.as_bytes())
    }

    /// Whether the token is in quotes. The quotes then belong to the token, which is probably a mistake.
    fn is_quoted(&self) -> bool {
        ['"', '\''].iter().any(|quote| self.0.len() > 1 && self.0.starts_with(*quote) && self.0.ends_with(*quote))
    }

    /// The secret itself, for code that must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TOKEN_IS_SET)
    }
}

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// `Human` if the output is a terminal, otherwise `Json`.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Configuration of the log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The format of a line.
    pub format: LogFormat,
    /// The filter, in the syntax of tracing-subscriber's `EnvFilter`. The filter is known to be valid.
    pub filter: String,
}

/// The resolved configuration of a hub.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port of the operators' pages (ADMIN_PORT), if it differs from PORT. 0 means any free port.
    pub admin_port: Option<u16>,
    /// Addresses of the operators' pages (ADMIN_HOST), if they are not those of HOST.
    pub admin_host: Option<Vec<IpAddr>>,
    /// ADMIN_TOKEN.
    pub admin_token: Option<Token>,
    /// ANNOUNCE_BUDGET_BYTES.
    pub announce_budget_bytes: usize,
    /// AUTH_TOKEN.
    pub auth_token: Option<Token>,
    /// BOOTSTRAP_HUBS.
    pub bootstrap_hubs: Vec<Uri>,
    /// Origins whose pages may read the HTTP endpoints (CORS_ORIGIN, or else ALLOWED_ORIGINS).
    pub cors: Arc<Origins>,
    /// The rates of the budgets, such as MESSAGE_RATE.
    pub budget_rates: BudgetRates,
    /// CORS_PRIVATE_NETWORK.
    pub cors_private_network: bool,
    /// DISCOVERY.
    pub discovery: Discovery,
    /// The settings of trusted proxies, and of the limits of connections per address.
    pub door: DoorSettings,
    /// STUN and TURN servers for clients.
    pub ice: IceSettings,
    /// DRAIN_SECS.
    pub drain: Duration,
    /// FLY_APP_NAME.
    pub fly_app_name: String,
    /// FLY_REGION.
    pub fly_region: String,
    /// HOST as written, for /stats.
    pub host: String,
    /// The id of this hub.
    pub hub_id: HubId,
    /// Warnings about variables that Kubernetes has set, and that have the name of a setting.
    ignored: Vec<String>,
    /// Whether this hub is part of a mesh: IS_HUB, or a setting that implies it.
    pub is_hub: bool,
    is_hub_said: bool,
    /// The addresses to listen on. With PORT=0, each address has port 0. For PORT=0, the hub binds the first address to
    /// a free port, and all other addresses to the same port.
    pub listen: Vec<SocketAddr>,
    /// The log.
    pub log: LogConfig,
    /// MAX_CONNECTIONS.
    pub max_connections: usize,
    /// MAX_MESSAGE_BYTES.
    pub max_message_bytes: usize,
    /// MAX_NETWORKS_PER_PEER.
    pub max_networks_per_peer: usize,
    /// MAX_PEERS_PER_NETWORK.
    pub max_peers_per_network: usize,
    /// The settings of links and of the Redis bridge.
    pub mesh: MeshSettings,
    /// HUB_MESH_NAMESPACE.
    pub mesh_namespace: String,
    /// ALLOWED_ORIGINS.
    pub origins: Arc<Origins>,
    /// PEER_TIMEOUT_MS.
    pub peer_timeout: Duration,
    /// Whether browsers get the playground at `/`.
    pub playground: bool,
    /// PORT; 0 means any free port.
    pub port: u16,
    /// NETWORK_BUDGETS. 0 means no limit.
    pub network_budgets: u32,
    /// RECEIVE_BUDGET_BYTES.
    pub receive_budget_bytes: usize,
    /// READY_WHEN_FULL.
    pub ready_when_full: bool,
    /// HTTP_REDIRECT_PORT; 0 means any free port.
    pub redirect_port: Option<u16>,
    /// SEND_BUDGET_BYTES.
    pub send_budget_bytes: usize,
    /// SEND_QUEUE_BYTES.
    pub send_queue_bytes: usize,
    /// SEND_QUEUE_FRAMES.
    pub send_queue_frames: usize,
    /// SHARDS.
    pub shards: u16,
    /// The TLS settings; `None` without TLS.
    pub tls: Option<TlsSettings>,
    /// Whether clients prove that their ids are their own.
    pub id_proofs: IdProofSettings,
    /// The settings of tokens (JWT); `None` if no key is set.
    pub tokens: Option<TokenSettings>,
    /// The settings of traces; `None` if the hub sends no traces.
    pub traces: Option<TraceSettings>,
    shown: Vec<Shown>,
}

impl Config {
    /// Resolves the configuration from the command line and the environment. `env` returns a variable by its name.
    pub fn resolve(flags: &Flags, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Vec<SettingError>> {
        let mut reader = SettingsReader::new(flags, env);
        match Self::read(&mut reader) {
            Some(mut config) if reader.refusals.is_empty() => {
                config.shown = reader.shown;
                config.shown.sort_by_key(|shown| shown.name);
                config.cross_check().map(|()| config)
            }
            _ => Err(reader.refusals),
        }
    }

    /// Makes a configuration from these variables alone, and not from the environment. Programs that embed a hub use
    /// this function.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, Vec<SettingError>> {
        Self::resolve(&Flags::default(), &|name| {
            pairs.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn read(reader: &mut SettingsReader<'_>) -> Option<Self> {
        let name = |text: &str| Ok(text.to_owned());
        let nothing = || Ok(String::new());

        // All settings are read before any error returns, so that all errors are reported together.
        let acme = AcmeSettings::names(reader);
        let is_public = acme.as_ref().is_some_and(|names| !names.is_empty());
        let host = reader.text(&settings::HOST, || if is_public { public() } else { host("localhost") }, host);
        let port = reader.number(&settings::PORT, || default_port(is_public));
        if let Some((text, _)) = host.as_ref().filter(|_| is_public) {
            reader.show_as(&settings::HOST, text.clone());
        }
        let admin_port = reader.number(&settings::ADMIN_PORT, || port.unwrap_or_default());
        let admin_host = reader.text(&settings::ADMIN_HOST, || Ok(None), |text| host_addresses(text).map(Some));
        let admin_token = reader.text(&settings::ADMIN_TOKEN, || Ok(None), |text| parse::token(text).map(Some));
        let redirect_port = reader.number(&settings::HTTP_REDIRECT_PORT, || 0);
        let redirects = reader.is_set(&settings::HTTP_REDIRECT_PORT);
        if !redirects {
            reader.show_as(&settings::HTTP_REDIRECT_PORT, String::new());
        }
        let shards = reader.number(&settings::SHARDS, available_cores);
        let auth_token = reader.text(&settings::AUTH_TOKEN, || Ok(None), |text| parse::token(text).map(Some));
        let origins = reader.text(&settings::ALLOWED_ORIGINS, || Ok(Origins::default()), parse::origins);
        let cors = reader.text(&settings::CORS_ORIGIN, || Ok(None), |text| parse::origins(text).map(Some));
        let cors_private_network = reader.switch(&settings::CORS_PRIVATE_NETWORK);
        let playground = reader.switch(&settings::PLAYGROUND);
        let mut number = |setting: &'static Setting| reader.number(setting, || setting.default_number());
        let max_connections = number(&settings::MAX_CONNECTIONS);
        let max_message_bytes = number(&settings::MAX_MESSAGE_BYTES);
        let max_networks_per_peer = number(&settings::MAX_NETWORKS_PER_PEER);
        let max_peers_per_network = number(&settings::MAX_PEERS_PER_NETWORK);
        let message_rate = number(&settings::MESSAGE_RATE);
        let message_rate_bytes = number(&settings::MESSAGE_RATE_BYTES);
        let announce_rate_bytes = number(&settings::ANNOUNCE_RATE_BYTES);
        let event_rate_bytes = number(&settings::EVENT_RATE_BYTES);
        let discover_rate = number(&settings::DISCOVER_RATE);
        let error_rate = number(&settings::ERROR_RATE);
        let network_budgets = number(&settings::NETWORK_BUDGETS);
        let discovery = reader.text(&settings::DISCOVERY, || Ok(Discovery::All), str::parse);
        let mut number = |setting: &'static Setting| reader.number(setting, || setting.default_number());
        let peer_timeout_ms = number(&settings::PEER_TIMEOUT_MS);
        let send_queue_frames = number(&settings::SEND_QUEUE_FRAMES);
        let drain_secs = number(&settings::DRAIN_SECS);
        let cleanup_interval_ms = number(&settings::CLEANUP_INTERVAL_MS);
        let ready_when_full = reader.switch(&settings::READY_WHEN_FULL);
        let is_hub = reader.switch(&settings::IS_HUB);
        let hub_id = reader.text(&settings::HUB_ID, random_hub_id, parse::hub_id);
        let namespace =
            reader.text(&settings::HUB_MESH_NAMESPACE, || Ok("pigeonhub-mesh".to_owned()), parse::namespace);
        let bootstrap_hubs = reader.text(&settings::BOOTSTRAP_HUBS, || Ok(Vec::new()), parse::hubs);
        let room = process::memory_room();
        let is_asked = is_hub == Some(true) || bootstrap_hubs.as_ref().is_some_and(|hubs| !hubs.is_empty());
        let mesh_budgets = MeshBudgets::of(
            room,
            size(max_connections.unwrap_or_default()),
            size(max_message_bytes.unwrap_or_default()),
        );
        let mesh = MeshSettings::read(reader, port, mesh_budgets);
        let in_mesh = is_asked || mesh.as_ref().is_some_and(MeshSettings::finds_hubs);
        let memory = MemoryBudgets::of(room, in_mesh);
        // The defaults of the send queue and the send budget grow with the settings with which `cross_check` compares
        // them. The default of SEND_QUEUE_BYTES grows up to `DEFAULT_SEND_QUEUE_BYTES`.
        let message = size(max_message_bytes.unwrap_or_default()) + MAX_ENVELOPE_BYTES;
        let queue = memory.send_queue.max(message.min(DEFAULT_SEND_QUEUE_BYTES));
        let send_queue_bytes = reader.number(&settings::SEND_QUEUE_BYTES, || queue as u64);
        let floors = size(shards.unwrap_or_default()) * SEND_FLOOR_BYTES;
        let budget = memory.send.max(size(send_queue_bytes.unwrap_or_default())).max(floors);
        let send_budget_bytes = reader.number(&settings::SEND_BUDGET_BYTES, || budget as u64);
        let receive_budget_bytes = reader.number(&settings::RECEIVE_BUDGET_BYTES, || memory.receive as u64);
        let announce_budget_bytes = reader.number(&settings::ANNOUNCE_BUDGET_BYTES, || memory.announce as u64);
        let tls = TlsSettings::read(reader, acme);
        let tokens = TokenSettings::read(reader);
        let traces = TraceSettings::read(reader);
        let id_proofs = IdProofSettings::read(reader);
        let door = DoorSettings::read(reader);
        let ice = IceSettings::read(reader);
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

        // A hub without links has no use for MESH_PORT, so a value that Kubernetes has set there is ignored instead of
        // refused.
        let alone = is_hub == Some(false)
            && bootstrap_hubs.as_ref().is_some_and(Vec::is_empty)
            && mesh.as_ref().is_some_and(|mesh| mesh.dns.is_none() && mesh.redis_url.is_none());
        let mut ignored = Vec::new();
        for (setting, problem) in std::mem::take(&mut reader.of_services) {
            if alone && setting.name == settings::MESH_PORT.name {
                ignored.push(format!("{} is ignored: {problem}", setting.name));
            } else {
                reader.refusals.push(SettingError::new(setting, problem));
            }
        }

        let (host, addresses) = host?;
        let (mesh, bootstrap_hubs, is_hub_said) = (mesh?, bootstrap_hubs?, is_hub?);
        let is_hub = in_mesh;
        reader.show_as(&settings::IS_HUB, is_hub.to_string());
        let port = u16::try_from(port?).ok()?;
        cleanup_interval_ms?;
        let origins = Arc::new(origins?);
        let cors = cors?.map_or_else(|| Arc::clone(&origins), Arc::new);
        reader.show_as(&settings::CORS_ORIGIN, cors.to_string());
        Some(Self {
            admin_host: admin_host?,
            admin_port: (admin_port? != u64::from(port)).then_some(u16::try_from(admin_port?).ok()?),
            admin_token: admin_token?,
            announce_budget_bytes: size(announce_budget_bytes?),
            auth_token: auth_token?,
            bootstrap_hubs,
            cors,
            budget_rates: BudgetRates {
                messages: message_rate?,
                bytes: message_rate_bytes?,
                announcements: announce_rate_bytes?,
                events: event_rate_bytes?,
                pages: discover_rate?,
                errors: error_rate?,
            },
            cors_private_network: cors_private_network?,
            discovery: discovery?,
            door: door?,
            ice: ice?,
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
            network_budgets: u32::try_from(network_budgets?).ok()?,
            origins,
            peer_timeout: Duration::from_millis(peer_timeout_ms?),
            port,
            playground: playground?,
            receive_budget_bytes: size(receive_budget_bytes?),
            ready_when_full: ready_when_full?,
            redirect_port: redirects.then_some(u16::try_from(redirect_port?).ok()?),
            send_budget_bytes: size(send_budget_bytes?),
            send_queue_bytes: size(send_queue_bytes?),
            send_queue_frames: size(send_queue_frames?),
            shards: u16::try_from(shards?).ok()?,
            tls: tls?,
            id_proofs: id_proofs?,
            tokens: tokens?,
            traces: traces?,
            shown: Vec::new(),
        })
    }

    /// Checks that involve several settings.
    fn cross_check(&self) -> Result<(), Vec<SettingError>> {
        let mut refusals = self.check_mesh(&|setting| self.is_said(setting));
        let mut at_least = |setting: &Setting, said: usize, least: usize, because: &str| {
            if said < least {
                refusals
                    .push(SettingError::new(setting, format!("{said} is too small: use at least {least}, {because}")));
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
            refusals.push(SettingError::new(&settings::ADMIN_PORT, problem));
        }
        if let Some(admin) = &self.admin_token {
            let others = [
                (&settings::AUTH_TOKEN, &self.auth_token),
                (&settings::MESH_TOKEN, &self.mesh.token),
                (&settings::MESH_TOKEN_ALSO, &self.mesh.also),
            ];
            for (other, token) in others {
                if token.as_ref().is_some_and(|token| admin.matches(token.expose().as_bytes())) {
                    let problem = format!("it is the same as {}: use a different token", other.name);
                    refusals.push(SettingError::new(&settings::ADMIN_TOKEN, problem));
                }
            }
        }
        refusals.extend(self.door.check());
        refusals.extend(self.id_proofs.check(self.mesh.public_url.as_deref()));
        refusals.extend(self.check_redirect());
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    /// Bytes that a session may queue even if SEND_BUDGET_BYTES is exhausted.
    pub fn send_floor_bytes(&self) -> usize {
        memory::send_floor(self.send_budget_bytes, self.max_connections)
    }

    /// The budget of a network on all shards together.
    pub fn network_budget(&self) -> Budget {
        match self.network_budgets {
            0 => Budget::UNLIMITED,
            sessions => Budget::of_network(&self.budget_rates, sessions),
        }
    }

    /// Checks that HTTP_REDIRECT_PORT redirects to a port with TLS, and differs from all other ports.
    fn check_redirect(&self) -> Option<SettingError> {
        let port = self.redirect_port?;
        let refused = |problem: String| Some(SettingError::new(&settings::HTTP_REDIRECT_PORT, problem));
        if self.tls.as_ref().is_none_or(|tls| !tls.ports.peers) {
            return refused("PORT does not speak TLS: set TLS_CERT and TLS_KEY, or TLS_ACME".to_owned());
        }
        let others = [("PORT", Some(self.port)), ("ADMIN_PORT", self.admin_port), ("MESH_PORT", self.mesh.port)];
        let (name, _) = others.into_iter().find(|(_, other)| port != 0 && *other == Some(port))?;
        refused(format!("{port} is also {name}: use different ports"))
    }

    /// The HTTPS port that clients use. The port for clients can differ from `bound`, the port at which the hub
    /// listens, because a load balancer or a container can map ports.
    pub fn https_port(&self, bound: u16) -> u16 {
        let public = self.mesh.public_url.as_deref().and_then(|url| url.parse::<Uri>().ok());
        if let Some(url) = public.filter(|url| url.scheme_str() == Some("wss")) {
            return url.port_u16().unwrap_or(443);
        }
        // The ACME authority connects to port 443, so that port leads to this hub.
        let is_ordered = self.tls.as_ref().is_some_and(|tls| tls.acme.is_some());
        if is_ordered { 443 } else { bound }
    }

    /// The output of `--print-config`. The output is an env file, followed by the source of each value.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        for Shown { name, value, .. } in &self.shown {
            let _ = writeln!(out, "{name}={value}");
        }
        // Comments have their own lines, because `docker run --env-file` reads a comment after a value as part of the
        // value.
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

    /// Whether a setting was set by a flag or a variable.
    fn is_said(&self, setting: &Setting) -> bool {
        self.shown.iter().any(|shown| shown.name == setting.name && shown.source != Source::Default)
    }

    /// Warnings for the operator at the start, about valid settings that have no effect or are probably a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.ignored.clone();
        warnings.extend(self.mesh_warnings(&|setting| self.is_said(setting)));
        match &self.tls {
            Some(tls) => warnings.extend(tls.warnings(SystemTime::now(), self.port)),
            None => {
                let idle = [&settings::TLS_PORTS, &settings::TLS_TICKET_KEY];
                for setting in idle.into_iter().filter(|setting| self.is_said(setting)) {
                    warnings.push(format!("{} has no effect: TLS_CERT and TLS_KEY are unset", setting.name));
                }
            }
        }
        if self.tls.as_ref().is_none_or(|tls| tls.acme.is_none()) {
            let idle = [
                &settings::TLS_ACME_DIR,
                &settings::TLS_ACME_URL,
                &settings::TLS_ACME_CA,
                &settings::TLS_ACME_EMAIL,
                &settings::TLS_ACME_EAB_KID,
                &settings::TLS_ACME_EAB_HMAC,
            ];
            for setting in idle.into_iter().filter(|setting| self.is_said(setting)) {
                warnings.push(format!("{} has no effect: TLS_ACME is unset", setting.name));
            }
        }
        if self.tokens.is_none() {
            for setting in TokenSettings::idle().into_iter().filter(|setting| self.is_said(setting)) {
                warnings
                    .push(format!("{} has no effect: JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS are unset", setting.name));
            }
        }
        match &self.traces {
            Some(traces) => warnings.extend(traces.warnings()),
            None => warnings.extend(TraceSettings::idle(|setting| self.is_said(setting))),
        }
        warnings.extend(self.door.warnings());
        warnings.extend(self.ice.warnings(|setting| self.is_said(setting)));
        if self.admin_host.is_some() && self.admin_port.is_none() {
            warnings.push(
                "ADMIN_HOST has no effect without an ADMIN_PORT that differs from PORT: set ADMIN_PORT as well"
                    .to_owned(),
            );
        }
        let is_reached = |address: &&SocketAddr| !address.ip().is_loopback();
        if self.origins.is_open()
            && !self.is_said(&settings::ALLOWED_ORIGINS)
            && self.auth_token.is_none()
            && self.tokens.is_none()
            && let Some(address) = self.listen.iter().find(is_reached)
        {
            warnings.push(format!(
                "the hub listens on {address} without AUTH_TOKEN and ALLOWED_ORIGINS, so everybody can use it from \
                 any program or web page: set one of the two, or ALLOWED_ORIGINS=* if everybody may use it",
            ));
        }
        let tokens = [
            (&settings::AUTH_TOKEN, &self.auth_token),
            (&settings::ADMIN_TOKEN, &self.admin_token),
            (&settings::MESH_TOKEN, &self.mesh.token),
            (&settings::MESH_TOKEN_ALSO, &self.mesh.also),
        ];
        for (setting, _) in tokens.iter().filter(|(_, token)| token.as_ref().is_some_and(Token::is_quoted)) {
            warnings.push(format!(
                "{}: the token begins and ends with a quote, because Docker's --env-file does not remove quotes: \
                 remove the quotes if they do not belong to the token",
                setting.name
            ));
        }
        let length = self.admin_token.as_ref().map_or(usize::MAX, |token| token.expose().len());
        if length < LEAST_ADMIN_TOKEN_BYTES {
            warnings.push(format!(
                "ADMIN_TOKEN: it has {length} characters, so it may be guessed: use at least {LEAST_ADMIN_TOKEN_BYTES} \
                 random ones, for example from `openssl rand -hex 16`"
            ));
        }
        if self.is_said(&settings::CLEANUP_INTERVAL_MS) {
            warnings.push("CLEANUP_INTERVAL_MS has no effect, since peers are removed at once: unset it".to_owned());
        }
        warnings
    }
}

/// Name and help of each variable without a flag, for the documentation.
#[cfg(test)]
pub(crate) fn variables_without_a_flag() -> impl Iterator<Item = (&'static str, &'static str)> {
    settings::ALL.iter().filter(|setting| setting.flag().is_none()).map(|setting| (setting.name, setting.help))
}

/// The default of PORT. A hub that orders certificates listens at port 443, because the ACME authority connects to it.
fn default_port(is_public: bool) -> u64 {
    if is_public { 443 } else { settings::PORT.default_number() }
}

/// The default of HOST for a hub that orders certificates is all addresses of the machine.
fn public() -> Result<(String, Vec<IpAddr>), String> {
    let has_ipv6 = std::net::UdpSocket::bind("[::]:0").is_ok();
    host(if has_ipv6 { "::" } else { "0.0.0.0" })
}

fn host_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    parse::host(text)
}

fn host(text: &str) -> Result<(String, Vec<IpAddr>), String> {
    Ok((text.to_owned(), parse::host(text)?))
}

/// Number of cores that the process may use. The standard library respects CPU affinity and the quota of a cgroup,
/// version 1 or 2.
fn available_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn random_hub_id() -> Result<HubId, String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system has no randomness ({error}): set HUB_ID"))?;
    Ok(HubId(PeerId::from_bytes(bytes)))
}

/// Converts the number of a setting. On 32-bit machines, a number that does not fit is clamped.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Address of a hub's probes, for a tool on the same machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The host, in URL syntax.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether the port uses TLS.
    pub speaks_tls: bool,
    /// Addresses from which the port expects the header of the PROXY protocol (PROXY_PROTOCOL, TRUSTED_PROXIES).
    pub proxies: Vec<IpNet>,
}

/// Returns the address of a hub's probes. Reads the settings in the same way as the hub.
///
/// # Errors
///
/// The same errors that a hub reports for these settings.
pub fn place(flags: &ListenFlags, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Place, Vec<SettingError>> {
    let mut reader = SettingsReader::new(&flags.0, env);
    let is_public = reader.text(&settings::TLS_ACME, || Ok(false), |_| Ok(true)) == Some(true);
    let host = reader.text(&settings::HOST, || host("localhost"), host);
    let port = reader.number(&settings::PORT, || default_port(is_public));
    let peers = port;
    let port = reader.number(&settings::ADMIN_PORT, || port.unwrap_or_default());
    let is_admin = port != peers;
    let admin_host = reader.text(&settings::ADMIN_HOST, || Ok(None), |text| self::host(text).map(Some));
    let host = if is_admin { admin_host.flatten().or(host) } else { host };
    let port = port.and_then(|port| u16::try_from(port).ok());
    let has_certificate = reader.text(&settings::TLS_CERT, || Ok(false), |_| Ok(true)) == Some(true);
    let tls = reader.text(&settings::TLS_PORTS, || tls::ports("PORT"), tls::ports);
    let speaks_tls =
        (has_certificate || is_public) && tls.is_some_and(|tls| if is_admin { tls.admin } else { tls.peers });
    let expecting = reader.text(&settings::PROXY_PROTOCOL, || Ok(PortNames::default()), tls::ports);
    let proxies = reader.text(&settings::TRUSTED_PROXIES, || Ok(Vec::new()), door::ranges).unwrap_or_default();
    let expects_head = expecting.is_some_and(|ports| if is_admin { ports.admin } else { ports.peers });
    let of_services = std::mem::take(&mut reader.of_services);
    reader.refusals.extend(of_services.into_iter().map(|(setting, problem)| SettingError::new(setting, problem)));
    match (host, port) {
        (Some((host, addresses)), Some(port)) if reader.refusals.is_empty() => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let host = match addresses[..] {
                // If the hub listens on all addresses, the loopback address is probed.
                [address] if address.is_unspecified() => "localhost".to_owned(),
                [IpAddr::V6(_)] if bare.contains(':') => format!("[{bare}]"),
                _ => bare.to_owned(),
            };
            Ok(Place { host, port, speaks_tls, proxies: if expects_head { proxies } else { Vec::new() } })
        }
        _ => Err(reader.refusals),
    }
}
