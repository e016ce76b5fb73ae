//! All settings, each with its variable, flag, default and allowed values.

use std::collections::BTreeMap;

use clap::builder::{OsStringValueParser, ValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use proto::limits::{
    DEFAULT_ADDRESS_CONNECT_RATE, DEFAULT_ADDRESS_UNFINISHED, DEFAULT_ANNOUNCE_RATE_BYTES, DEFAULT_CONNECT_RATE,
    DEFAULT_DISCOVER_RATE, DEFAULT_ERROR_RATE, DEFAULT_EVENT_RATE_BYTES, DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_MAX_NETWORKS_PER_PEER, DEFAULT_MAX_PEERS_PER_NETWORK, DEFAULT_MESSAGE_RATE,
    DEFAULT_MESSAGE_RATE_BYTES, DEFAULT_NETWORK_BUDGETS, DEFAULT_SEND_QUEUE_FRAMES, LARGEST_MAX_MESSAGE_BYTES,
    LARGEST_MESSAGE_RATE_BYTES, LEAST_PRESENCE_BYTES, ROSTER_CHUNK, ROSTER_LOW_WATER_BYTES, SEND_FLOOR_BYTES, TICK,
};

/// One setting, set by its variable or by the flag of the same name.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name of the variable. The flag has the same name in lower case, with dashes.
    pub(crate) name: &'static str,
    /// Placeholder for the value in `--help`. Empty if there is no flag.
    pub(crate) value: &'static str,
    /// The default.
    pub(crate) default: Preset,
    /// The allowed values.
    pub(crate) kind: Kind,
    /// Its heading in `--help`.
    pub(crate) heading: &'static str,
    /// Its help text.
    pub(crate) help: &'static str,
}

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preset {
    /// A default that is determined at the start, described in words.
    Found(&'static str),
    /// No default.
    Nothing,
    /// A number.
    Number(u64),
    /// A text.
    Text(&'static str),
}

/// The allowed values of a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// An integer.
    Number {
        /// The noun with its article, for errors: "a port".
        noun: &'static str,
        /// Minimum.
        min: u64,
        /// Maximum.
        max: u64,
    },
    /// A text that is never printed.
    Secret,
    /// A boolean.
    Switch,
    /// A text.
    Text,
}

const LISTENING: &str = "Listening";
const TOKENS: &str = "Tokens";
const TLS: &str = "TLS";
const LIMITS: &str = "Limits";
const ICE: &str = "STUN and TURN";
const MESH: &str = "Mesh";
const OPERATION: &str = "Operation";

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Maximum of SHARDS. With more shards, letters between all pairs of shards would cost more than a core provides.
const MAX_SHARDS: u64 = 256;

pub(crate) static HOST: Setting = Setting {
    name: "HOST",
    value: "ADDRESS",
    default: Preset::Text("localhost"),
    kind: Kind::Text,
    heading: LISTENING,
    help: "Address or host name to listen on: localhost means 127.0.0.1 and ::1, 0.0.0.0 every IPv4 address, :: every \
        address",
};

pub(crate) static PORT: Setting = Setting {
    name: "PORT",
    value: "PORT",
    default: Preset::Number(8080),
    kind: Kind::Number { noun: "a port", min: 0, max: 65_535 },
    heading: LISTENING,
    help: "Port to listen on; 0 picks a free port",
};

pub(crate) static ADMIN_HOST: Setting = Setting {
    name: "ADMIN_HOST",
    value: "ADDRESS",
    default: Preset::Found("HOST"),
    kind: Kind::Text,
    heading: LISTENING,
    help: "Address or host name at which ADMIN_PORT listens, such as localhost",
};

pub(crate) static ADMIN_PORT: Setting = Setting {
    name: "ADMIN_PORT",
    value: "PORT",
    default: Preset::Found("PORT"),
    kind: Kind::Number { noun: "a port", min: 0, max: 65_535 },
    heading: LISTENING,
    help: "Port of /dashboard, /metrics, /stats, /hubs and /hubstats; if it differs from PORT, PORT does not serve \
        them",
};

pub(crate) static ADMIN_TOKEN: Setting = Setting {
    name: "ADMIN_TOKEN",
    value: "TOKEN",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: LISTENING,
    help: "Token of operators: requests for /dashboard, /metrics, /stats, /hubs and /hubstats, and orders to /admin, \
        must carry it as \
           `Authorization: Bearer TOKEN`; browsers log in at /admin",
};

pub(crate) static SHARDS: Setting = Setting {
    name: "SHARDS",
    value: "COUNT",
    default: Preset::Found("the number of available cores"),
    kind: Kind::Number { noun: "a number of shards", min: 1, max: MAX_SHARDS },
    heading: LISTENING,
    help: "Threads that serve peers, one per core",
};

pub(crate) static AUTH_TOKEN: Setting = Setting {
    name: "AUTH_TOKEN",
    value: "TOKEN",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: LISTENING,
    help: "Token that peers must send, as `Authorization: Bearer TOKEN` or `?token=TOKEN`",
};

pub(crate) static JWT_SECRET: Setting = Setting {
    name: "JWT_SECRET",
    value: "SECRETS",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: TOKENS,
    help: "Secrets for JWTs signed with HS256, HS384 or HS512, which peers may send instead of AUTH_TOKEN: at least 32 \
        characters each, separated by commas; file:PATH reads a secret from a file. JWT_SECRETS is another name of \
        this setting",
};

pub(crate) static JWT_PUBLIC_KEY: Setting = Setting {
    name: "JWT_PUBLIC_KEY",
    value: "KEYS",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TOKENS,
    help: "Public keys for JWTs signed with RS256, ES256 or EdDSA: PEM text, or files separated by commas. \
        JWT_PUBLIC_KEYS is another name of this setting",
};

pub(crate) static JWT_JWKS: Setting = Setting {
    name: "JWT_JWKS",
    value: "SOURCE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TOKENS,
    help: "File or https:// URL of a JSON Web Key Set (JWKS) with public keys for JWTs; the hub reloads it \
        periodically, on SIGHUP, and when a token names an unknown key",
};

pub(crate) static JWT_CA: Setting = Setting {
    name: "JWT_CA",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TOKENS,
    help: "File with additional CA certificates (PEM) for the URL of JWT_JWKS",
};

pub(crate) static JWT_AUDIENCE: Setting = Setting {
    name: "JWT_AUDIENCE",
    value: "NAMES",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TOKENS,
    help: "Names of this hub, separated by commas; the claim aud of a token must contain one of them. Without this \
        setting, the hub refuses tokens that have a claim aud",
};

pub(crate) static JWT_ISSUER: Setting = Setting {
    name: "JWT_ISSUER",
    value: "NAMES",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TOKENS,
    help: "Issuers, separated by commas; the claim iss of a token must be one of them",
};

pub(crate) static PEER_ID_PROOF: Setting = Setting {
    name: "PEER_ID_PROOF",
    value: "MODE",
    default: Preset::Text("off"),
    kind: Kind::Text,
    heading: TOKENS,
    help: "Whether clients must prove that they own their peer id, which is then the hash of their Ed25519 public key: \
        off, offered (only clients that send a key must prove it; they then replace an older connection with their id \
        at once), or required (clients without a proof are refused, unless their token names the id)",
};

pub(crate) static PEER_ID_HOSTS: Setting = Setting {
    name: "PEER_ID_HOSTS",
    value: "HOSTS",
    default: Preset::Found("the host of PUBLIC_URL"),
    kind: Kind::Text,
    heading: TOKENS,
    help: "Hosts in the URLs of this hub's clients, separated by commas, such as \
           hub.example.com or localhost:8080; a proof for another host is refused",
};

pub(crate) static ALLOWED_ORIGINS: Setting = Setting {
    name: "ALLOWED_ORIGINS",
    value: "ORIGINS",
    default: Preset::Text("*"),
    kind: Kind::Text,
    heading: LISTENING,
    help: "Web origins whose pages may open WebSockets and read the HTTP endpoints, separated by commas: \
           https://app.example.com, https://*.example.com for all names below it, null, or * for every origin. \
           Programs send no origin and are not affected",
};

pub(crate) static TRUSTED_PROXIES: Setting = Setting {
    name: "TRUSTED_PROXIES",
    value: "RANGES",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: LISTENING,
    help: "Addresses of proxies in front of the hub, such as 10.0.0.0/8, separated by commas; the hub reads \
        X-Forwarded-For, Forwarded and the PROXY protocol from them only, so that logs and limits have the client's \
        address. While this is not set, a private address that sends X-Forwarded-For or Forwarded is taken for a proxy, \
        and is exempt from the limits per address",
};

pub(crate) static PROXY_PROTOCOL: Setting = Setting {
    name: "PROXY_PROTOCOL",
    value: "PORTS",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: LISTENING,
    help: "Ports at which every connection from TRUSTED_PROXIES begins with a PROXY protocol header (version 1 or 2), \
        before TLS: PORT, ADMIN_PORT or MESH_PORT, separated by commas",
};

pub(crate) static CORS_ORIGIN: Setting = Setting {
    name: "CORS_ORIGIN",
    value: "ORIGINS",
    default: Preset::Found("ALLOWED_ORIGINS"),
    kind: Kind::Text,
    heading: LISTENING,
    help: "Web origins whose pages may read the HTTP endpoints, if they differ from ALLOWED_ORIGINS, in the same form",
};

pub(crate) static CORS_PRIVATE_NETWORK: Setting = Setting {
    name: "CORS_PRIVATE_NETWORK",
    value: "BOOL",
    default: Preset::Text("false"),
    kind: Kind::Switch,
    heading: LISTENING,
    help: "Allow public web pages of CORS_ORIGIN to read the HTTP endpoints of a hub in a private network \
           (Private Network Access)",
};

pub(crate) static PLAYGROUND: Setting = Setting {
    name: "PLAYGROUND",
    value: "BOOL",
    default: Preset::Text("true"),
    kind: Kind::Switch,
    heading: LISTENING,
    help: "Serve a page at / with which visitors can try out the hub in two browser tabs; programs always get JSON at \
        /",
};

pub(crate) static TLS_CERT: Setting = Setting {
    name: "TLS_CERT",
    value: "FILES",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TLS,
    help: "PEM files of the hub's certificates with their chains, separated by commas; with TLS_KEY, the hub speaks \
        TLS. The server name that the client sends selects the certificate; all other names get the first one. The hub \
        reloads changed files",
};

pub(crate) static TLS_KEY: Setting = Setting {
    name: "TLS_KEY",
    value: "FILES",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TLS,
    help: "PEM files of the private keys, in the order of TLS_CERT",
};

pub(crate) static TLS_PORTS: Setting = Setting {
    name: "TLS_PORTS",
    value: "PORTS",
    default: Preset::Text("PORT"),
    kind: Kind::Text,
    heading: TLS,
    help: "Ports that speak TLS: PORT, ADMIN_PORT or MESH_PORT, separated by commas",
};

pub(crate) static HTTP_REDIRECT_PORT: Setting = Setting {
    name: "HTTP_REDIRECT_PORT",
    value: "PORT",
    default: Preset::Nothing,
    kind: Kind::Number { noun: "a port", min: 0, max: 65_535 },
    heading: TLS,
    help: "Port without TLS that redirects clients to https and wss at PORT, such as 80 if PORT is 443",
};

pub(crate) static TLS_TICKET_KEY: Setting = Setting {
    name: "TLS_TICKET_KEY",
    value: "SECRET",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: TLS,
    help: "Secret of at least 32 characters; hubs with the same secret resume each other's TLS sessions; a hub without \
        this secret resumes only its own",
};

pub(crate) static TLS_ACME: Setting = Setting {
    name: "TLS_ACME",
    value: "NAMES",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TLS,
    help: "Host names of the hub, separated by commas: the hub orders a certificate for each name from an ACME \
        authority (TLS-ALPN-01), renews it, and accepts the authority's terms. PORT then defaults to 443, and HOST to \
        every address",
};

pub(crate) static TLS_ACME_DIR: Setting = Setting {
    name: "TLS_ACME_DIR",
    value: "DIR",
    default: Preset::Found("acme in $STATE_DIRECTORY or ~/.local/state/peerpigeon"),
    kind: Kind::Text,
    heading: TLS,
    help: "Directory for the account and the certificates of TLS_ACME; its files must survive restarts",
};

pub(crate) static TLS_ACME_URL: Setting = Setting {
    name: "TLS_ACME_URL",
    value: "URL",
    default: Preset::Text("https://acme-v02.api.letsencrypt.org/directory"),
    kind: Kind::Text,
    heading: TLS,
    help: "Directory URL of the ACME authority",
};

pub(crate) static TLS_ACME_CA: Setting = Setting {
    name: "TLS_ACME_CA",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TLS,
    help: "File with additional CA certificates (PEM) for connections to the ACME authority",
};

pub(crate) static TLS_ACME_EMAIL: Setting = Setting {
    name: "TLS_ACME_EMAIL",
    value: "ADDRESS",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TLS,
    help: "E-mail address for messages of the ACME authority",
};

pub(crate) static TLS_ACME_EAB_KID: Setting = Setting {
    name: "TLS_ACME_EAB_KID",
    value: "ID",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: TLS,
    help: "Key identifier for external account binding, which authorities such as ZeroSSL require; needs \
        TLS_ACME_EAB_HMAC, and is used only for the first order",
};

pub(crate) static TLS_ACME_EAB_HMAC: Setting = Setting {
    name: "TLS_ACME_EAB_HMAC",
    value: "KEY",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: TLS,
    help: "HMAC key of TLS_ACME_EAB_KID, in base64url as the authority shows it",
};

pub(crate) static MAX_CONNECTIONS: Setting = Setting {
    name: "MAX_CONNECTIONS",
    value: "COUNT",
    default: Preset::Number(DEFAULT_MAX_CONNECTIONS as u64),
    kind: Kind::Number { noun: "a number of connections", min: 1, max: 10_000_000 },
    heading: LIMITS,
    help: "Maximum number of open WebSockets of peers",
};

pub(crate) static MAX_CONNECTIONS_PER_ADDRESS: Setting = Setting {
    name: "MAX_CONNECTIONS_PER_ADDRESS",
    value: "COUNT",
    default: Preset::Found("512, but at most two thirds of MAX_CONNECTIONS, and at least 64"),
    kind: Kind::Number { noun: "a number of connections", min: 0, max: 10_000_000 },
    heading: LIMITS,
    help: "Maximum number of connections of one client address at PORT; 0 means no limit. An IPv6 /64 network counts \
        as one address",
};

pub(crate) static MAX_UNFINISHED_PER_ADDRESS: Setting = Setting {
    name: "MAX_UNFINISHED_PER_ADDRESS",
    value: "COUNT",
    default: Preset::Number(DEFAULT_ADDRESS_UNFINISHED as u64),
    kind: Kind::Number { noun: "a number of connections", min: 0, max: 10_000_000 },
    heading: LIMITS,
    help: "Maximum number of connections of one client address whose first request has not arrived; 0 means no limit",
};

pub(crate) static CONNECT_RATE_PER_ADDRESS: Setting = Setting {
    name: "CONNECT_RATE_PER_ADDRESS",
    value: "COUNT",
    default: Preset::Number(DEFAULT_ADDRESS_CONNECT_RATE as u64),
    kind: Kind::Number { noun: "a number of connections per second", min: 0, max: 1_000_000 },
    heading: LIMITS,
    help: "Connections per second that one client address may open at PORT; bursts of 8 s are allowed; 0 means no \
        limit",
};

pub(crate) static CONNECT_RATE: Setting = Setting {
    name: "CONNECT_RATE",
    value: "COUNT",
    default: Preset::Number(DEFAULT_CONNECT_RATE as u64),
    kind: Kind::Number { noun: "a number of connections per second", min: 0, max: 1_000_000 },
    heading: LIMITS,
    help: "Connections per second that each shard accepts at PORT; bursts of 2 s are allowed; 0 means no limit",
};

pub(crate) static MAX_MESSAGE_BYTES: Setting = Setting {
    name: "MAX_MESSAGE_BYTES",
    value: "BYTES",
    default: Preset::Number(DEFAULT_MAX_MESSAGE_BYTES as u64),
    kind: Kind::Number { noun: "a number of bytes", min: 1024, max: LARGEST_MAX_MESSAGE_BYTES as u64 },
    heading: LIMITS,
    help: "Maximum length of a message from a peer, in bytes",
};

pub(crate) static MAX_NETWORKS_PER_PEER: Setting = Setting {
    name: "MAX_NETWORKS_PER_PEER",
    value: "COUNT",
    default: Preset::Number(DEFAULT_MAX_NETWORKS_PER_PEER as u64),
    kind: Kind::Number { noun: "a number of networks", min: 1, max: 1024 },
    heading: LIMITS,
    help: "Maximum number of networks per peer",
};

pub(crate) static MAX_PEERS_PER_NETWORK: Setting = Setting {
    name: "MAX_PEERS_PER_NETWORK",
    value: "COUNT",
    default: Preset::Number(DEFAULT_MAX_PEERS_PER_NETWORK as u64),
    kind: Kind::Number { noun: "a number of peers", min: 1, max: 10_000_000 },
    heading: LIMITS,
    help: "Maximum number of peers per network",
};

pub(crate) static MESSAGE_RATE: Setting = Setting {
    name: "MESSAGE_RATE",
    value: "COUNT",
    default: Preset::Number(DEFAULT_MESSAGE_RATE as u64),
    kind: Kind::Number { noun: "a number of messages per second", min: 1, max: 1_000_000 },
    heading: LIMITS,
    help: "Messages per second that a peer may send; bursts of 25 s are allowed",
};

pub(crate) static MESSAGE_RATE_BYTES: Setting = Setting {
    name: "MESSAGE_RATE_BYTES",
    value: "BYTES",
    default: Preset::Number(DEFAULT_MESSAGE_RATE_BYTES),
    kind: Kind::Number { noun: "a number of bytes per second", min: 1024, max: LARGEST_MESSAGE_RATE_BYTES },
    heading: LIMITS,
    help: "Bytes per second that a peer may send; bursts of 25 s are allowed",
};

pub(crate) static ANNOUNCE_RATE_BYTES: Setting = Setting {
    name: "ANNOUNCE_RATE_BYTES",
    value: "BYTES",
    default: Preset::Number(DEFAULT_ANNOUNCE_RATE_BYTES),
    kind: Kind::Number { noun: "a number of bytes per second", min: 1024, max: LARGEST_MESSAGE_RATE_BYTES },
    heading: LIMITS,
    help: "Bytes of announcements per second that a peer may send; each announcement counts 4 KiB in addition to its \
        length; bursts of 16 s are allowed",
};

pub(crate) static EVENT_RATE_BYTES: Setting = Setting {
    name: "EVENT_RATE_BYTES",
    value: "BYTES",
    default: Preset::Number(DEFAULT_EVENT_RATE_BYTES),
    kind: Kind::Number { noun: "a number of bytes per second", min: 1024, max: LARGEST_MESSAGE_RATE_BYTES },
    heading: LIMITS,
    help: "Bytes per second that the hubs may send to other peers because of one peer's announcements; bursts of 25 s \
        are allowed",
};

pub(crate) static DISCOVER_RATE: Setting = Setting {
    name: "DISCOVER_RATE",
    value: "COUNT",
    default: Preset::Number(DEFAULT_DISCOVER_RATE as u64),
    kind: Kind::Number { noun: "a number of messages per second", min: 1, max: 1_000_000 },
    heading: LIMITS,
    help: "`discover` messages per second that a peer may send; bursts of 25 s are allowed",
};

pub(crate) static ERROR_RATE: Setting = Setting {
    name: "ERROR_RATE",
    value: "COUNT",
    default: Preset::Number(DEFAULT_ERROR_RATE as u64),
    kind: Kind::Number { noun: "a number of messages per second", min: 1, max: 1_000_000 },
    heading: LIMITS,
    help: "`error` messages per second that the hub sends to a peer; bursts of 5 s are allowed, further ones are \
           dropped",
};

pub(crate) static NETWORK_BUDGETS: Setting = Setting {
    name: "NETWORK_BUDGETS",
    value: "COUNT",
    default: Preset::Number(DEFAULT_NETWORK_BUDGETS as u64),
    kind: Kind::Number { noun: "a number of budgets", min: 0, max: 1_000_000 },
    heading: LIMITS,
    help: "Limit of the rates of all members of a network together, as a multiple of the limits of one peer; above it, \
        the hub refuses messages of members that have sent much; 0 means no limit",
};

/// The minimum is three ticks, because pings are due at every third of the timeout.
pub(crate) static PEER_TIMEOUT_MS: Setting = Setting {
    name: "PEER_TIMEOUT_MS",
    value: "MS",
    default: Preset::Number(300_000),
    kind: Kind::Number { noun: "a number of milliseconds", min: 3 * TICK.as_millis() as u64, max: DAY_MS },
    heading: LIMITS,
    help: "Milliseconds without data from a peer after which the hub removes it; unanswered pings remove it after 60 s \
        anyway, so only values below 60000 have an effect",
};

pub(crate) static DISCOVERY: Setting = Setting {
    name: "DISCOVERY",
    value: "MODE",
    default: Preset::Text("all"),
    kind: Kind::Text,
    heading: LIMITS,
    help: "Which members a new peer discovers: all, or closest:K (the K members with the closest ids plus four random \
           ones), which keeps the cost of a join constant; all hubs of a mesh must use the same value",
};

/// The minimum is two chunks of a roster, because a chunk is queued as a whole.
pub(crate) static SEND_QUEUE_FRAMES: Setting = Setting {
    name: "SEND_QUEUE_FRAMES",
    value: "COUNT",
    default: Preset::Number(DEFAULT_SEND_QUEUE_FRAMES as u64),
    kind: Kind::Number { noun: "a number of frames", min: 2 * ROSTER_CHUNK as u64, max: 16 * 1024 * 1024 },
    heading: LIMITS,
    help: "Maximum number of messages queued for one peer; above it, the hub closes the peer's connection",
};

pub(crate) static SEND_QUEUE_BYTES: Setting = Setting {
    name: "SEND_QUEUE_BYTES",
    value: "BYTES",
    default: Preset::Found("16 MiB, or half of SEND_BUDGET_BYTES if that is less"),
    kind: Kind::Number { noun: "a number of bytes", min: ROSTER_LOW_WATER_BYTES as u64, max: 4 << 30 },
    heading: LIMITS,
    help: "Maximum number of bytes queued for one peer",
};

pub(crate) static SEND_BUDGET_BYTES: Setting = Setting {
    name: "SEND_BUDGET_BYTES",
    value: "BYTES",
    default: Preset::Found(
        "512 MiB, or a sixth (in a mesh, an eighth) of the free memory at the start if that is less",
    ),
    kind: Kind::Number { noun: "a number of bytes", min: SEND_FLOOR_BYTES as u64, max: 1 << 40 },
    heading: LIMITS,
    help: "Maximum number of bytes queued for all peers together",
};

pub(crate) static RECEIVE_BUDGET_BYTES: Setting = Setting {
    name: "RECEIVE_BUDGET_BYTES",
    value: "BYTES",
    default: Preset::Found(
        "256 MiB, or a twelfth (in a mesh, a sixteenth) of the free memory at the start if that is less",
    ),
    kind: Kind::Number { noun: "a number of bytes", min: 64 * 1024, max: 1 << 40 },
    heading: LIMITS,
    help: "Maximum memory for incomplete messages of all peers together; beyond it, peers with large incomplete \
           messages are closed",
};

pub(crate) static ANNOUNCE_BUDGET_BYTES: Setting = Setting {
    name: "ANNOUNCE_BUDGET_BYTES",
    value: "BYTES",
    default: Preset::Found(
        "256 MiB, or a twelfth (in a mesh, a sixteenth) of the free memory at the start if that is less",
    ),
    kind: Kind::Number { noun: "a number of bytes", min: 64 * 1024, max: 1 << 40 },
    heading: LIMITS,
    help: "Maximum size of all stored announcements, in bytes; each hub of a mesh stores the announcements of all hubs",
};

pub(crate) static ICE_SERVERS: Setting = Setting {
    name: "ICE_SERVERS",
    value: "JSON",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: ICE,
    help: "STUN and TURN servers that every peer receives: a JSON array of RTCIceServer, such as \
        [{\"urls\":\"stun:stun.example.com\"}]",
};

pub(crate) static TURN_URLS: Setting = Setting {
    name: "TURN_URLS",
    value: "URLS",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: ICE,
    help: "URLs of a TURN server for which peers receive time-limited credentials, separated by commas: turn: or turns:",
};

pub(crate) static TURN_SECRET: Setting = Setting {
    name: "TURN_SECRET",
    value: "SECRET",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: ICE,
    help: "Secret shared with the TURN server: coturn's static-auth-secret, with use-auth-secret",
};

pub(crate) static TURN_SECRET_ALSO: Setting = Setting {
    name: "TURN_SECRET_ALSO",
    value: "SECRET",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: ICE,
    help: "Second secret, for replacing TURN_SECRET: peers receive a credential for each of the two",
};

pub(crate) static TURN_TTL: Setting = Setting {
    name: "TURN_TTL",
    value: "SECS",
    default: Preset::Number(3600),
    kind: Kind::Number { noun: "a number of seconds", min: 300, max: 604_800 },
    heading: ICE,
    help: "Seconds for which a TURN credential is valid; connected peers receive a new one after three quarters of \
        this time",
};

pub(crate) static IS_HUB: Setting = Setting {
    name: "IS_HUB",
    value: "BOOL",
    default: Preset::Found("true if BOOTSTRAP_HUBS, MESH_DNS or REDIS_URL is set, else false"),
    kind: Kind::Switch,
    heading: MESH,
    help: "Join a mesh of hubs: dial links to other hubs and accept links from them",
};

pub(crate) static HUB_ID: Setting = Setting {
    name: "HUB_ID",
    value: "HEX",
    default: Preset::Found("a random id"),
    kind: Kind::Text,
    heading: MESH,
    help: "Id of this hub: 40 hexadecimal digits, unique in the mesh",
};

pub(crate) static HUB_MESH_NAMESPACE: Setting = Setting {
    name: "HUB_MESH_NAMESPACE",
    value: "NAME",
    default: Preset::Text("pigeonhub-mesh"),
    kind: Kind::Text,
    heading: MESH,
    help: "Name of the mesh that this hub belongs to; hubs link only within one mesh",
};

pub(crate) static MESH_PRESENCE_BYTES: Setting = Setting {
    name: "MESH_PRESENCE_BYTES",
    value: "BYTES",
    default: Preset::Found(
        "128 KiB for each of MAX_CONNECTIONS, from 128 MiB to 1 GiB, but at most a sixteenth of the memory that the \
         process may use",
    ),
    kind: Kind::Number { noun: "a number of bytes", min: LEAST_PRESENCE_BYTES as u64, max: 1 << 40 },
    heading: MESH,
    help: "Maximum size of the data that this hub stores about the peers of all other hubs, in bytes; the peers of one \
        hub can use half of it",
};

pub(crate) static BOOTSTRAP_HUBS: Setting = Setting {
    name: "BOOTSTRAP_HUBS",
    value: "URLS",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "Hubs to dial: ws:// or wss:// URLs, separated by commas",
};

pub(crate) static MESH_TOKEN: Setting = Setting {
    name: "MESH_TOKEN",
    value: "TOKEN",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: MESH,
    help: "Token that hubs prove to each other, the same on every hub; without it, and without MESH_CERT and \
        MESH_CLIENT_CA, this hub neither dials nor accepts links",
};

pub(crate) static MESH_TOKEN_ALSO: Setting = Setting {
    name: "MESH_TOKEN_ALSO",
    value: "TOKEN",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: MESH,
    help: "Second token, for replacing MESH_TOKEN hub by hub: this hub accepts it from other hubs and does not send it",
};

pub(crate) static MESH_AUTH: Setting = Setting {
    name: "MESH_AUTH",
    value: "WHAT",
    default: Preset::Text("both"),
    kind: Kind::Text,
    heading: MESH,
    help: "How hubs show each other that they belong to the mesh: challenge (by proofs of MESH_TOKEN), both (hubs of \
        version 2.0.0 also receive and send the token itself), or certificate (this hub dials wss:// URLs by MESH_CERT, \
        and accepts proofs)",
};

pub(crate) static MESH_CERT: Setting = Setting {
    name: "MESH_CERT",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "PEM file of the certificate, with its chain, that this hub presents to hubs that it dials over wss://. Without \
        MESH_TOKEN, it replaces the token. The hub reloads a changed file",
};

pub(crate) static MESH_KEY: Setting = Setting {
    name: "MESH_KEY",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "PEM file of the private key of MESH_CERT",
};

pub(crate) static MESH_CLIENT_CA: Setting = Setting {
    name: "MESH_CLIENT_CA",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "PEM file of CA certificates: a hub that presents a certificate of one of these CAs at MESH_PORT needs no \
        MESH_TOKEN. MESH_PORT must speak TLS (TLS_PORTS). The hub reloads a changed file",
};

pub(crate) static MESH_INSECURE: Setting = Setting {
    name: "MESH_INSECURE",
    value: "BOOL",
    default: Preset::Text("false"),
    kind: Kind::Switch,
    heading: MESH,
    help: "Dial and accept links without MESH_TOKEN; anyone who can reach the hub can then pose as a hub",
};

pub(crate) static MESH_DNS: Setting = Setting {
    name: "MESH_DNS",
    value: "HOST:PORT",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "DNS name whose addresses are hubs to dial, such as that of a headless Service. The hub resolves it \
        repeatedly. The default port is MESH_PORT; wss://host:port uses TLS",
};

pub(crate) static MESH_ADVERTISE: Setting = Setting {
    name: "MESH_ADVERTISE",
    value: "URL",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "ws:// or wss:// URL at which other hubs can dial this hub; it is sent to all hubs of the mesh",
};

pub(crate) static PUBLIC_URL: Setting = Setting {
    name: "PUBLIC_URL",
    value: "URL",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "ws:// or wss:// URL at which clients reach this hub; a hub that stops sends its peers the PUBLIC_URL of \
        every other hub",
};

pub(crate) static MESH_ADMIN_URL: Setting = Setting {
    name: "MESH_ADMIN_URL",
    value: "URL",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "http:// or https:// URL at which operators reach the pages of this hub; the live views of the other hubs \
        link to it",
};

pub(crate) static MESH_CA: Setting = Setting {
    name: "MESH_CA",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "File with additional CA certificates (PEM) for wss:// links and rediss://",
};

pub(crate) static MESH_LEGACY: Setting = Setting {
    name: "MESH_LEGACY",
    value: "LIST",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "Go hubs, which are trusted without a token, separated by commas: URLs that are also in BOOTSTRAP_HUBS, and \
        address ranges such as 10.0.0.0/8. Every WebSocket without a subprotocol from such a range counts as a Go \
        hub",
};

pub(crate) static MESH_PORT: Setting = Setting {
    name: "MESH_PORT",
    value: "PORT",
    default: Preset::Found("PORT"),
    kind: Kind::Number { noun: "a port", min: 0, max: 65_535 },
    heading: MESH,
    help: "Port that accepts links; if it differs from PORT, it accepts only links and PORT accepts none",
};

pub(crate) static REDIS_URL: Setting = Setting {
    name: "REDIS_URL",
    value: "URL",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: MESH,
    help: "Redis server that connects hubs: redis://[user:password@]host[:port], rediss:// with TLS, redis+cluster:// \
        or rediss+cluster:// for a cluster",
};

/// Settings without effect while the hub has no links.
pub(crate) static NEEDS_LINKS: [&Setting; 12] = [
    &MESH_TOKEN,
    &MESH_TOKEN_ALSO,
    &MESH_AUTH,
    &MESH_CERT,
    &MESH_KEY,
    &MESH_CLIENT_CA,
    &MESH_INSECURE,
    &MESH_ADVERTISE,
    &MESH_ADMIN_URL,
    &MESH_CA,
    &MESH_LEGACY,
    &MESH_PORT,
];

pub(crate) static CLEANUP_INTERVAL_MS: Setting = Setting {
    name: "CLEANUP_INTERVAL_MS",
    value: "MS",
    default: Preset::Number(30_000),
    kind: Kind::Number { noun: "a number of milliseconds", min: 1, max: DAY_MS },
    heading: OPERATION,
    help: "Has no effect, because peers are removed at once. The hub accepts this setting for compatibility with the \
        Go hub",
};

pub(crate) static DRAIN_SECS: Setting = Setting {
    name: "DRAIN_SECS",
    value: "SECS",
    default: Preset::Number(10),
    kind: Kind::Number { noun: "a number of seconds", min: 0, max: 3600 },
    heading: OPERATION,
    help: "Time over which a stopping hub closes its connections, so that peers do not all reconnect at once",
};

pub(crate) static READY_WHEN_FULL: Setting = Setting {
    name: "READY_WHEN_FULL",
    value: "BOOL",
    default: Preset::Text("false"),
    kind: Kind::Switch,
    heading: OPERATION,
    help: "Answer 200 at /readyz even while the hub is full; by default a full hub answers 503, so that load balancers \
        send new peers to other hubs",
};

pub(crate) static LOG_FORMAT: Setting = Setting {
    name: "LOG_FORMAT",
    value: "FORMAT",
    default: Preset::Text("auto"),
    kind: Kind::Text,
    heading: OPERATION,
    help: "Log format: json, human, or auto (human on a terminal, json elsewhere)",
};

pub(crate) static LOG_LEVEL: Setting = Setting {
    name: "LOG_LEVEL",
    value: "FILTER",
    default: Preset::Text("info"),
    kind: Kind::Text,
    heading: OPERATION,
    help: "Log level: off, error, warn, info, debug or trace, or a filter such as shard=debug,info; RUST_LOG is used \
        if it is unset",
};

pub(crate) static OTEL_EXPORTER_OTLP_ENDPOINT: Setting = Setting {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    value: "URL",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: OPERATION,
    help: "URL of an OpenTelemetry collector, such as http://collector:4318: the hub sends it traces of signals between \
        hubs, joins and links (OTLP over HTTP); unset means no traces",
};

pub(crate) static OTEL_EXPORTER_OTLP_HEADERS: Setting = Setting {
    name: "OTEL_EXPORTER_OTLP_HEADERS",
    value: "PAIRS",
    default: Preset::Nothing,
    kind: Kind::Secret,
    heading: OPERATION,
    help: "Headers of requests to the collector: name=value pairs separated by commas, with percent-encoded values, \
        such as Authorization=Bearer%20TOKEN",
};

pub(crate) static OTEL_EXPORTER_OTLP_CERTIFICATE: Setting = Setting {
    name: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    value: "FILE",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: OPERATION,
    help: "File with additional CA certificates (PEM) for an https:// collector",
};

pub(crate) static OTEL_TRACES_SAMPLER_ARG: Setting = Setting {
    name: "OTEL_TRACES_SAMPLER_ARG",
    value: "SHARE",
    default: Preset::Text("0.01"),
    kind: Kind::Text,
    heading: OPERATION,
    help: "Share of signals between hubs and of joins that are traced, from 0 (no traces) to 1; links are always traced",
};

pub(crate) static OTEL_SERVICE_NAME: Setting = Setting {
    name: "OTEL_SERVICE_NAME",
    value: "NAME",
    default: Preset::Text("peerpigeon"),
    kind: Kind::Text,
    heading: OPERATION,
    help: "Name of the service in traces, the same on all hubs",
};

pub(crate) static OTEL_RESOURCE_ATTRIBUTES: Setting = Setting {
    name: "OTEL_RESOURCE_ATTRIBUTES",
    value: "PAIRS",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: OPERATION,
    help: "Attributes of all spans of the hub, such as deployment.environment.name=production, separated by commas",
};

pub(crate) static FLY_APP_NAME: Setting = Setting {
    name: "FLY_APP_NAME",
    value: "",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: OPERATION,
    help: "Name of the Fly.io app, shown in /metrics?format=json",
};

pub(crate) static FLY_REGION: Setting = Setting {
    name: "FLY_REGION",
    value: "",
    default: Preset::Nothing,
    kind: Kind::Text,
    heading: OPERATION,
    help: "Fly.io region, shown in /metrics?format=json",
};

/// All settings, in the order of the documentation.
pub(crate) static ALL: [&Setting; 93] = [
    &HOST,
    &PORT,
    &ADMIN_HOST,
    &ADMIN_PORT,
    &ADMIN_TOKEN,
    &SHARDS,
    &AUTH_TOKEN,
    &JWT_SECRET,
    &JWT_PUBLIC_KEY,
    &JWT_JWKS,
    &JWT_CA,
    &JWT_AUDIENCE,
    &JWT_ISSUER,
    &PEER_ID_PROOF,
    &PEER_ID_HOSTS,
    &ALLOWED_ORIGINS,
    &CORS_ORIGIN,
    &CORS_PRIVATE_NETWORK,
    &TRUSTED_PROXIES,
    &PROXY_PROTOCOL,
    &PLAYGROUND,
    &TLS_CERT,
    &TLS_KEY,
    &TLS_PORTS,
    &HTTP_REDIRECT_PORT,
    &TLS_TICKET_KEY,
    &TLS_ACME,
    &TLS_ACME_DIR,
    &TLS_ACME_URL,
    &TLS_ACME_CA,
    &TLS_ACME_EMAIL,
    &TLS_ACME_EAB_KID,
    &TLS_ACME_EAB_HMAC,
    &MAX_CONNECTIONS,
    &MAX_CONNECTIONS_PER_ADDRESS,
    &MAX_UNFINISHED_PER_ADDRESS,
    &CONNECT_RATE_PER_ADDRESS,
    &CONNECT_RATE,
    &MAX_MESSAGE_BYTES,
    &MAX_NETWORKS_PER_PEER,
    &MAX_PEERS_PER_NETWORK,
    &MESSAGE_RATE,
    &MESSAGE_RATE_BYTES,
    &ANNOUNCE_RATE_BYTES,
    &EVENT_RATE_BYTES,
    &DISCOVER_RATE,
    &ERROR_RATE,
    &NETWORK_BUDGETS,
    &DISCOVERY,
    &PEER_TIMEOUT_MS,
    &SEND_QUEUE_FRAMES,
    &SEND_QUEUE_BYTES,
    &SEND_BUDGET_BYTES,
    &RECEIVE_BUDGET_BYTES,
    &ANNOUNCE_BUDGET_BYTES,
    &ICE_SERVERS,
    &TURN_URLS,
    &TURN_SECRET,
    &TURN_SECRET_ALSO,
    &TURN_TTL,
    &IS_HUB,
    &HUB_ID,
    &HUB_MESH_NAMESPACE,
    &MESH_PRESENCE_BYTES,
    &BOOTSTRAP_HUBS,
    &MESH_TOKEN,
    &MESH_TOKEN_ALSO,
    &MESH_AUTH,
    &MESH_CERT,
    &MESH_KEY,
    &MESH_CLIENT_CA,
    &MESH_INSECURE,
    &MESH_DNS,
    &MESH_ADVERTISE,
    &MESH_ADMIN_URL,
    &PUBLIC_URL,
    &MESH_CA,
    &MESH_LEGACY,
    &MESH_PORT,
    &REDIS_URL,
    &DRAIN_SECS,
    &READY_WHEN_FULL,
    &LOG_FORMAT,
    &LOG_LEVEL,
    &OTEL_EXPORTER_OTLP_ENDPOINT,
    &OTEL_EXPORTER_OTLP_HEADERS,
    &OTEL_EXPORTER_OTLP_CERTIFICATE,
    &OTEL_TRACES_SAMPLER_ARG,
    &OTEL_SERVICE_NAME,
    &OTEL_RESOURCE_ATTRIBUTES,
    &CLEANUP_INTERVAL_MS,
    &FLY_APP_NAME,
    &FLY_REGION,
];

/// The settings that `-h` shows, which a first hub or a first mesh needs. `--help` shows all settings.
static COMMON: [&Setting; 16] = [
    &HOST,
    &PORT,
    &ADMIN_PORT,
    &ADMIN_TOKEN,
    &AUTH_TOKEN,
    &ALLOWED_ORIGINS,
    &TRUSTED_PROXIES,
    &TLS_CERT,
    &TLS_KEY,
    &TLS_ACME,
    &MAX_CONNECTIONS,
    &BOOTSTRAP_HUBS,
    &MESH_TOKEN,
    &MESH_DNS,
    &DRAIN_SECS,
    &LOG_LEVEL,
];

impl Setting {
    /// The flag without its dashes. `None` if there is only a variable.
    pub(crate) fn flag(&self) -> Option<String> {
        (!self.value.is_empty()).then(|| self.name.to_ascii_lowercase().replace('_', "-"))
    }

    /// The help text, with a default that clap cannot show.
    fn help(&self) -> String {
        match self.default {
            Preset::Found(words) => format!("{} [default: {words}]", self.help),
            Preset::Nothing | Preset::Number(_) | Preset::Text(_) => self.help.to_owned(),
        }
    }

    /// The help text for `-h`, which is the full text up to its first pause, such as a colon.
    fn short_help(&self) -> &'static str {
        let pauses = [": ", "; ", ", so that ", ", which ", ". "].into_iter();
        let ends = pauses.flat_map(|pause| self.help.match_indices(pause)).map(|(end, _)| end);
        // A pause within code, which is between backticks, does not count.
        let end = ends.filter(|&end| self.help[..end].matches('`').count().is_multiple_of(2)).min();
        &self.help[..end.unwrap_or(self.help.len())]
    }

    /// The fixed default as text.
    pub(crate) fn default_text(&self) -> Option<String> {
        match self.default {
            Preset::Found(_) | Preset::Nothing => None,
            Preset::Number(number) => Some(number.to_string()),
            Preset::Text(text) => Some(text.to_owned()),
        }
    }

    /// The default of a number setting. 0 for any other setting.
    pub(crate) fn default_number(&self) -> u64 {
        match self.default {
            Preset::Number(number) => number,
            Preset::Found(_) | Preset::Nothing | Preset::Text(_) => 0,
        }
    }

    /// The clap argument. clap only shows the variable and the default, and [`Flags`] explains why.
    fn arg(&self) -> Option<Arg> {
        let mut arg = Arg::new(self.name)
            .long(self.flag()?)
            .value_name(self.value)
            .help(self.short_help())
            .long_help(self.help())
            .hide_short_help(!COMMON.iter().any(|common| common.name == self.name))
            .help_heading(self.heading)
            .value_parser(ValueParser::new(OsStringValueParser::new()))
            .action(ArgAction::Set)
            .env(self.name)
            .hide_env_values(true);
        if let Some(default) = self.default_text() {
            arg = arg.default_value(default);
        }
        if matches!(self.kind, Kind::Switch) {
            arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        }
        Some(arg)
    }
}

