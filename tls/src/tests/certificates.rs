//! Tests of certificates, tickets and challenges.

use super::*;

/// The certificate that a client with this server name receives. The client trusts the certificates of `pairs`.
fn certificate_for(acceptor: &Acceptor, pairs: &[PairFiles], name: &str) -> Vec<u8> {
    let mut pair = Pair::new(acceptor, &Arc::new(client_config(pairs, &BOTH)), name, usize::MAX);
    _ = pair.carry();
    pair.client.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default()
}

#[test]
fn the_server_name_selects_the_certificate() {
    let files = Files::new("names");
    let pairs = [
        files.pair("first", &["one.example", "localhost"]),
        files.pair("second", &["two.example", "*.wild.example"]),
        files.pair("third", &["x.wild.example", "two.example"]),
    ];
    let acceptor = acceptor(&pairs);
    let facts = acceptor.certificates().facts().to_vec();
    assert_eq!(facts[1].names, ["two.example", "*.wild.example"]);
    assert_eq!(facts[1].file, pairs[1].certificate);
    let own = |at: usize| {
        use rustls::pki_types::pem::PemObject;
        rustls::pki_types::CertificateDer::from_pem_file(&pairs[at].certificate).unwrap().to_vec()
    };
    for (name, at) in [
        ("one.example", 0),
        ("localhost", 0),
        ("two.example", 1),
        ("TWO.example", 1),
        ("a.wild.example", 1),
        ("x.wild.example", 2),
    ] {
        assert!(certificate_for(&acceptor, &pairs, name) == own(at), "{name}");
    }
    // Without a server name, or with an unknown one, the server uses the first certificate. The client refuses this
    // certificate later, but the server cannot know that.
    for name in ["unknown.example", "a.b.wild.example", "127.0.0.1"] {
        let chosen = acceptor.certificates().choose_der(name);
        assert!(chosen == own(0), "{name}");
    }
}

#[test]
fn replacing_certificates_keeps_connections_and_tickets() {
    let files = Files::new("replaced");
    let (old, new) = ([files.pair("old", &["localhost"])], [files.pair("new", &["localhost"])]);
    let acceptor = acceptor(&old);
    for version in BOTH {
        acceptor.replace(Arc::new(Certificates::load(&old).unwrap()));
        let config = Arc::new(client_config(&[old[0].clone(), new[0].clone()], &[version]));
        let mut before = Pair::new(&acceptor, &config, "localhost", usize::MAX);
        before.shake_hands();
        assert!(!before.server.is_resumed());
        let shown = before.client.peer_certificates().unwrap()[0].to_vec();
        acceptor.replace(Arc::new(Certificates::load(&new).unwrap()));
        before.send(b"still here");
        assert_eq!(before.told(), b"still here");
        let mut resumed = Pair::new(&acceptor, &config, "localhost", usize::MAX);
        resumed.shake_hands();
        assert!(resumed.server.is_resumed(), "the earlier ticket must be accepted");
        assert_eq!(resumed.client.protocol_version(), Some(version.version));
        let stranger = Arc::new(client_config(&[old[0].clone(), new[0].clone()], &[version]));
        let mut after = Pair::new(&acceptor, &stranger, "localhost", usize::MAX);
        after.shake_hands();
        assert_ne!(after.client.peer_certificates().unwrap()[0].to_vec(), shown);
    }
}

#[test]
fn challenges_are_answered_only_to_clients_that_ask_for_them() {
    let files = Files::new("challenge");
    let pairs = [files.pair("a", &["a.example"])];
    let self_signed = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let own = OwnKey::new(made.cert.der().to_vec(), made.signing_key.serialize_der()).unwrap();
        (made.cert.der().to_vec(), Arc::new(own))
    };
    let (stand_in, answer) = (self_signed("none.invalid"), self_signed("a.example"));
    // The certificate that a client with this server name receives, and whether the connection is a challenge.
    let shown = |acceptor: &Acceptor, name: &str, protocols: &[&str]| {
        let mut config = client_config(&pairs, &BOTH);
        config.dangerous().set_certificate_verifier(Arc::new(Anyone));
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut pair = Pair::new(acceptor, &Arc::new(config), name, usize::MAX);
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            pair.carry().ok()?;
        }
        Some((pair.client.peer_certificates().unwrap()[0].to_vec(), pair.server.is_challenge()))
    };
    let plain = acceptor(&pairs);
    let served = plain.certificates().choose_der("a.example");
    let hub = plain.clone().with_challenges(Arc::clone(&stand_in.1));
    let is_served = Some((served, false));
    assert_eq!(shown(&hub, "a.example", &["http/1.1"]), is_served);
    assert_eq!(shown(&hub, "a.example", &["acme-tls/1"]), None, "no challenge has begun");
    hub.begin_challenge("a.example", Arc::clone(&answer.1));
    assert_eq!(shown(&hub, "A.example", &["acme-tls/1"]), Some((answer.0, true)));
    assert_eq!(shown(&hub, "b.example", &["acme-tls/1"]), None);
    assert_eq!(shown(&hub, "a.example", &["http/1.1", "acme-tls/1"]), is_served);
    assert_eq!(shown(&hub, "a.example", &[]), is_served);
    hub.end_challenge("a.example");
    assert_eq!(shown(&hub, "a.example", &["acme-tls/1"]), None);
    assert_eq!(
        shown(&plain, "a.example", &["acme-tls/1"]),
        None,
        "the acceptor answers no challenges without TLS_ACME"
    );
    let empty = acceptor(&[]).with_challenges(stand_in.1);
    assert_eq!(shown(&empty, "a.example", &["http/1.1"]), Some((stand_in.0, false)));
    assert_eq!(shown(&acceptor(&[]), "a.example", &["http/1.1"]), None);
}

