//! Tests with several kinds of Redis servers: user rights, replicas, clusters, sentinels, TLS.

use super::*;

#[test]
fn a_bridge_connects_with_a_password_or_an_acl_user_and_not_with_wrong_credentials() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let rights = REDIS_ACL.replace("<namespace>", "test");
        let _: String = redis.ask(&format!("ACL SETUSER bridge on >se:cr@t {rights}"));
        let at = |user: &str| format!("redis://{user}@127.0.0.1:{}", redis.port);
        let mut a = Hub::up(1, &at("bridge:se%3Acr%40t")).await;
        let mut b = Hub::up(2, &at("bridge:se%3Acr%40t")).await;
        hear_each_other(&mut a, &mut b).await;
        assert_eq!(a.bridge.view().address, redis.url());
        // The hub does not select the database of the URL, because that would need one more right. A mesh with bounded
        // discovery has a longer namespace.
        let namespace = "test:closest:8".to_owned();
        let longer = BridgeConfig { namespace, ..config(7, &format!("{}/3", at("bridge:se%3Acr%40t"))) };
        Hub::start(longer).comes_up().await;

        let mut wrong = Hub::start(config(3, &at("bridge:wrong")));
        until(|| wrong.bridge.view().errors >= 2).await;
        let view = wrong.bridge.view();
        assert!(!view.connected && wrong.events.try_recv().is_err());
        assert!(view.last_error.as_deref().is_some_and(|error| error.contains("WRONGPASS")), "{view:?}");
        let _: String = redis.ask("ACL SETUSER bridge >wrong");
        wrong.comes_up().await;

        // Rights for another namespace are not enough.
        let other = Hub::start(BridgeConfig { namespace: "other".to_owned(), ..config(4, &at("bridge:wrong")) });
        until(|| other.bridge.view().errors >= 2).await;
        let view = other.bridge.view();
        assert!(view.last_error.as_deref().is_some_and(|error| error.contains("no permissions")), "{view:?}");

        // The user `mute` may only subscribe, so the frames of its hub do not come back.
        let _: String = redis.ask("ACL SETUSER mute on >secret resetchannels &test:mesh.1:* -@all +hello +subscribe");
        let mute = Hub::start(config(6, &at("mute:secret")));
        until(|| mute.bridge.view().errors >= 2).await;
        assert!(!mute.bridge.view().connected && mute.events.is_empty());

        let _: String = redis.ask("CONFIG SET requirepass hunter2");
        let mut plain = Hub::up(5, &format!("redis://:hunter2@127.0.0.1:{}/3", redis.port)).await;
        hear_each_other(&mut a, &mut plain).await;
    });
}

#[test]
fn the_documented_rights_are_the_tested_ones() {
    let page = include_str!("../../../../docs/troubleshooting.md");
    for rights in [REDIS_ACL, REDIS_CLUSTER_ACL] {
        assert!(page.contains(&format!("ACL SETUSER peerpigeon on >password {rights}\n")), "{rights}");
    }
}

#[test]
fn a_replica_becomes_a_bridge_when_it_is_promoted() {
    on_a_runtime(async || {
        let master = RedisServer::start(&[]);
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        let mut hub = Hub::start(config(1, &replica.url()));
        until(|| hub.bridge.view().errors >= 2).await;
        let view = hub.bridge.view();
        assert!(!view.connected && hub.events.is_empty(), "{view:?}");
        assert!(
            view.last_error.as_deref().is_some_and(|error| error.starts_with("this Redis is a replica")),
            "{view:?}"
        );
        let _: String = replica.ask("REPLICAOF NO ONE");
        hub.comes_up().await;
    });
}

#[test]
fn a_bridge_leaves_a_demoted_master_although_its_connections_stay() {
    on_a_runtime(async || {
        let (first, second) = (RedisServer::start(&[]), RedisServer::start(&[]));
        let mut hub = Hub::up(1, &first.url()).await;
        let _: String = first.ask(&format!("REPLICAOF 127.0.0.1 {}", second.port));
        hub.goes_down().await;
        let view = hub.bridge.view();
        assert!(
            view.last_error.as_deref().is_some_and(|error| error.starts_with("this Redis is a replica")),
            "{view:?}"
        );
        let _: String = first.ask("REPLICAOF NO ONE");
        hub.comes_up().await;
        assert_eq!(hub.bridge.view().reconnects, 1);
    });
}