/// The flags of a hub, not validated.
///
/// clap parses the flags, and shows variables and defaults in `--help`. [`Config::resolve`](super::Config::resolve)
/// applies variables and defaults, so that an invalid flag and an invalid variable cause the same error.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub(super) given: BTreeMap<&'static str, std::ffi::OsString>,
    /// Whether to print the configuration instead of serving.
    pub print_config: bool,
}

/// The flags that say where a hub listens, for tools that probe a hub on the same machine.
#[derive(Clone, Debug, Default)]
pub struct ListenFlags(pub(super) Flags);

/// The settings of [`ListenFlags`], each with its help text.
static PLACE: [(&Setting, &str); 9] = [
    (&HOST, "Address or host name that the hub listens on"),
    (&PORT, "Port that the hub listens on"),
    (&ADMIN_HOST, "Address or host name of the operators' pages, if it differs from HOST"),
    (
        &ADMIN_PORT,
        "Port of the operators' pages; if set, the tool sends its requests there, since this port also answers while \
            the hub drains",
    ),
    (&TLS_CERT, "Certificate files of the hub, if it speaks TLS"),
    (&TLS_ACME, "Host names of the hub, if it orders its certificates"),
    (&TLS_PORTS, "Ports that speak TLS"),
    (&TRUSTED_PROXIES, "Address ranges of the hub's proxies"),
    (
        &PROXY_PROTOCOL,
        "Ports at which proxies send a PROXY protocol header; the probe sends one if its own address is in \
            TRUSTED_PROXIES",
    ),
];

