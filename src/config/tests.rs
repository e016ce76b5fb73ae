use std::ffi::OsString;
use std::net::Ipv6Addr;

use clap::{Command, FromArgMatches};
use proto::limits::LEAST_ADMIN_TOKEN_BYTES;

use super::*;

fn flags(said: &[&str]) -> Flags {
    let command = <Flags as clap::Args>::augment_args(Command::new("peerpigeon").no_binary_name(true));
    let matches = command.try_get_matches_from(said).unwrap();
    Flags::from_arg_matches(&matches).unwrap()
}

/// The single error of these variables.
fn refusal(pairs: &[(&str, &str)]) -> String {
    let refusals = Config::from_pairs(pairs).unwrap_err();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals[0].to_string()
}

fn shown(config: &Config, name: &str) -> String {
    let text = config.describe();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).to_owned()
}

/// The shown value of a setting, in a hub that may have links.
fn set(said: &[(&str, &str)], name: &str) -> String {
    let said = [said, &[("MESH_INSECURE", "true")]].concat();
    let config = Config::from_pairs(&said).unwrap_or_else(|refusals| panic!("{said:?}: {refusals:?}"));
    shown(&config, name)
}

const ID: &str = "0123456789abcdef0123456789ABCDEF01234567";

/// Each entry has a variable, valid values and invalid values.
const VALUES: &[(&str, &[&str], &[&str])] = &[
    (
        "HOST",
        &["127.0.0.1", "0.0.0.0", "::", "::1", "[::1]", "localhost", "LocalHost"],
        &["http://a", "127.0.0.1:80", "a/b", "no such host", "name.invalid"],
    ),
    ("PORT", &["0", "1", "8080", "65535", "+80", " 80 "], &["65536", "-1", "http", "8080.0", "tcp://10.0.0.1:80"]),
    ("ADMIN_HOST", &["localhost", "127.0.0.1", "::1", "[::1]", "0.0.0.0"], &["http://a", "a b"]),
    ("ADMIN_PORT", &["0", "8080", "65535"], &["65536", "x"]),
    ("ADMIN_TOKEN", &["x", "a-very-long.token_with~signs+/="], &["two words", "ümlaut", "<set>"]),
    ("SHARDS", &["1", "256"], &["0", "257", "two"]),
    ("AUTH_TOKEN", &["x", "a-very-long.token_with~signs+/="], &["two words", "ümlaut", "line\nbreak", "<set>"]),
    (
        "JWT_SECRET",
        &["0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef,0123456789abcdef0123456789abcdeF"],
        &["short", "ümlaut-0123456789abcdef0123456789abcdef", "<set>", "file:/no/such/file"],
    ),
    (
        "JWT_PUBLIC_KEY",
        &["src/config/tokens/ed25519.pem"],
        &["/no/such/file", "Cargo.toml", "-----BEGIN PUBLIC KEY-----"],
    ),
    ("JWT_JWKS", &["https://id.example/keys"], &["http://id.example/keys", "Cargo.toml", "https://"]),
    ("JWT_CA", &["src/config/mesh/certificate.pem"], &["/no/such/file", "Cargo.toml", "src"]),
    ("JWT_AUDIENCE", &["hub", "https://hub.example, hub"], &[]),
    ("JWT_ISSUER", &["https://id.example"], &[]),
    ("PEER_ID_PROOF", &["off", "OFF"], &["offered", "required", "maybe"]),
    ("PEER_ID_HOSTS", &["hub.example", "localhost:8080, [::1]:8080"], &["wss://hub.example", "a b", "hub.example/ws"]),
    (
        "ALLOWED_ORIGINS",
        &["*", "null", "https://a.example, https://*.example.com", "http://localhost:3000,capacitor://localhost"],
        &["https://a.example/", "a.example", "https://a,https://*", "https://*example.com", ","],
    ),
    (
        "CORS_ORIGIN",
        &[
            "*",
            "null",
            "https://a.example",
            "http://localhost:3000",
            "capacitor://localhost",
            "https://a.example, https://*.b.example",
        ],
        &["https://a.example/", "a.example", "https://", "://a", "https://a b", "https://*", "https://*a.example"],
    ),
    ("CORS_PRIVATE_NETWORK", &["true", "0"], &["maybe"]),
    (
        "TRUSTED_PROXIES",
        &["10.0.0.0/8, 192.0.2.1,fd00::/8", "::1", ","],
        &["10.0.0.0/33", "proxy", "10.0.0.1:80", "10.0.0.1 10.0.0.2"],
    ),
    // The tests of `config/door.rs` check this setting together with TRUSTED_PROXIES.
    ("PROXY_PROTOCOL", &[","], &["PORT", "443", "PORT ADMIN_PORT"]),
    ("PLAYGROUND", &["true", "0"], &["maybe"]),
    // `config/tls/tests.rs` checks the contents and the number of the files.
    ("TLS_CERT", &[","], &[]),
    ("TLS_KEY", &[" , "], &[]),
    ("TLS_PORTS", &["PORT", "port, ADMIN_PORT,MESH_PORT,"], &["443", "PORTS", "PORT ADMIN_PORT"]),
    // This setting needs TLS: `tests/it/sockets.rs` has valid values.
    ("HTTP_REDIRECT_PORT", &[" "], &["80", "65536", "-1", "x"]),
    (
        "TLS_TICKET_KEY",
        &["0123456789abcdef0123456789abcdef"],
        &["0123456789abcdef", "two words, and long enough for a secret", "<set>"],
    ),
    // TLS_ACME also needs a directory: the tests of `config/acme.rs` check it.
    ("TLS_ACME", &[","], &["https://hub.example.com", "*.example.com", "10.0.0.1"]),
    ("TLS_ACME_DIR", &["/var/lib/peerpigeon", "acme"], &[]),
    ("TLS_ACME_URL", &["https://ca.example:9000/acme/directory"], &["http://ca.example/dir", "ca.example", "https://"]),
    ("TLS_ACME_CA", &["src/config/mesh/certificate.pem"], &["/no/such/file", "Cargo.toml", "src"]),
    ("TLS_ACME_EMAIL", &["ops@example.com", "mailto:a.b@c.example"], &["ops", "a@b@c", "a b@c.example", "@c.example"]),
    // TLS_ACME_EAB_KID and TLS_ACME_EAB_HMAC are only valid together. `config/acme.rs` has valid values.
    ("TLS_ACME_EAB_KID", &[" "], &[]),
    ("TLS_ACME_EAB_HMAC", &[" "], &["no key", "a"]),
    ("MAX_CONNECTIONS", &["1", "10000000"], &["0", "10000001", "many", "-5"]),
    ("MAX_CONNECTIONS_PER_ADDRESS", &["0", "1", "10000000"], &["10000001", "many", "-5"]),
    ("MAX_UNFINISHED_PER_ADDRESS", &["0", "1", "10000000"], &["10000001", "many", "-5"]),
    ("CONNECT_RATE_PER_ADDRESS", &["0", "1", "1000000"], &["1000001", "many", "-5"]),
    ("CONNECT_RATE", &["0", "1", "1000000"], &["1000001", "many", "-5"]),
    ("MAX_MESSAGE_BYTES", &["1024", "1048576"], &["0", "1023", "67108865", "1MiB"]),
    ("MAX_NETWORKS_PER_PEER", &["1", "1024"], &["0", "1025", "x"]),
    ("MAX_PEERS_PER_NETWORK", &["1", "10000000"], &["0", "10000001", "x"]),
    ("MESSAGE_RATE", &["1", "1000000"], &["0", "1000001", "x"]),
    ("MESSAGE_RATE_BYTES", &["1024", "1073741824"], &["1023", "1073741825", "x"]),
    ("ANNOUNCE_RATE_BYTES", &["1024", "1073741824"], &["1023", "1073741825", "x"]),
    ("EVENT_RATE_BYTES", &["1024", "1073741824"], &["1023", "1073741825", "x"]),
    ("DISCOVER_RATE", &["1", "1000000"], &["0", "1000001", "x"]),
    ("ERROR_RATE", &["1", "1000000"], &["0", "1000001", "x"]),
    ("NETWORK_BUDGETS", &["0", "1", "1000000"], &["1000001", "-1", "x"]),
    ("DISCOVERY", &["all", "closest:1", "closest:64"], &["some", "closest", "closest:0", "closest:65", "closest:x"]),
    ("PEER_TIMEOUT_MS", &["300", "300000", "86400000"], &["0", "299", "86400001", "5m"]),
    ("SEND_QUEUE_FRAMES", &["256", "16777216"], &["0", "255", "x"]),
    ("SEND_QUEUE_BYTES", &["1050624", "16777216"], &["0", "65535", "99999999999999999999", "x"]),
    ("SEND_BUDGET_BYTES", &["16777216"], &["0", "262143", "x"]),
    ("RECEIVE_BUDGET_BYTES", &["65536", "16777216"], &["0", "65535", "x"]),
    ("ANNOUNCE_BUDGET_BYTES", &["65536", "16777216"], &["0", "-1", "x"]),
    (
        "ICE_SERVERS",
        &[
            "[]",
            r#"[{"urls":"stun:s.example:3478"},{"urls":["turn:t?transport=udp"],"username":"u","credential":"c"}]"#,
        ],
        &[
            "stun:s",
            "{}",
            "[{}]",
            r#"[{"urls":[]}]"#,
            r#"[{"urls":"http://s"}]"#,
            r#"[{"urls":"turn:t","username":1}]"#,
        ],
    ),
    (
        "TURN_URLS",
        &["turn:t.example", "turns:t:443?transport=tcp,turn:[::1]:3478"],
        &[
            "stun:s",
            "turn://t",
            "turn:",
            "turn:u@t",
            "turn:t?transport=x",
            "turn:a,turn:b,turn:c,turn:d,turn:e,turn:f,turn:g,turn:h,turn:i",
        ],
    ),
    ("TURN_SECRET", &["x"], &["two words", "<set>"]),
    ("TURN_SECRET_ALSO", &["x"], &["two words", "<set>"]),
    ("TURN_TTL", &["300", "86400", "604800"], &["0", "299", "604801", "1h"]),
    (
        "IS_HUB",
        &["true", "TRUE", "True", "T", "t", "1", "yes", "on", "false", "FALSE", "F", "0", "no", "Off"],
        &["maybe", "2", "truee"],
    ),
    ("HUB_ID", &[ID], &["x", "0123", "0123456789abcdef0123456789abcdef0123456g"]),
    ("HUB_MESH_NAMESPACE", &["pigeonhub-mesh", "x", "größer"], &["two words", "tab\there"]),
    ("MESH_PRESENCE_BYTES", &["1048576", "1099511627776"], &["0", "1048575", "1099511627777", "x"]),
    (
        "BOOTSTRAP_HUBS",
        &["ws://a", "wss://a.example:9000,ws://[::1]:8080/x", " ws://a , ,ws://b,", ","],
        &["http://a", "a:8080", "ws://", "ws://a,nonsense", "ws://a b"],
    ),
    ("MESH_TOKEN", &["x", "a-very-long.token_with~signs+/="], &["two words", "ümlaut", "<set>"]),
    ("MESH_TOKEN_ALSO", &["x"], &["two words", "<set>"]),
    // The value `certificate` and the next settings need files. src/config/mesh/tests.rs checks them.
    ("MESH_AUTH", &["both", "challenge"], &["none", "bearer", "Both", "certificate"]),
    ("MESH_CERT", &[], &[]),
    ("MESH_KEY", &[], &[]),
    ("MESH_CLIENT_CA", &[], &[]),
    ("MESH_INSECURE", &["true", "0"], &["maybe"]),
    (
        "MESH_DNS",
        &[
            "hubs",
            "hubs.default.svc:8080",
            "wss://hubs.example:443",
            "ws://hubs",
            "[::1]:80",
            "10.0.0.1",
            "wss://hubs/",
        ],
        &[
            "http://hubs",
            "hubs:0",
            "hubs:port",
            "hubs:70000",
            "user@hubs",
            "two hubs",
            "hubs/path",
            "a,b",
            "wss://",
            ":80",
        ],
    ),
    (
        "MESH_ADVERTISE",
        &["ws://10.0.0.1:8080", "wss://a.example/ws", "ws://[::1]:1/"],
        &["a:80", "http://a", "ws://a,ws://b", "ws://user:pass@a", "wss://a?token=x", "ws://"],
    ),
    (
        "MESH_ADMIN_URL",
        &["http://10.0.0.1:9090", "https://hub.example/", "https://[::1]:1"],
        &[
            "hub.example",
            "wss://hub.example",
            "https://hub.example/a",
            "https://u:p@a",
            "https://a?token=x",
            "https://",
        ],
    ),
    (
        "PUBLIC_URL",
        &["wss://hub.example", "wss://hub.example/ws"],
        &["https://hub.example", "hub.example", "wss://hub.example?token=x"],
    ),
    ("MESH_CA", &["src/config/mesh/certificate.pem"], &["/no/such/file", "Cargo.toml", "src"]),
    (
        "MESH_LEGACY",
        &["ws://a:8080", "10.0.0.0/8", "ws://a, 10.1.2.3 ,fd00::/8,", ","],
        &["a:8080", "10.0.0.0/33", "http://a", "ws://a 10.0.0.0/8"],
    ),
    ("MESH_PORT", &["0", "9001", "65535"], &["65536", "-1", "x"]),
    (
        "REDIS_URL",
        &["redis://localhost", "rediss://user:pass@a:6380/1", "redis+cluster://a:1,b:2", "redis://a?protocol=resp3"],
        &["localhost:6379", "http://a", "redis://", "redis://user:pass@", "redis://a b", "redis://a,,"],
    ),
    ("DRAIN_SECS", &["0", "10", "3600"], &["-1", "3601", "10s"]),
    ("READY_WHEN_FULL", &["true", "0"], &["maybe"]),
    ("LOG_FORMAT", &["auto", "json", "human", "JSON"], &["xml", "text"]),
    (
        "LOG_LEVEL",
        &["off", "info", "WARN", "trace", "shard=debug,info", "peerpigeon::pages=trace", "info,[{peer}]=debug"],
        &["inof", "verbose", "shard=loud", "3", "info,"],
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &["http://collector:4318", "https://collector", "https://collector/otlp/", "http://[::1]:4318/v1/traces"],
        &[
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http://c:x",
            "http://u:p@c",
            "http://c?a=b",
            "ftp://c",
        ],
    ),
    (
        "OTEL_EXPORTER_OTLP_HEADERS",
        &["Authorization=Bearer%20token", "a=1, b=2", "a=", "a=1,,b=2"],
        &["token", "=1", "a=%", "a=%0A", "a b=1"],
    ),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", &["src/config/mesh/certificate.pem"], &["/no/such/file", "Cargo.toml", "src"]),
    ("OTEL_TRACES_SAMPLER_ARG", &["0", "0.01", "1", "1e-6"], &["-0.1", "1.1", "1%", "NaN", "x"]),
    ("OTEL_SERVICE_NAME", &["peerpigeon", "any thing"], &[]),
    ("OTEL_RESOURCE_ATTRIBUTES", &["a=1,b=2", "service.name=x%2Cy"], &["a", "=1", "a=%zz"]),
    ("CLEANUP_INTERVAL_MS", &["1", "30000"], &["0", "x", "86400001"]),
    ("FLY_APP_NAME", &["pigeonhub-b", "any thing"], &[]),
    ("FLY_REGION", &["fra"], &[]),
];