/// Accepts every certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn hubs_with_one_ticket_secret_resume_each_others_sessions() {
    let files = Files::new("shared");
    let pairs = [files.pair("a", &["localhost"])];
    let hub = |secret: Option<&[u8]>| Acceptor::new(Arc::new(Certificates::load(&pairs).unwrap()), secret).unwrap();
    for version in BOTH {
        for (here, there, resumes) in [
            (Some(&b"one"[..]), Some(&b"one"[..]), true),
            (Some(b"one"), Some(b"another"), false),
            (Some(b"one"), None, false),
            (None, None, false),
        ] {
            let config = Arc::new(client_config(&pairs, &[version]));
            let mut first = Pair::new(&hub(here), &config, "localhost", usize::MAX);
            first.shake_hands();
            first.send(b"x");
            let mut second = Pair::new(&hub(there), &config, "localhost", usize::MAX);
            second.shake_hands();
            assert_eq!(second.server.is_resumed(), resumes, "{here:?} {there:?}");
            assert_ne!(second.client.protocol_version(), Some(ProtocolVersion::TLSv1_1));
        }
    }
}

#[test]
fn an_invalid_file_is_named_with_the_reason() {
    let files = Files::new("bad");
    let (good, other) = (files.pair("good", &["a.example"]), files.pair("other", &["b.example"]));
    let empty = files.write("empty", "");
    let garbage = files.write("garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let broken = files.write("broken", "-----BEGIN CERTIFICATE-----\n????\n");
    let encrypted =
        files.write("encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let long = files.write("long", &"x".repeat(1 << 20));
    let missing = files.0.join("missing");
    for (certificate, key, role, problem) in [
        (&missing, &good.key, FileRole::Certificate, "cannot be read"),
        (&files.0, &good.key, FileRole::Certificate, "cannot be read"),
        (&empty, &good.key, FileRole::Certificate, "has no certificate: use a PEM file"),
        (&good.key, &good.key, FileRole::Certificate, "has a private key and no certificate"),
        (&garbage, &good.key, FileRole::Certificate, "has a certificate that cannot be read"),
        (&broken, &good.key, FileRole::Certificate, "is not valid PEM"),
        (&long, &good.key, FileRole::Certificate, "is too long"),
        (&good.certificate, &missing, FileRole::Key, "cannot be read"),
        (&good.certificate, &good.certificate, FileRole::Key, "has no private key"),
        (&good.certificate, &encrypted, FileRole::Key, "openssl pkey"),
        (&good.certificate, &other.key, FileRole::Key, "does not match the certificate in"),
    ] {
        let pair = PairFiles { certificate: certificate.clone(), key: key.clone() };
        let error = Certificates::load(&[good.clone(), pair]).unwrap_err();
        assert_eq!(error.role, role, "{error}");
        let file = if role == FileRole::Key { key } else { certificate };
        assert_eq!(&error.file, file, "{error}");
        assert!(error.problem.contains(problem), "{error}");
    }
}

#[test]
fn facts_and_stamps_match_the_files() {
    let files = Files::new("facts");
    let now = SystemTime::now();
    let mut made = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    made.not_after = (now + Duration::from_secs(10 * 86_400)).into();
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = PairFiles {
        certificate: files.write("a.crt", &made.self_signed(&key).unwrap().pem()),
        key: files.write("a.key", &key.serialize_pem()),
    };
    let loaded = Certificates::load(std::slice::from_ref(&pair)).unwrap();
    let days = loaded.facts()[0].seconds_left(now) / 86_400.0;
    assert!((9.9..=10.0).contains(&days), "{days}");
    assert!(loaded.facts()[0].seconds_left(now + Duration::from_secs(11 * 86_400)) < 0.0);

    // As in Kubernetes, the file is a link into a directory that is itself a link.
    let link = |to: &str| {
        let new = files.0.join("new");
        std::os::unix::fs::symlink(to, &new).unwrap();
        std::fs::rename(new, files.0.join("data")).unwrap();
    };
    for version in ["v1", "v2"] {
        std::fs::create_dir(files.0.join(version)).unwrap();
        std::fs::copy(&pair.certificate, files.0.join(version).join("a.crt")).unwrap();
    }
    link("v1");
    std::os::unix::fs::symlink("data/a.crt", files.0.join("mounted")).unwrap();
    let mounted = [PairFiles { certificate: files.0.join("mounted"), key: pair.key.clone() }];
    let before = FileStamps::of(&mounted);
    assert_eq!(FileStamps::of(&mounted), before);
    link("v2");
    let after = FileStamps::of(&mounted);
    assert_ne!(after, before);
    std::fs::remove_file(files.0.join("v2/a.crt")).unwrap();
    assert_ne!(FileStamps::of(&mounted), after);
}

/// A CA with this common name.
fn authority(name: &str) -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of this authority for `name`.
fn issued(files: &Files, authority: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>, name: &str) -> PairFiles {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    PairFiles {
        certificate: files.write(&format!("{name}.crt"), &made.pem()),
        key: files.write(&format!("{name}.key"), &key.serialize_pem()),
    }
}

#[test]
fn only_link_connections_ask_for_a_certificate_and_none_is_resumed() {
    let files = Files::new("links");
    let pairs = [files.pair("a", &["localhost"])];
    let (one, two) = (authority("one"), authority("two"));
    let load = |text: &str| ClientAuthorities::load(&files.write("clients", text)).unwrap();
    let own = issued(&files, &one, "hub");
    let certificate = ClientCertificate::new(Arc::new(ClientCertificate::load(&own).unwrap()));
    for version in BOTH {
        let acceptor = acceptor(&pairs).with_authorities(&load(&one.pem())).unwrap();
        let config = |presents: bool| {
            let mut config = client_config(&pairs, &[version]);
            if presents {
                config.client_auth_cert_resolver = certificate.resolver();
            }
            Arc::new(config)
        };
        let shaken = |config: &Arc<ClientConfig>, is_link: bool| {
            let mut pair = Pair::new(&acceptor, config, "localhost", usize::MAX);
            if is_link {
                pair.server = acceptor.link_connection().unwrap();
            }
            pair.carry().map(|()| (pair.server.is_certified(), pair.server.is_resumed()))
        };
        let hub = config(true);
        assert_eq!(shaken(&hub, true).unwrap(), (true, false));
        assert_eq!(shaken(&hub, true).unwrap(), (true, false), "link connections issue no tickets");
        assert_eq!(shaken(&config(false), true).unwrap(), (false, false));
        // Other connections ask for no certificate, and issue tickets that link connections do not accept.
        assert_eq!(shaken(&hub, false).unwrap(), (false, false));
        assert_eq!(shaken(&hub, false).unwrap(), (false, true));
        assert_eq!(shaken(&hub, true).unwrap(), (true, false));
        acceptor.replace_authorities(&load(&two.pem())).unwrap();
        let error = shaken(&hub, true).unwrap_err();
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
        assert!(matches!(fault, Some(Fault::ClientCertificate(why)) if why.contains("MESH_CLIENT_CA")), "{error}");
        acceptor.replace_authorities(&load(&(two.pem() + &one.pem()))).unwrap();
        assert_eq!(shaken(&hub, true).unwrap(), (true, false));
        // The hub presents its new certificate in new connections.
        let of_two = issued(&files, &two, "hub-of-two");
        certificate.replace(Arc::new(ClientCertificate::load(&of_two).unwrap()));
        acceptor.replace_authorities(&load(&two.pem())).unwrap();
        assert_eq!(shaken(&hub, true).unwrap(), (true, false));
        certificate.replace(Arc::new(ClientCertificate::load(&own).unwrap()));
    }
}

#[test]
fn unsafe_authorities_and_unusable_client_certificates_are_refused() {
    let files = Files::new("clients");
    let ca = authority("ca");
    let public = include_str!("isrg-root-x2.pem");
    for (text, expected) in [
        ("", "has no certificate"),
        ("hello", "has no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (&*std::fs::read_to_string(issued(&files, &ca, "hub").certificate).unwrap(), "is not a CA: use"),
        (public, "has a public CA, of which anyone can get a certificate: use"),
        (&(ca.pem() + public), "has a public CA"),
    ] {
        let error = ClientAuthorities::load(&files.write("wrong", text)).unwrap_err();
        assert!(error.problem.contains(expected), "{error}");
    }
    assert!(ClientAuthorities::load(&files.0.join("nowhere")).unwrap_err().problem.contains("cannot be read"));
    assert_eq!(ClientAuthorities::load(&files.write("ca", &ca.pem().repeat(2))).unwrap().facts().len(), 2);
    let own = PairFiles {
        certificate: files.write("ca.crt", &ca.pem()),
        key: files.write("ca.key", &ca.key().serialize_pem()),
    };
    let error = ClientCertificate::load(&own).unwrap_err();
    assert!(error.problem.contains("has a CA certificate"), "{error}");
    assert!(ClientCertificate::load(&issued(&files, &ca, "good")).is_ok());
}
