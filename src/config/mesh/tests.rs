use super::*;

fn config(pairs: &[(&str, &str)]) -> Config {
    Config::from_pairs(pairs).unwrap_or_else(|refusals| panic!("{pairs:?}: {refusals:?}"))
}

fn refusals(pairs: &[(&str, &str)]) -> Vec<String> {
    Config::from_pairs(pairs).map_or_else(|refusals| refusals.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

#[test]
fn settings_of_links_imply_is_hub() {
    for (pairs, is_hub, has_mesh) in [
        (&[][..], false, false),
        (&[("MESH_TOKEN", "t")], false, false),
        (&[("MESH_LEGACY", "10.0.0.0/8")], false, false),
        (&[("IS_HUB", "false")], false, false),
        (&[("IS_HUB", "true"), ("MESH_TOKEN", "t")], true, true),
        (&[("BOOTSTRAP_HUBS", "ws://a"), ("MESH_TOKEN", "t")], true, true),
        (&[("MESH_DNS", "hubs"), ("MESH_INSECURE", "true")], true, true),
        (&[("REDIS_URL", "redis://a")], true, true),
        // Without a token, the hub has no links, and serves its peers like the Go hub.
        (&[("IS_HUB", "true")], true, false),
        (&[("IS_HUB", "true"), ("MESH_LEGACY", "10.0.0.0/8")], true, true),
        (&[("BOOTSTRAP_HUBS", "ws://a"), ("MESH_LEGACY", "ws://a/")], true, true),
    ] {
        let config = config(pairs);
        assert_eq!((config.is_hub, config.has_mesh()), (is_hub, has_mesh), "{pairs:?}");
        assert!(config.describe().contains(&format!("IS_HUB={is_hub}\n")), "{pairs:?}");
    }
}

#[test]
fn is_hub_false_contradicts_settings_of_links() {
    let token = ("MESH_TOKEN", "t");
    for asking in [("BOOTSTRAP_HUBS", "ws://a"), ("MESH_DNS", "hubs"), ("REDIS_URL", "redis://a")] {
        let refused = refusals(&[("IS_HUB", "false"), asking, token]);
        assert_eq!(refused, [format!("IS_HUB (--is-hub): false contradicts {}: unset one of them", asking.0)]);
        assert!(refusals(&[("IS_HUB", "true"), asking, token]).is_empty());
        assert!(refusals(&[("IS_HUB", ""), asking, token]).is_empty(), "an empty variable counts as unset");
    }
}

#[test]
fn links_require_a_token_or_mesh_insecure() {
    for (pairs, named) in [
        (&[("MESH_DNS", "hubs")][..], &["MESH_DNS (--mesh-dns): "][..]),
        (&[("MESH_DNS", "hubs"), ("MESH_INSECURE", "false")], &["MESH_DNS (--mesh-dns): "]),
        (&[("BOOTSTRAP_HUBS", "ws://a")], &[]),
    ] {
        let refused = refusals(pairs);
        assert_eq!(refused.len(), named.len(), "{refused:?}");
        for (refused, named) in refused.iter().zip(named) {
            assert!(refused.starts_with(named), "{refused}");
            assert!(refused.contains("MESH_TOKEN") && refused.contains("MESH_INSECURE"), "{refused}");
        }
        for trust in [("MESH_TOKEN", "t"), ("MESH_INSECURE", "true")] {
            let trusting: Vec<_> = pairs.iter().copied().filter(|pair| pair.0 != trust.0).chain([trust]).collect();
            assert!(refusals(&trusting).is_empty(), "{trusting:?}");
        }
    }
}

#[test]
fn auth_token_and_mesh_token_must_differ() {
    let also = [("MESH_TOKEN", "t"), ("MESH_TOKEN_ALSO", "same"), ("AUTH_TOKEN", "same")];
    assert!(refusals(&also)[0].starts_with("MESH_TOKEN_ALSO (--mesh-token-also): it is the same as AUTH_TOKEN"));
    let refused = refusals(&[("MESH_TOKEN", "same"), ("AUTH_TOKEN", "same")]);
    assert!(refused[0].starts_with("MESH_TOKEN (--mesh-token): it is the same as AUTH_TOKEN"), "{refused:?}");
    assert!(!refused[0].contains("same,"), "{refused:?}");
    assert!(refusals(&[("MESH_TOKEN", "same"), ("AUTH_TOKEN", "other")]).is_empty());
}

#[test]
fn mesh_dns_is_parsed() {
    for (text, host, port, tls) in [
        ("hubs", "hubs", None, false),
        ("hubs.ns.svc:8081", "hubs.ns.svc", Some(8081), false),
        ("ws://hubs:1", "hubs", Some(1), false),
        ("wss://hubs.example:443/", "hubs.example", Some(443), true),
        ("[fd00::1]:80", "fd00::1", Some(80), false),
    ] {
        assert_eq!(mesh_dns(text), Ok(MeshDns { host: host.to_owned(), port, tls }), "{text}");
    }
}

#[test]
fn links_use_the_port_of_peers_by_default() {
    let port = |pairs: &[(&str, &str)]| config(pairs).mesh.port;
    assert_eq!(port(&[]), None);
    assert_eq!(port(&[("PORT", "0")]), None);
    assert_eq!(port(&[("PORT", "9000"), ("MESH_PORT", "9000")]), None);
    assert_eq!(port(&[("PORT", "9000"), ("MESH_PORT", "9001")]), Some(9001));
    assert_eq!(port(&[("MESH_PORT", "0")]), Some(0));
    assert!(config(&[("PORT", "9000")]).describe().contains("MESH_PORT=9000\n"));
}

#[test]
fn secrets_are_never_printed() {
    let pairs = [
        ("MESH_TOKEN", "hunter2"),
        ("REDIS_URL", "rediss://user:hunter2@a.example:6380/1?password=hunter2"),
        ("BOOTSTRAP_HUBS", "ws://hunter2@a"),
        ("MESH_LEGACY", "ws://hunter2@b?token=hunter2"),
    ];
    let config = config(&pairs);
    let text = config.describe();
    assert!(text.contains("MESH_TOKEN=<set>\n") && text.contains("REDIS_URL=rediss://a.example:6380/1\n"), "{text}");
    let warnings = config.warnings().join("\n");
    assert!(warnings.contains("MESH_LEGACY names ws://b"), "{warnings}");
    let refused = refusals(&[
        ("REDIS_URL", "http://:hunter2@a"),
        ("MESH_ADVERTISE", "ws://hunter2@a"),
        ("MESH_DNS", "hunter2@a"),
    ]);
    assert_eq!(refused.len(), 3);
    for text in [&text, &warnings].into_iter().chain(&refused) {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(format!("{:?}", config.mesh.redis_url.as_ref()), "Some(rediss://a.example:6380/1)");
    assert_eq!(config.mesh.redis_url.unwrap().expose(), pairs[1].1);
}

#[test]
fn settings_without_effect_cause_warnings() {
    const LONG: &str = "a-token-with-thirty-two-letters.";
    let warnings = |pairs: &[(&str, &str)]| config(pairs).warnings().join("\n");
    assert!(warnings(&[("IS_HUB", "true")]).contains("MESH_TOKEN is unset"));
    // With a Go hub's settings, the hub serves its peers and warns.
    assert!(warnings(&[("IS_HUB", "true"), ("BOOTSTRAP_HUBS", "ws://a")]).contains("MESH_TOKEN is unset"));
    assert!(warnings(&[("IS_HUB", "true"), ("MESH_INSECURE", "true")]).starts_with("MESH_INSECURE: anyone"));
    assert!(warnings(&[("REDIS_URL", "redis://a")]).contains("REDIS_URL without MESH_TOKEN"));
    let numbered = warnings(&[("REDIS_URL", "redis://:hunter2@a/3"), ("MESH_TOKEN", LONG)]);
    assert!(numbered.starts_with("REDIS_URL names database 3, which has no effect"), "{numbered}");
    assert!(numbered.contains("HUB_MESH_NAMESPACE") && !numbered.contains("hunter2"), "{numbered}");
    let short = warnings(&[("IS_HUB", "true"), ("MESH_TOKEN", &LONG[1..])]);
    assert!(short.starts_with("MESH_TOKEN is shorter than 32 characters") && !short.contains("-token"), "{short}");
    assert!(warnings(&[("IS_HUB", "true"), ("MESH_TOKEN_ALSO", "t")]).contains("MESH_TOKEN_ALSO has no effect"));
    assert!(
        warnings(&[("MESH_LEGACY", "10.0.0.0/8"), ("MESH_CA", "src/config/mesh/certificate.pem")])
            .starts_with("MESH_CA, MESH_LEGACY: unused")
    );
    for quiet in [
        &[("IS_HUB", "true"), ("MESH_TOKEN", LONG)][..],
        &[("REDIS_URL", "redis://a"), ("MESH_TOKEN", LONG)],
        &[("REDIS_URL", "redis://a/0"), ("MESH_TOKEN", LONG)],
        &[("BOOTSTRAP_HUBS", "ws://a,ws://b"), ("MESH_LEGACY", "ws://a"), ("MESH_TOKEN", LONG)],
    ] {
        assert_eq!(warnings(quiet), "", "{quiet:?}");
    }
}

#[test]
fn bounded_discovery_excludes_go_hubs() {
    let hub = [("IS_HUB", "true"), ("MESH_LEGACY", "10.0.0.0/8")];
    assert!(Config::from_pairs(&[hub.as_slice(), &[("DISCOVERY", "all")]].concat()).is_ok());
    let refusals = Config::from_pairs(&[hub.as_slice(), &[("DISCOVERY", "closest:8")]].concat()).unwrap_err();
    let text = refusals.iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("DISCOVERY") && text.contains("use DISCOVERY=all"), "{text}");
}

#[test]
fn two_spellings_of_a_go_hub_are_refused() {
    let token = ("MESH_TOKEN", "hunter2");
    let refused = |bootstrap: &str, legacy: &str| {
        let refused = refusals(&[("BOOTSTRAP_HUBS", bootstrap), ("MESH_LEGACY", legacy), token]);
        for refused in &refused {
            assert!(refused.starts_with("BOOTSTRAP_HUBS (--bootstrap-hubs): "), "{refused}");
            assert!(refused.contains("MESH_LEGACY") && !refused.contains("hunter2"), "{refused}");
        }
        refused.len()
    };
    for (bootstrap, legacy) in [
        ("ws://go:8080", "ws://go:8080/ws"),
        ("ws://go:8080/ws", "ws://go:8080"),
        ("ws://go:8080/ws/", "ws://GO:8080/ws"),
        ("ws://go:8080?token=hunter2", "ws://go:8080"),
        ("wss://go:8080", "ws://go:8080"),
        ("wss://go", "ws://go"),
        ("wss://go:443", "ws://go:80/"),
        ("ws://localhost:3000", "ws://127.0.0.1:3000"),
        ("ws://127.0.0.1:3000", "ws://localhost.:3000"),
        ("ws://[::1]:3000", "ws://LOCALHOST:3000"),
        ("ws://[::ffff:127.0.0.1]:3000/ws", "ws://127.0.0.2:3000"),
        ("ws://0.0.0.0:3000", "ws://127.0.0.1:3000"),
        ("ws://a,ws://go:8080/ws", "ws://go:8080"),
        ("ws://go.:8080", "ws://go:8080"),
        ("ws://[0:0::1]:80", "ws://[::1]"),
        ("ws://[::ffff:10.0.0.1]:80", "ws://10.0.0.1"),
    ] {
        assert_eq!(refused(bootstrap, legacy), 1, "{bootstrap} {legacy}");
    }
    // In these accepted pairs, the second URL is another spelling of the first URL, or the URL of another hub.
    for (bootstrap, legacy) in [
        ("ws://go", "ws://go:80/"),
        ("ws://user:hunter2@GO:8080", "ws://go:8080/"),
        ("ws://go:8081", "ws://go:8080"),
        ("ws://go", "ws://other"),
        ("wss://go:8080", "ws://go"),
    ] {
        assert_eq!(refused(bootstrap, legacy), 0, "{bootstrap} {legacy}");
    }
    assert!(config(&[("BOOTSTRAP_HUBS", "ws://go"), ("MESH_LEGACY", "ws://GO:80/")]).has_mesh());
    let dns = refusals(&[("MESH_DNS", "go:8080"), ("MESH_LEGACY", "ws://go:8080"), token]);
    assert!(
        dns.len() == 1 && dns[0].starts_with("MESH_DNS (--mesh-dns): ") && dns[0].contains("MESH_LEGACY"),
        "{dns:?}"
    );
    assert!(refusals(&[("MESH_DNS", "go"), ("MESH_LEGACY", "ws://go:3000"), token]).is_empty());
}

/// A CA, a certificate that it has issued, and the key of this certificate, in files that are deleted at the end of a
/// test.
struct Files(std::path::PathBuf);

impl Files {
    fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("peerpigeon-mesh-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let made = params.signed_by(&key, &issuer).unwrap();
        for (name, text) in [("ca", issuer.pem()), ("crt", made.pem()), ("key", key.serialize_pem())] {
            std::fs::write(place.join(name), text).unwrap();
        }
        Self(place)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn certificates_replace_the_token_in_each_direction() {
    let files = Files::new();
    let [ca, crt, key] = ["ca", "crt", "key"].map(|name| files.path(name));
    let own = [("MESH_CERT", &*crt), ("MESH_KEY", &*key)];
    let accepts = [
        ("MESH_CLIENT_CA", &*ca),
        ("MESH_PORT", "8081"),
        ("TLS_CERT", &crt),
        ("TLS_KEY", &key),
        ("TLS_PORTS", "MESH_PORT"),
    ];
    let token = [("MESH_TOKEN", "a-token-of-32-characters-or-more")];
    let dials = [("MESH_DNS", "wss://hubs:1")];
    let plain = [("BOOTSTRAP_HUBS", "ws://a?token=x"), ("MESH_DNS", "hubs:1"), ("MESH_ADVERTISE", "ws://me")];
    // The warnings that a hub with these settings has about the mesh.
    let warned = |parts: &[&[(&str, &str)]]| {
        let config = config(&parts.concat());
        assert!(config.has_mesh());
        config.mesh_warnings(&|_| false)
    };
    assert_eq!(warned(&[&own, &accepts, &dials]), [""; 0]);
    assert_eq!(warned(&[&own, &accepts, &token, &plain]), [""; 0]);
    for (parts, expected) in [
        (
            &[&own[..], &dials][..],
            &["MESH_CLIENT_CA and MESH_TOKEN are unset, so this hub dials links and accepts none"][..],
        ),
        (
            &[&accepts, &[("IS_HUB", "true")]],
            &["MESH_CERT and MESH_TOKEN are unset, so this hub accepts links and dials"],
        ),
        (
            &[&own, &accepts, &plain],
            &[
                "BOOTSTRAP_HUBS names ws://a, which",
                "MESH_DNS names hubs without TLS",
                "MESH_ADVERTISE begins with ws://",
            ],
        ),
        (&[&own, &accepts, &plain, &[("MESH_INSECURE", "true")]], &["MESH_INSECURE: anyone"]),
    ] {
        let warnings = warned(parts);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(expected) && !warning.contains("token=x"), "{warning}");
        }
    }
    // A CA alone lets this hub accept links, but not dial them.
    let refused = refusals(&[&accepts[..], &dials].concat());
    assert!(refused[0].starts_with("MESH_DNS (--mesh-dns): links need a token"), "{refused:?}");
    let idle = config(&own).mesh_warnings(&|setting| setting.name == "MESH_CERT");
    assert!(idle[0].starts_with("MESH_CERT: unused"), "{idle:?}");
}

#[test]
fn mesh_auth_certificate_needs_a_certificate_and_replaces_the_bearer_token() {
    let files = Files::new();
    let [crt, key] = ["crt", "key"].map(|name| files.path(name));
    let hub = [("IS_HUB", "true"), ("MESH_TOKEN", "t"), ("MESH_AUTH", "certificate")];
    let mesh = config(&[&hub[..], &[("MESH_CERT", &crt), ("MESH_KEY", &key)]].concat()).mesh;
    assert!(mesh.prefers_certificate && !mesh.takes_bearer);
    assert!(refusals(&hub)[0].starts_with("MESH_AUTH (--mesh-auth): certificate needs a certificate"));
    let refused = refusals(&[("MESH_AUTH", "mtls")]);
    assert!(refused[0].contains("set challenge, certificate, or both"), "{refused:?}");
}
