use std::time::Duration;

use proto::{HubId, HubIncarnation, HubView, Lineage, PeerId, PeerIncarnation};

use super::*;

const PORTS: Ports = Ports { peers: 8080, links: None, admin: None, redirect: None };

fn prepared(pairs: &[(&str, &str)], ports: Ports) -> (Option<Mesh>, Option<LinkDoor>) {
    let config = Config::from_pairs(pairs).unwrap();
    let publish = watch::channel(Arc::default()).0;
    prepare(
        &config,
        Clock::start(),
        (Keys(1, 2), [3; 32]),
        ports,
        1,
        MeshHooks { turned: Arc::new(|| {}), publish, status: watch::channel(None).1, tracer: None, certificate: None },
    )
}

#[test]
fn a_single_hub_has_no_mesh_and_refuses_links() {
    let (mesh, door) = prepared(&[("MESH_TOKEN", "t")], PORTS);
    assert!(mesh.is_none() && door.is_none());
}

#[test]
fn without_a_token_links_are_refused() {
    let (mesh, door) = prepared(&[("IS_HUB", "true")], PORTS);
    assert!(mesh.is_none());
    assert!(matches!(door.unwrap().admission, Admission::Closed));
    let (_, door) = prepared(&[("IS_HUB", "true"), ("MESH_INSECURE", "true")], PORTS);
    assert!(matches!(door.unwrap().admission, Admission::Open));
    let (_, door) = prepared(&[("IS_HUB", "true"), ("MESH_INSECURE", "true"), ("MESH_TOKEN", "t")], PORTS);
    let Admission::Tokens(links) = door.unwrap().admission else { panic!("links are open") };
    assert!(links.tokens.iter().map(|token| &**token).eq(["t"]) && links.takes_bearer);
    let (mesh, door) = prepared(&[("IS_HUB", "true"), ("MESH_TOKEN", "t"), ("MESH_AUTH", "challenge")], PORTS);
    let Admission::Tokens(links) = door.unwrap().admission else { panic!("links are open") };
    assert!(!links.takes_bearer && !mesh.unwrap().config.sends_bearer);
}