#[test]
fn the_table_of_values_covers_every_setting() {
    let tested: Vec<_> = VALUES.iter().map(|(name, ..)| *name).collect();
    let known: Vec<_> = settings::ALL.iter().map(|setting| setting.name).collect();
    assert_eq!(tested, known);
}

#[test]
fn allowed_values_are_accepted() {
    for (name, good, _) in VALUES {
        for value in *good {
            set(&[(name, value)], name);
        }
    }
}

/// Whether an error has a colon followed by an instruction.
fn says_what_to_do(refusal: &str) -> bool {
    let verbs = ["use ", "set ", "Set ", "unset ", "name ", "percent-encode ", "remove "];
    let advice = refusal.rsplit_once(": ").map_or("", |(_, advice)| advice);
    verbs.iter().any(|verb| advice.starts_with(verb)) || refusal.contains(". Set ")
}

#[test]
fn invalid_values_are_refused_with_name_and_advice() {
    for (name, _, bad) in VALUES {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        for value in *bad {
            let refusal = refusal(&[(name, value)]);
            assert!(refusal.starts_with(&format!("{name} ({flag}): ")), "{name}={value}: {refusal}");
            assert!(!refusal.contains('\n'), "{name}={value}: {refusal}");
            assert!(says_what_to_do(&refusal), "{name}={value}: {refusal}");
        }
    }
}