/// The argument of a tool. The help of a tool's argument is short, so that `-h` and `--help` show the same.
fn tool_arg(setting: &Setting) -> Option<Arg> {
    Some(setting.arg()?.long_help(None).hide_short_help(false).help_heading(None))
}

impl clap::Args for ListenFlags {
    fn augment_args(command: Command) -> Command {
        let args = PLACE.iter().filter_map(|(setting, help)| Some(tool_arg(setting)?.help(*help)));
        command.args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ListenFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut place = Self::default();
        place.update_from_arg_matches(matches)?;
        Ok(place)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.take(matches, PLACE.iter().map(|(setting, _)| *setting));
        Ok(())
    }
}

impl Flags {
    /// Takes the values of these settings from the command line.
    fn take(&mut self, matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) {
        for setting in settings.filter(|setting| setting.flag().is_some()) {
            if matches.value_source(setting.name) == Some(ValueSource::CommandLine)
                && let Some(value) = matches.get_one::<std::ffi::OsString>(setting.name)
            {
                self.given.insert(setting.name, value.clone());
            }
        }
    }
}

const PRINT_CONFIG: &str = "print-config";

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let print_config = Arg::new(PRINT_CONFIG)
            .long(PRINT_CONFIG)
            .action(ArgAction::SetTrue)
            .help_heading(OPERATION)
            .help("Print the value of every setting and where it comes from, then exit");
        command.args(ALL.iter().filter_map(|setting| setting.arg())).arg(print_config)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.take(matches, ALL.into_iter());
        self.print_config |= matches.get_flag(PRINT_CONFIG);
        Ok(())
    }
}
