use super::*;
use crate::config::Config;

fn refusal(pairs: &[(&str, &str)]) -> String {
    let refusals = Config::from_pairs(pairs).unwrap_err();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals[0].to_string()
}

/// Writes a certificate that expires in this number of days, and its key, to files with this name.
fn pair(name: &str, days: u64) -> (String, String) {
    let mut made = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    made.not_after = (SystemTime::now() + std::time::Duration::from_secs(days * 86_400 + 3600)).into();
    let key = rcgen::KeyPair::generate().unwrap();
    let place = std::env::temp_dir().join(format!("peerpigeon-config-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let file = |what: &str, text: String| {
        std::fs::write(place.join(what), text).unwrap();
        place.join(what).to_str().unwrap().to_owned()
    };
    (file("tls.crt", made.self_signed(&key).unwrap().pem()), file("tls.key", key.serialize_pem()))
}

#[test]
fn tls_needs_a_certificate_and_its_key() {
    let (certificate, key) = pair("spoken", 90);
    let (other, other_key) = pair("other", 90);
    let config = Config::from_pairs(&[("TLS_CERT", &certificate), ("TLS_KEY", &key)]).unwrap();
    let tls = config.tls.as_ref().unwrap();
    assert_eq!(tls.ports, PortNames { peers: true, ..PortNames::default() });
    assert!(tls.ticket_key.is_none() && config.warnings().is_empty(), "{:?}", config.warnings());
    let both = (format!("{certificate} , {other}"), format!("{key},{other_key}"));
    let config = Config::from_pairs(&[("TLS_CERT", &both.0), ("TLS_KEY", &both.1)]).unwrap();
    assert_eq!(config.tls.unwrap().files.len(), 2);
    assert!(Config::from_pairs(&[]).unwrap().tls.is_none());
    // Keys in the wrong order and a missing key are refused.
    let crossed = format!("{other_key},{key}");
    let said = refusal(&[("TLS_CERT", &both.0), ("TLS_KEY", &crossed)]);
    assert!(said.starts_with("TLS_KEY (--tls-key): ") && said.contains("does not match"), "{said}");
    let said = refusal(&[("TLS_CERT", &both.0), ("TLS_KEY", &key)]);
    assert_eq!(
        said,
        "TLS_KEY (--tls-key): there are 2 certificates and 1 key: name one file of each, in the same order"
    );
    let many = vec!["x"; MAX_TLS_PAIRS + 1].join(",");
    assert!(refusal(&[("TLS_CERT", &many)]).contains("65 files are too many: use 64 at most"));
}

#[test]
fn tls_ports_are_names_and_ticket_keys_are_long() {
    let (certificate, key) = pair("ports", 90);
    let said = |name, value| {
        let config = Config::from_pairs(&[("TLS_CERT", &certificate), ("TLS_KEY", &key), (name, value)]);
        config.map(|config| config.tls.unwrap())
    };
    let ports = said("TLS_PORTS", "mesh_port, ADMIN_PORT").unwrap().ports;
    assert_eq!(ports, PortNames { peers: false, admin: true, links: true });
    assert!(said("TLS_PORTS", "443").is_err());
    assert!(said("TLS_TICKET_KEY", "short").is_err());
    let secret = "0123456789abcdef0123456789abcdef";
    assert_eq!(said("TLS_TICKET_KEY", secret).unwrap().ticket_key.unwrap().expose(), secret);
    let alone = Config::from_pairs(&[("TLS_PORTS", "PORT"), ("TLS_TICKET_KEY", secret)]).unwrap();
    assert_eq!(alone.warnings().len(), 2, "{:?}", alone.warnings());
}

#[test]
fn a_certificate_that_expires_soon_causes_a_warning() {
    let warned = |days| {
        let (certificate, key) = pair("soon", days);
        Config::from_pairs(&[("TLS_CERT", &certificate), ("TLS_KEY", &key)]).unwrap().warnings()
    };
    assert!(warned(20).is_empty());
    assert!(warned(3)[0].contains("expires in 3 days"), "{:?}", warned(3));
}