#[test]
fn a_flag_and_its_variable_have_the_same_errors() {
    for (name, good, bad) in VALUES.iter().filter(|(name, ..)| !name.starts_with("FLY_")) {
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        for value in *good {
            let flags = flags(&[&format!("{flag}={value}")]);
            let trusting = |name: &str| (name == "MESH_INSECURE").then(|| "true".into());
            let config = Config::resolve(&flags, &trusting).unwrap();
            assert_eq!(shown(&config, name), set(&[(name, value)], name), "{flag}={value}");
        }
        for value in *bad {
            let flags = flags(&[&format!("{flag}={value}")]);
            let refusals = Config::resolve(&flags, &|_| None).unwrap_err();
            assert_eq!(refusals[0].to_string(), refusal(&[(name, value)]), "{flag}={value}");
        }
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let unset = Config::from_pairs(&[("HUB_ID", ID)]).unwrap();
    for (name, ..) in VALUES.iter().filter(|(name, ..)| *name != "HUB_ID") {
        for empty in ["", "  ", "\n"] {
            let config = Config::from_pairs(&[("HUB_ID", ID), (name, empty)]).unwrap();
            assert_eq!(config.describe(), unset.describe(), "{name}");
        }
    }
}

#[test]
fn flags_override_variables_and_variables_override_defaults() {
    let env = |name: &str| (name == "PORT").then(|| OsString::from("9000"));
    let port = |said: &[&str]| Config::resolve(&flags(said), &env).unwrap().port;
    assert_eq!(port(&["--port", "9001"]), 9001);
    assert_eq!(port(&["--port", ""]), 9000);
    assert_eq!(port(&[]), 9000);
    assert_eq!(Config::from_pairs(&[]).unwrap().port, 8080);
    // A bad variable has no effect if a flag overrides it.
    let bad = |_: &str| Some(OsString::from("\u{1}"));
    let refusals = Config::resolve(&flags(&["--port", "9001"]), &bad).unwrap_err();
    assert!(!refusals.iter().any(|refusal| refusal.to_string().starts_with("PORT")), "{refusals:?}");
}

#[test]
fn a_switch_needs_no_value() {
    for (said, is_hub) in [(&["--is-hub"][..], true), (&["--is-hub=false"], false), (&[], false)] {
        assert_eq!(Config::resolve(&flags(said), &|_| None).unwrap().is_hub, is_hub, "{said:?}");
    }
}

#[test]
fn an_error_names_the_invalid_value_and_the_allowed_values() {
    for (name, value, said) in [
        ("PORT", "99999", "PORT (--port): 99999 is not a port: use a number from 0 to 65535"),
        ("IS_HUB", "maybe", "IS_HUB (--is-hub): maybe is not a boolean: use true, false, 1, 0, yes, no, on or off"),
        (
            "MAX_CONNECTIONS",
            "0",
            "MAX_CONNECTIONS (--max-connections): 0 is not a number of connections: use a number from 1 to 10000000",
        ),
        ("HUB_ID", "x", "HUB_ID (--hub-id): x is not an id: use 40 hexadecimal digits"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT (--log-format): xml is not a log format: use auto, json or human"),
    ] {
        assert_eq!(refusal(&[(name, value)]), said);
    }
}

#[test]
fn all_errors_are_reported_at_once() {
    let refusals = Config::from_pairs(&[("PORT", "x"), ("SHARDS", "0"), ("LOG_LEVEL", "inof")]).unwrap_err();
    assert_eq!(refusals.len(), 3);
}

#[test]
fn allowed_origins_also_apply_to_pages_if_cors_origin_is_unset() {
    let list = ("ALLOWED_ORIGINS", "https://a.example, https://*.b.example");
    let config = Config::from_pairs(&[list]).unwrap();
    assert_eq!(config.cors.to_string(), "https://a.example,https://*.b.example");
    let printed = shown(&config, "CORS_ORIGIN");
    assert_eq!(printed, "https://a.example,https://*.b.example");
    let again = Config::from_pairs(&[list, ("CORS_ORIGIN", &printed)]).unwrap();
    assert_eq!(again.cors.to_string(), printed, "the printed value is valid");
    let config = Config::from_pairs(&[list, ("CORS_ORIGIN", "*")]).unwrap();
    assert!(config.cors.is_open() && !config.origins.is_open());
    let config = Config::from_pairs(&[("CORS_ORIGIN", "https://c")]).unwrap();
    assert!(config.origins.is_open(), "CORS_ORIGIN applies only to pages, as in the Go hub");
    assert!(
        refusal(&[("ALLOWED_ORIGINS", "https://a,https://b/")])
            .starts_with("ALLOWED_ORIGINS (--allowed-origins): https://b")
    );
}

#[test]
fn admin_token_must_differ_from_all_other_tokens() {
    let both = [("ADMIN_TOKEN", "same"), ("AUTH_TOKEN", "same")];
    assert!(refusal(&both).starts_with("ADMIN_TOKEN (--admin-token): it is the same as AUTH_TOKEN"));
    let links = [("ADMIN_TOKEN", "same"), ("MESH_TOKEN", "same"), ("IS_HUB", "true")];
    assert!(refusal(&links).starts_with("ADMIN_TOKEN (--admin-token): it is the same as MESH_TOKEN:"));
    let also = [("ADMIN_TOKEN", "same"), ("MESH_TOKEN", "t"), ("MESH_TOKEN_ALSO", "same"), ("IS_HUB", "true")];
    assert!(refusal(&also).starts_with("ADMIN_TOKEN (--admin-token): it is the same as MESH_TOKEN_ALSO:"));
}

#[test]
fn a_short_admin_token_causes_a_warning() {
    let warnings = |token: &str| Config::from_pairs(&[("ADMIN_TOKEN", token)]).unwrap().warnings().join("\n");
    let short = warnings(&"a".repeat(LEAST_ADMIN_TOKEN_BYTES - 1));
    assert!(short.starts_with("ADMIN_TOKEN: it has 15 characters, so it may be guessed: use at least 16"), "{short}");
    assert_eq!(warnings(&"a".repeat(LEAST_ADMIN_TOKEN_BYTES)), "");
}

#[test]
fn a_hub_that_everyone_can_use_logs_a_warning() {
    let warnings = |pairs: &[(&str, &str)]| Config::from_pairs(pairs).unwrap().warnings();
    let open = [("HOST", "0.0.0.0")];
    let said = warnings(&open);
    assert!(said.len() == 1 && said[0].contains("0.0.0.0:8080 without AUTH_TOKEN and ALLOWED_ORIGINS"), "{said:?}");
    for meant in [("AUTH_TOKEN", "t"), ("ALLOWED_ORIGINS", "https://a"), ("ALLOWED_ORIGINS", "*"), ("HOST", "::1")] {
        let pairs = if meant.0 == "HOST" { vec![meant] } else { vec![open[0], meant] };
        assert_eq!(warnings(&pairs), Vec::<String>::new(), "{meant:?}");
    }
    assert_eq!(warnings(&[]), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn values_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let env = |name: &str| (name == "HOST").then(|| OsString::from_vec(vec![0xff]));
    let refusals = Config::resolve(&Flags::default(), &env).unwrap_err();
    assert_eq!(refusals[0].to_string(), "HOST (--host): its value is not UTF-8: use UTF-8 text");
}

/// Tests URLs whose passwords contain unescaped special characters, in all settings that accept a URL, and in others.
#[test]
fn nothing_before_the_last_at_sign_of_a_url_is_shown() {
    let settings = [
        "REDIS_URL",
        "BOOTSTRAP_HUBS",
        "MESH_LEGACY",
        "MESH_ADVERTISE",
        "PUBLIC_URL",
        "MESH_ADMIN_URL",
        "MESH_DNS",
        "HOST",
        "PORT",
        "ALLOWED_ORIGINS",
        "CORS_ORIGIN",
    ];
    for setting in
        settings.into_iter().chain(["MESH_PORT", "SHARDS", "IS_HUB", "LOG_LEVEL", "LOG_FORMAT", "DISCOVERY", "HUB_ID"])
    {
        for special in ["", "/", "?", "#", "@", "%", ":", ",", "://", "'", "\"", "\\", "[", " "] {
            for scheme in ["redis", "rediss", "redis+cluster", "ws", "wss", "http", "tcp", "hunter2", ""] {
                for tail in ["h:6379", "h", "", "h:x", "h/a?b=hunter2", "ws://h"] {
                    let separator = if scheme.is_empty() { "" } else { "://" };
                    let value = format!("{scheme}{separator}user:hunter2{special}hunter2@{tail}");
                    let pairs = [(setting, value.as_str()), ("MESH_INSECURE", "true")];
                    let text = match Config::from_pairs(&pairs) {
                        Ok(config) => [vec![config.describe()], config.warnings()].concat().join("\n"),
                        Err(refusals) => refusals.iter().map(|refusal| format!("{refusal}\n")).collect(),
                    };
                    assert!(!text.contains("hunter2"), "{setting}={value}: {text}");
                }
            }
        }
    }
}

#[test]
fn an_error_in_a_list_names_the_invalid_entry() {
    let said = |list| refusal(&[("BOOTSTRAP_HUBS", list)]);
    assert!(
        said("ws://a,nonsense,ws://u:p@b").starts_with("BOOTSTRAP_HUBS (--bootstrap-hubs): entry 2 is not the URL")
    );
    assert!(said("ws://u:p@a,nonsense").contains(": nonsense is not the URL"));
    assert!(said("ws://u:p/w@a").contains("percent-encode"));
}

#[test]
fn errors_show_invisible_characters() {
    assert!(refusal(&[("PORT", "\u{feff}8080")]).contains("\\u{feff}8080 is not a port"));
    assert!(refusal(&[("PORT", "80\n80")]).contains("80\\n80 is not a port"));
    assert!(refusal(&[("PORT", "\"8080\"")]).contains("\"8080\" is not a port"));
}

/// Kubernetes puts the address of a Service into the pod's environment, under a name that can also be the name of a
/// setting.
#[test]
fn variables_of_a_service_are_recognized() {
    let address = "tcp://10.0.0.1:8081";
    let config = Config::from_pairs(&[("MESH_PORT", address)]).unwrap();
    assert_eq!(config.mesh.port, None);
    let warning = config.warnings().join("\n");
    assert!(warning.starts_with("MESH_PORT is ignored: tcp://10.0.0.1:8081 is not a port: Kubernetes"), "{warning}");
    assert!(warning.contains("a Service named mesh.") && warning.contains("enableServiceLinks"), "{warning}");
    for links in [("IS_HUB", "true"), ("BOOTSTRAP_HUBS", "ws://a"), ("REDIS_URL", "redis://a")] {
        let said = refusal(&[("MESH_PORT", address), links]);
        assert!(said.starts_with("MESH_PORT (--mesh-port): tcp://10.0.0.1:8081 is not a port: Kubernetes"), "{said}");
    }
    assert!(refusal(&[("ADMIN_PORT", "udp://10.0.0.1:1")]).contains("a Service named admin."));
    // If the address is the value of a flag, its error is the error of any invalid value.
    let refusals = Config::resolve(&flags(&["--mesh-port", address]), &|_| None).unwrap_err();
    assert!(refusals[0].to_string().ends_with("is not a port: use a number from 0 to 65535"), "{refusals:?}");

    // A Service's name can collide with settings that end in _PORT, _SERVICE_HOST, _SERVICE_PORT and so on, but never
    // with PORT.
    let collide = |name: &str| {
        name.ends_with("_PORT")
            || name.contains("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.contains("_PORT_")
    };
    let names: Vec<_> = settings::ALL.iter().map(|setting| setting.name).filter(|name| collide(name)).collect();
    assert_eq!(names, ["ADMIN_PORT", "HTTP_REDIRECT_PORT", "MESH_PORT"]);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (pairs, names) in [
        (
            &[("MAX_MESSAGE_BYTES", "67108864")][..],
            "SEND_QUEUE_BYTES (--send-queue-bytes): 16777216 is too small: use at least 67110912",
        ),
        (
            &[("SEND_QUEUE_BYTES", "1048576")],
            "SEND_QUEUE_BYTES (--send-queue-bytes): 1048576 is too small: use at least 1050624",
        ),
        (
            &[("SEND_BUDGET_BYTES", "16000000")],
            "SEND_BUDGET_BYTES (--send-budget-bytes): 16000000 is too small: use at least 16777216",
        ),
        (
            &[("SEND_BUDGET_BYTES", "16777216"), ("SHARDS", "128")],
            "SEND_BUDGET_BYTES (--send-budget-bytes): 16777216 is too small: use at least 33554432",
        ),
    ] {
        let refusal = refusal(pairs);
        assert!(refusal.starts_with(names), "{refusal}");
    }
}

#[test]
fn the_defaults_suit_any_number_of_cores() {
    for shards in ["1", "2", "64", "256"] {
        assert_eq!(set(&[("SHARDS", shards)], "SHARDS"), shards);
    }
}

#[test]
fn shards_default_to_the_available_cores() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(usize::from(Config::from_pairs(&[]).unwrap().shards), cores.min(256));
}

#[test]
fn a_host_resolves_to_its_addresses() {
    let listen = |host: &str| Config::from_pairs(&[("HOST", host), ("PORT", "81")]).unwrap().listen;
    assert_eq!(listen("0.0.0.0"), ["0.0.0.0:81".parse().unwrap()]);
    assert_eq!(listen("[::]"), ["[::]:81".parse().unwrap()]);
    let localhost = listen("localhost");
    assert_eq!(localhost[0], "127.0.0.1:81".parse().unwrap());
    let has_v6 = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    assert_eq!(localhost.len(), 1 + usize::from(has_v6));
}

#[test]
fn a_hub_without_hub_id_gets_a_random_one() {
    let id = |pairs: &[(&str, &str)]| Config::from_pairs(pairs).unwrap().hub_id;
    assert_ne!(id(&[]), id(&[]));
    assert_eq!(id(&[("HUB_ID", ID)]).to_string(), ID.to_lowercase());
}

#[test]
fn rust_log_is_used_if_log_level_is_unset() {
    let filter = |pairs: &[(&str, &str)]| Config::from_pairs(pairs).unwrap().log.filter;
    assert_eq!(filter(&[]), "info");
    assert_eq!(filter(&[("RUST_LOG", "debug")]), "debug");
    assert_eq!(filter(&[("RUST_LOG", "debug"), ("LOG_LEVEL", "")]), "debug");
    assert_eq!(filter(&[("RUST_LOG", "debug"), ("LOG_LEVEL", "warn")]), "warn");
    assert!(refusal(&[("RUST_LOG", "inof")]).starts_with("RUST_LOG (--log-level): inof is not"));
}

#[test]
fn a_token_is_never_printed() {
    let secret = "hunter2-hunter2";
    let config = Config::from_pairs(&[("AUTH_TOKEN", secret)]).unwrap();
    let debug = format!("{config:?} {:?}", config.auth_token);
    for text in [config.describe(), debug, refusal(&[("AUTH_TOKEN", "hunter2 hunter2")])] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(shown(&config, "AUTH_TOKEN"), "<set>");
    assert_eq!(set(&[], "AUTH_TOKEN"), "");
}

#[test]
fn tokens_are_compared_completely() {
    let token = Config::from_pairs(&[("AUTH_TOKEN", "abc")]).unwrap().auth_token.unwrap();
    assert!(token.matches(b"abc"));
    for other in [&b""[..], b"ab", b"abcd", b"abd", b"ABC", b"xbc"] {
        assert!(!token.matches(other));
    }
}

#[test]
fn secrets_in_urls_are_not_printed() {
    let said = "wss://user:pass@a.example:9000/ws?token=secret,ws://b";
    let config = Config::from_pairs(&[("BOOTSTRAP_HUBS", said), ("MESH_INSECURE", "true")]).unwrap();
    assert_eq!(shown(&config, "BOOTSTRAP_HUBS"), "wss://a.example:9000/ws,ws://b");
    assert_eq!(config.bootstrap_hubs[0].query(), Some("token=secret"));
    let refusal = refusal(&[("BOOTSTRAP_HUBS", "http://user:pass@a?token=secret")]);
    assert!(refusal.contains("http://a is not") && !refusal.contains("pass") && !refusal.contains("secret"));
}

#[test]
fn the_output_of_print_config_is_a_valid_env_file() {
    let hubs = [("BOOTSTRAP_HUBS", "ws://a,wss://b:1/x"), ("MESH_INSECURE", "true")];
    let pairs =
        [hubs, [("PORT", "9000"), ("HUB_ID", ID)], [("SHARDS", "3"), ("MESH_LEGACY", "ws://a,10.0.0.1")]].concat();
    let text = Config::from_pairs(&pairs).unwrap().describe();
    let names: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.split('=').next()).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.len(), settings::ALL.len());

    let read: Vec<(&str, &str)> =
        text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('=')).collect();
    let again = Config::from_pairs(&read).unwrap().describe();
    let values = |text: &str| text.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(values(&text), values(&again));
    assert!(
        text.contains("# set by the environment: BOOTSTRAP_HUBS HUB_ID MESH_INSECURE MESH_LEGACY PORT SHARDS\n"),
        "{text}"
    );
}

#[test]
fn valid_settings_without_effect_cause_warnings() {
    let warnings = |pairs: &[(&str, &str)]| Config::from_pairs(pairs).unwrap().warnings().join("\n");
    assert_eq!(warnings(&[]), "");
    assert!(warnings(&[("CLEANUP_INTERVAL_MS", "30000")]).contains("CLEANUP_INTERVAL_MS"));
    assert!(
        warnings(&[("AUTH_TOKEN", "\"secret\"")]).starts_with("AUTH_TOKEN: the token begins and ends with a quote")
    );
    assert_eq!(warnings(&[("AUTH_TOKEN", "sec\"ret\"")]), "");
}
