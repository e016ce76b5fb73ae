use ::mesh::{BridgeView, DialSource, DialView, LinkView};
use proto::envelope::HubStatus;
use proto::{Hop, HubIncarnation, HubView, LinkId};

use super::*;

const URL: &str = "wss://user:pass@a.example:1/ws?token=secret";

fn hub_id(n: u8) -> HubId {
    HubId(PeerId::from_bytes([n; 20]))
}

/// Hub `n` with ordinary values.
fn view(n: u8) -> HubView {
    HubView {
        hub: hub_id(n),
        incarnation: HubIncarnation(1_700_000_000_000 + u64::from(n)),
        live: true,
        draining: false,
        next_hop: None,
        link: None,
        bridged: false,
        legacy: false,
        peers: usize::from(n),
        seq: 0,
        lag: 0,
        heard: Duration::from_millis(500),
        advertise: None,
        public_url: None,
        status: None,
    }
}

fn link(id: u64, n: u8, address: &str, url: Option<&str>) -> LinkView {
    LinkView {
        link: LinkId(id),
        hub: Some(hub_id(n)),
        address: address.parse().unwrap(),
        url: url.map(str::to_owned),
        dialed: url.is_some(),
        ready: true,
        rtt: Some(Duration::from_micros(1_500)),
        bytes: [0; 2],
        queued_bytes: 7,
        saturated: false,
        legacy: false,
        auth: proto::LinkAuth::Token,
        since: Duration::ZERO,
    }
}

fn dial(uri: &str, source: DialSource, connected: bool) -> DialView {
    let last_error = (!connected).then(|| "refused".to_owned());
    DialView {
        uri: uri.to_owned(),
        source,
        attempt_number: 3,
        connected,
        own: false,
        last_attempt: 1_700_000_000_000,
        last_error,
    }
}

/// A hub that knows five other hubs. The tested hub has dialed hub 1, and hub 2 has dialed the tested hub. The tested
/// hub reaches hub 3 through hub 1, and hub 4 over Redis. Hub 5 is lost.
fn meshed() -> TestHub {
    let urls = format!("{URL},ws://b");
    let hub = hub(&[("BOOTSTRAP_HUBS", &urls), ("MESH_TOKEN", "t")], &[]);
    let route = |id| Some(Hop::Link(LinkId(id)));
    hub.mesh.send_replace(Arc::new(MeshReading {
        hubs: vec![
            HubView { link: Some(LinkId(1)), next_hop: route(1), seq: 9, lag: 2, ..view(1) },
            HubView {
                link: Some(LinkId(2)),
                next_hop: route(2),
                draining: true,
                advertise: Some("ws://two:8082".into()),
                public_url: Some("wss://two.example".into()),
                ..view(2)
            },
            HubView { next_hop: route(1), ..view(3) },
            HubView { next_hop: Some(Hop::Bridge(hub_id(4))), bridged: true, ..view(4) },
            HubView { live: false, ..view(5) },
        ],
        links: vec![link(1, 1, "10.0.0.1:1", Some("wss://a.example:1/ws")), link(2, 2, "10.0.0.2:55555", None)],
        dials: vec![
            dial("wss://a.example:1/ws", DialSource::Bootstrap, true),
            dial("ws://10.0.0.9:8080", DialSource::Dns, false),
        ],
        bridge: Some(BridgeView {
            connected: true,
            address: "redis://r".to_owned(),
            one_way: vec![hub_id(9)],
            ..BridgeView::default()
        }),
        ..MeshReading::default()
    }));
    hub
}

#[test]
fn a_hub_without_a_mesh_lists_no_hubs() {
    let hub = hub(&[("BOOTSTRAP_HUBS", URL), ("MESH_TOKEN", "t")], &[]);
    let answer = hub.get("/hubs");
    assert_eq!(answer.plain(), json!({"hubs": [], "timestamp": "T", "totalHubs": 0}));
    assert_eq!(keys(&answer.body), ["hubs", "timestamp", "totalHubs"]);

    let answer = hub.get("/hubstats");
    let dial = json!({"attemptNumber": 0, "connected": false, "lastAttempt": 0, "uri": "wss://a.example:1/ws"});
    assert_eq!(
        answer.plain(),
        json!({"bootstrapHubs": [dial], "connectedHubs": 0, "foundHubs": [], "hubs": [], "links": [],
            "lostHubs": [], "redis": null, "totalHubs": 0})
    );
    assert!(keys(&answer.body).is_sorted(), "{}", answer.body);
}

#[test]
fn every_page_counts_the_other_hubs() {
    let hub = meshed();
    assert_eq!(hub.get("/health").plain()["hubs"], 4);
    let stats = hub.get("/stats").plain();
    assert_eq!((&stats["hubs"], &stats["isHub"], &stats["hubPeerId"]), (&json!(4), &json!(true), &json!(HUB)));
    assert_eq!(stats["bootstrapHubs"], json!({"connected": 1, "total": 2}));
    let metrics = hub.get("/metrics?format=json").plain();
    assert_eq!(metrics["hubs"], json!({"bootstrap_connected": 1, "discovered": 4}));
    assert_eq!(hub.get("/hubs").plain()["totalHubs"], 4);
    let stats = hub.get("/hubstats").plain();
    assert_eq!((&stats["totalHubs"], &stats["connectedHubs"]), (&json!(4), &json!(2)));
}