#[test]
fn without_a_token_certificates_open_links() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let place = std::env::temp_dir().join(format!("peerpigeon-linking-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(place.join(name), text).unwrap();
        place.join(name).to_str().unwrap().to_owned()
    };
    let (crt, key) = (write("crt", made.cert.pem()), write("key", made.signing_key.serialize_pem()));
    let ca = write("ca", ca.pem());
    let served = [("TLS_CERT", &*crt), ("TLS_KEY", &key), ("TLS_PORTS", "MESH_PORT"), ("MESH_PORT", "9")];
    let hub = [&served[..], &[("IS_HUB", "true"), ("MESH_CLIENT_CA", &ca)]].concat();
    let ports = Ports { links: Some(9), ..PORTS };
    let admission = |more: &[(&str, &str)]| prepared(&[&hub[..], more].concat(), ports).1.unwrap().admission;
    assert!(matches!(admission(&[]), Admission::Certificates));
    assert!(matches!(admission(&[("MESH_TOKEN", "t")]), Admission::Tokens(_)));
    assert!(matches!(admission(&[("MESH_INSECURE", "true")]), Admission::Open));
    // The hub dials only with a certificate of its own.
    let dials = |more: &[(&str, &str)]| {
        let pairs = [&hub[..], &[("BOOTSTRAP_HUBS", "wss://a")], more].concat();
        let config = prepared(&pairs, ports).0.unwrap().config;
        (config.bootstrap.len(), config.prefers_certificate, config.is_open)
    };
    let own = [("MESH_CERT", &*crt), ("MESH_KEY", &*key)];
    assert_eq!(dials(&[]), (0, false, false));
    assert_eq!(dials(&own), (1, false, false));
    assert_eq!(dials(&[&own[..], &[("MESH_AUTH", "certificate"), ("MESH_TOKEN", "t")]].concat()), (1, true, false));
    assert_eq!(dials(&[("MESH_INSECURE", "true")]), (1, false, true));
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn the_mesh_gets_the_configured_values() {
    let pairs = [
        ("MESH_TOKEN", "t"),
        ("BOOTSTRAP_HUBS", "ws://a:1,ws://old:2"),
        ("MESH_LEGACY", "ws://old:2,10.0.0.0/8"),
        ("MESH_DNS", "wss://hubs"),
        ("MESH_ADVERTISE", "ws://me:9"),
        ("PUBLIC_URL", "wss://me.example"),
        ("REDIS_URL", "redis://:p@r"),
        ("HUB_MESH_NAMESPACE", "n"),
        ("SHARDS", "3"),
    ];
    let (mesh, door) = prepared(&pairs, Ports { links: Some(9), ..PORTS });
    let (config, door) = (mesh.unwrap().config, door.unwrap());
    assert_eq!((door.port, door.legacy.len()), (Some(9), 1));
    assert_eq!(config.bootstrap.len(), 2);
    assert_eq!(
        config.legacy,
        [config.bootstrap[1].to_string()],
        "the URL in MESH_LEGACY and in BOOTSTRAP_HUBS is spelled in the same way"
    );
    assert_eq!((config.dns, config.dns_tls), (Some(("hubs".to_owned(), 9)), true));
    assert_eq!(config.relay.advertise.as_deref(), Some("ws://me:9"));
    assert_eq!(config.relay.public_url.as_deref(), Some("wss://me.example"));
    assert_eq!((config.relay.shards, config.relay.namespace.as_str()), (3, "n"));
    assert!(config.relay.incarnation.0 > 1_700_000_000_000, "the incarnation is a time of the wall clock");
    let redis = config.redis.unwrap();
    assert_eq!(
        (redis.url.as_str(), redis.namespace.as_str(), redis.token.as_deref()),
        ("redis://:p@r", "n", Some("t"))
    );
}

#[test]
fn a_draining_hub_names_the_public_urls_of_the_others() {
    let hub = |n: u8, url: Option<&str>, live, draining| HubView {
        hub: HubId(PeerId::from_bytes([n; 20])),
        incarnation: HubIncarnation(1),
        live,
        draining,
        next_hop: None,
        link: None,
        bridged: false,
        legacy: false,
        peers: 0,
        seq: 0,
        lag: 0,
        heard: Duration::ZERO,
        advertise: None,
        public_url: url.map(Into::into),
        status: None,
    };
    let mut reading = MeshReading {
        hubs: vec![
            hub(1, Some("wss://b"), true, false),
            hub(2, None, true, false),
            hub(3, Some("wss://gone"), false, false),
            hub(4, Some("wss://going"), true, true),
            hub(5, Some("wss://a"), true, false),
            hub(6, Some("wss://b"), true, false),
        ],
        ..MeshReading::default()
    };
    assert_eq!(other_hubs(&reading)[..], ["wss://a", "wss://b"]);
    reading.hubs = (0..100).map(|n| hub(n, Some(&format!("wss://{n}")), true, false)).collect();
    assert_eq!(other_hubs(&reading).len(), MAX_GO_AWAY_HUBS);
}

#[test]
fn resume_secrets_are_shared_only_with_a_long_mesh_token() {
    let peer = PeerId::from_bytes([1; 20]);
    let lineage = Lineage { root: PeerIncarnation(1), session: PeerIncarnation(2) };
    let keys = |pairs: &[(&str, &str)]| resume_keys(&Config::from_pairs(pairs).unwrap()).unwrap();
    let accepts = |issues: &[(&str, &str)], checks: &[(&str, &str)]| {
        let secret = keys(issues).issue(&peer, lineage).to_hex();
        keys(checks).check(&peer, str::from_utf8(&secret).unwrap()) == Ok(lineage)
    };
    let (long, other) = ("a".repeat(LEAST_RESUME_TOKEN_BYTES), "b".repeat(LEAST_RESUME_TOKEN_BYTES));
    let long = [("MESH_TOKEN", long.as_str())];
    assert!(accepts(&long, &long));
    assert!(accepts(&long, &[("MESH_TOKEN", &other), ("MESH_TOKEN_ALSO", long[0].1)]));
    assert!(!accepts(&long, &[("MESH_TOKEN", &other)]));
    assert!(!accepts(&long, &[long[0], ("HUB_MESH_NAMESPACE", "another")]));
    // If keys were derived from a short token, every client could guess the token and verify its guess.
    let short = [("MESH_TOKEN", &long[0].1[1..])];
    assert!(!accepts(&short, &short));
    assert!(!accepts(&[], &[]));
}