#[test]
fn nodes_of_a_cluster_forward_published_messages_whatever_their_role() {
    on_a_runtime(async || {
        let nodes = cluster();
        let replica = node();
        let _: String = replica.ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
        let master: String = nodes[0].ask("CLUSTER MYID");
        let knows_all = |node: &RedisServer| {
            let known = node.ask::<String>("CLUSTER NODES");
            known.lines().filter(|line| line.contains(" connected") && !line.contains("handshake")).count() == 4
        };
        until(|| nodes.iter().chain([&replica]).all(knows_all)).await;
        let _: String = replica.ask(&format!("CLUSTER REPLICATE {master}"));
        let mut a = Hub::up(1, &replica.url()).await;
        let mut b = Hub::up(2, &nodes[1].url()).await;
        hear_each_other(&mut a, &mut b).await;
    });
}

#[test]
fn a_sentinel_cannot_be_a_bridge() {
    on_a_runtime(async || {
        let mut sentinel = RedisServer::prepare(&[]);
        let file = sentinel.dir.join("sentinel.conf");
        fs::write(&file, format!("port {}\nbind 127.0.0.1\n", sentinel.port)).unwrap();
        sentinel.launch_as_sentinel(&file);
        let hub = Hub::start(config(1, &sentinel.url()));
        until(|| hub.bridge.view().errors >= 2).await;
        let view = hub.bridge.view();
        assert!(
            view.last_error.as_deref().is_some_and(|error| error.starts_with("this is a Redis Sentinel")),
            "{view:?}"
        );
    });
}

#[test]
fn tls_is_verified_against_the_configured_roots() {
    on_a_runtime(async || {
        let mut redis = RedisServer::prepare(&[
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--tls-cert-file",
            "{dir}/cert.pem",
            "--tls-key-file",
            "{dir}/key.pem",
            "--tls-ca-cert-file",
            "{dir}/cert.pem",
            "--tls-auth-clients",
            "no",
        ]);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        fs::write(redis.dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(redis.dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        redis.launch();
        let url = format!("rediss://localhost:{}", redis.port);
        let roots: Arc<[u8]> = made.cert.pem().into_bytes().into();
        let trusting = |n| BridgeConfig { extra_roots: Some(Arc::clone(&roots)), ..config(n, &url) };
        let (mut a, mut b) = (Hub::start(trusting(1)), Hub::start(trusting(2)));
        a.comes_up().await;
        b.comes_up().await;
        hear_each_other(&mut a, &mut b).await;

        let doubting = Hub::start(config(3, &url));
        until(|| doubting.bridge.view().errors >= 2).await;
        let view = doubting.bridge.view();
        assert!(
            view.last_error
                .as_deref()
                .is_some_and(|error| error.contains("is a CA certificate") || error.contains("known authority")),
            "{view:?}"
        );
    });
}

#[test]
fn a_cluster_shards_the_channels_and_a_lost_node_returns() {
    on_a_runtime(async || {
        let mut nodes = cluster();
        let rights = REDIS_CLUSTER_ACL.replace("<namespace>", "test");
        for node in &nodes {
            let _: String = node.ask(&format!("ACL SETUSER bridge on >secret {rights}"));
        }
        let url = format!("redis+cluster://bridge:secret@127.0.0.1:{},127.0.0.1:{}", nodes[0].port, nodes[1].port);
        let mut hubs = Vec::new();
        for n in 1..=6 {
            hubs.push(Hub::up(n, &url).await);
        }
        let shard_channels: Vec<Vec<String>> = nodes.iter().map(|node| node.ask("PUBSUB SHARDCHANNELS")).collect();
        assert!(shard_channels.iter().all(|channels| !channels.is_empty()), "{shard_channels:?}");
        have_met(&hubs.iter().collect::<Vec<_>>()).await;
        let (first, others) = hubs.split_first_mut().unwrap();
        first.says(None, "to all");
        for other in others {
            assert_eq!(other.hears().await, (first.id, "to all".to_owned()));
            first.says(Some(other.id), "to one");
            assert_eq!(other.hears().await, (first.id, "to one".to_owned()));
        }

        let at = shard_channels.iter().position(|channels| channels.iter().any(|name| name.ends_with("presence")));
        let node = &mut nodes[at.unwrap()];
        node.kill();
        for hub in &mut hubs {
            hub.goes_down().await;
        }
        node.launch();
        let _: String = node.ask(&format!("ACL SETUSER bridge on >secret {rights}"));
        for hub in &mut hubs {
            hub.comes_up().await;
        }
        let (a, b) = hubs.split_at_mut(1);
        hear_each_other(&mut a[0], &mut b[0]).await;
    });
}