#[test]
fn a_hub_has_the_fields_of_the_go_hub_and_more() {
    let body = meshed().get("/hubs").plain();
    let hubs = body["hubs"].as_array().unwrap();
    let first = &hubs[0];
    let heard = first["LastActivity"].as_u64().unwrap();
    assert!(clock::unix_ms() - heard < 60_000, "{first}");
    assert_eq!(
        *first,
        json!({"PeerId": hub_id(1).to_string(), "RegisteredAt": 1_700_000_000_001_u64, "LastActivity": heard,
            "NetworkName": "pigeonhub-mesh",
            "Data": {"capabilities": ["signaling", "relay"], "host": "a.example", "isHub": true, "port": 1,
            "timestamp": heard},
            "bridged": false, "lag": 2, "legacy": false, "linked": "dialed", "peers": 1, "publicUrl": null,
            "rttMs": 1.5,
            "seq": 9, "state": "live", "status": null, "url": "wss://a.example:1/ws"})
    );
    let said = |field: &str| hubs.iter().map(|hub| hub[field].clone()).collect::<Vec<_>>();
    assert_eq!(said("linked"), ["dialed", "accepted", "relayed", "bridged"]);
    assert_eq!(said("state"), ["live", "draining", "live", "live"]);
    assert_eq!(hubs[1]["url"], "ws://two:8082");
    assert_eq!((&hubs[1]["Data"]["host"], &hubs[1]["Data"]["port"]), (&json!("two"), &json!(8082)));
    assert_eq!(hubs[1]["publicUrl"], "wss://two.example");
    assert_eq!((&hubs[3]["Data"]["host"], &hubs[3]["rttMs"]), (&json!(""), &Value::Null));
}

#[test]
fn figures_of_other_hubs_are_shown_and_only_web_urls_become_links() {
    let hub = meshed();
    let seen = |admin_url: Option<&str>| {
        let status = HubStatus {
            admin_url: admin_url.map(Into::into),
            version: "2.1.0".into(),
            connections: 3,
            max_connections: 1000,
            cpu: 120,
            busiest_shard: 80,
            signals: 40,
            memory: 9_000_000,
        };
        let status = Some(Arc::new(status));
        hub.mesh.send_replace(Arc::new(MeshReading {
            hubs: vec![HubView { status, ..view(1) }],
            ..MeshReading::default()
        }));
        hub.get("/hubstats").plain()["hubs"][0]["status"].clone()
    };
    let expected = |admin_url: Option<&str>| {
        json!({"adminUrl": admin_url, "busiestShard": 80, "connections": 3, "cpu": 120, "maxConnections": 1000,
            "memory": 9_000_000, "signals": 40, "version": "2.1.0"})
    };
    assert_eq!(seen(Some("https://ops.example:9090")), expected(Some("https://ops.example:9090")));
    assert_eq!(seen(Some("javascript:alert(1)")), expected(None));
    assert_eq!(seen(None), expected(None));
}

#[test]
fn hubstats_show_the_routes_to_hubs_and_the_lost_hubs() {
    let hub = meshed();
    let answer = hub.get("/hubstats");
    let body = answer.plain();
    assert_eq!(
        body["bootstrapHubs"],
        json!([{"attemptNumber": 3, "connected": true, "lastAttempt": 1_700_000_000_000_u64,
            "uri": "wss://a.example:1/ws"},
            {"attemptNumber": 0, "connected": false, "lastAttempt": 0, "uri": "ws://b"}])
    );
    assert_eq!(
        body["foundHubs"],
        json!([{"attemptNumber": 3, "connected": false, "lastAttempt": 1_700_000_000_000_u64, "lastError": "refused",
            "source": "dns", "uri": "ws://10.0.0.9:8080"}])
    );
    let without_times = |mut hubs: Value| {
        for hub in hubs.as_array_mut().unwrap() {
            hub["LastActivity"].take();
            hub["Data"]["timestamp"].take();
        }
        hubs
    };
    let [here, there] = [body["hubs"].clone(), hub.get("/hubs").plain()["hubs"].clone()].map(without_times);
    assert_eq!(here, there, "both pages list the same hubs");
    assert_eq!((&body["lostHubs"][0]["state"], &body["lostHubs"][0]["linked"]), (&json!("lost"), &Value::Null));
    assert_eq!(
        body["links"][1],
        json!({"address": "10.0.0.2:55555", "dialed": false, "hub": hub_id(2).to_string(), "legacy": false,
            "auth": "token", "queuedBytes": 7, "ready": true, "rttMs": 1.5, "saturated": false, "url": null})
    );
    assert_eq!(
        body["redis"],
        json!({"address": "redis://r", "connected": true, "lastError": null, "oneWay": [hub_id(9).to_string()],
            "published": 0, "received": 0, "reconnects": 0})
    );
    assert!(!answer.body.contains("secret") && !answer.body.contains("pass"), "{}", answer.body);
}
