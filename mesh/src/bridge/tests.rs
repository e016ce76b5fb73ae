//! Tests of the bridge with real redis-servers.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::envelope::{RouteHeader, Routed};
use proto::limits::{BRIDGE_FRAME_BYTES, BRIDGE_PROBE, BRIDGE_QUEUE_BYTES};
use proto::{Envelope, HubId, PeerId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::redis_server::{RedisServer, cluster, is_installed, node};
use super::frame::{HEADER, Seal};
use super::{Bridge, BridgeConfig, BridgeEvent, REDIS_ACL, REDIS_CLUSTER_ACL};

mod redis_server;

/// Longer than any event takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test on a runtime like that of the mesh's thread.
fn on_a_runtime(test: impl AsyncFnOnce()) {
    if !is_installed() {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(Box::pin(test()));
}

/// A hub with its bridge.
struct Hub {
    id: HubId,
    bridge: Bridge,
    events: mpsc::Receiver<(HubId, BridgeEvent)>,
}

fn id(n: u8) -> HubId {
    HubId(PeerId::from_bytes([n; 20]))
}

fn config(n: u8, url: &str) -> BridgeConfig {
    BridgeConfig {
        url: url.to_owned(),
        namespace: "test".to_owned(),
        hub: id(n),
        token: Some("mesh token".into()),
        also: None,
        extra_roots: None,
    }
}

impl Hub {
    fn start(config: BridgeConfig) -> Self {
        let (sender, events) = mpsc::channel(64);
        Self { id: config.hub, bridge: Bridge::start(config, sender), events }
    }

    async fn up(n: u8, url: &str) -> Self {
        let mut hub = Self::start(config(n, url));
        hub.comes_up().await;
        hub
    }

    async fn event(&mut self) -> BridgeEvent {
        loop {
            match timeout(DEADLINE, self.events.recv()).await {
                Ok(Some((_, BridgeEvent::Met))) => {}
                Ok(event) => return event.expect("the bridge has ended").1,
                Err(_) => panic!("nothing happened at {}: {:?}", self.id, self.bridge.view()),
            }
        }
    }

    /// Whether frames of another hub are accepted.
    fn has_met(&self, other: HubId) -> bool {
        self.bridge.state.fresh.borrow().as_ref().is_some_and(|fresh| fresh.borrow().is_met(other))
    }

    async fn comes_up(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, BridgeEvent::Up), "{event:?} at {}: {:?}", self.id, self.bridge.view());
        assert!(self.bridge.view().connected);
    }

    /// Waits until the bridge goes down, and ignores other events.
    async fn goes_down(&mut self) {
        while !matches!(self.event().await, BridgeEvent::Down) {}
        assert!(!self.bridge.view().connected);
        assert_eq!(self.bridge.queued_bytes(), 0);
    }

    async fn hears(&mut self) -> (HubId, String) {
        match self.event().await {
            BridgeEvent::Received { from, frame } => (from, String::from_utf8(frame).unwrap()),
            other @ (BridgeEvent::Up | BridgeEvent::Down | BridgeEvent::Met) => {
                panic!("{other:?} at {}: {:?}", self.id, self.bridge.view())
            }
        }
    }

    fn says(&mut self, to: Option<HubId>, words: &str) {
        self.bridge.push(to, |out| out.extend_from_slice(words.as_bytes()));
        self.bridge.flush();
    }
}

/// Waits until all of these hubs have answered each other.
async fn have_met(hubs: &[&Hub]) {
    until(|| hubs.iter().all(|hub| hubs.iter().all(|other| hub.id == other.id || hub.has_met(other.id)))).await;
}

/// Checks that two hubs receive each other over both kinds of channels.
async fn hear_each_other(a: &mut Hub, b: &mut Hub) {
    have_met(&[a, b]).await;
    for (to, words) in [(None, "to all"), (Some(b.id), "to b")] {
        a.says(to, words);
        assert_eq!(b.hears().await, (a.id, words.to_owned()));
    }
    for (to, words) in [(None, "back to all"), (Some(a.id), "to a")] {
        b.says(to, words);
        assert_eq!(a.hears().await, (b.id, words.to_owned()));
    }
}

/// Waits for a condition that no event reports.
async fn until(mut what: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < DEADLINE, "it never held");
        tokio::task::yield_now().await;
    }
}

#[test]
fn frames_reach_everyone_or_one_hub_and_never_their_sender() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        let mut c = Hub::up(3, &redis.url()).await;
        have_met(&[&a, &b, &c]).await;
        let before = a.bridge.view();
        a.bridge.push(None, |out| out.extend_from_slice(b"one"));
        a.bridge.push(Some(b.id), |out| out.extend_from_slice(b"secret"));
        a.bridge.push(None, |out| out.extend_from_slice(b" two"));
        a.bridge.flush();
        assert!(a.bridge.queued_bytes() > 0);
        assert_eq!(c.hears().await, (a.id, "one two".to_owned()));
        let mut heard = [b.hears().await.1, b.hears().await.1];
        heard.sort();
        assert_eq!(heard, ["one two", "secret"]);
        c.says(None, "mine");
        assert_eq!(a.hears().await, (c.id, "mine".to_owned()));
        until(|| a.bridge.queued_bytes() == 0 && a.bridge.view().published >= before.published + 2).await;
        let view = a.bridge.view();
        assert_eq!((view.received, view.refused, view.lost, view.errors, view.reconnects), (1, 0, 0, 0, 0));
        assert!(view.bytes_out > 0 && view.bytes_in > 0 && view.last_error.is_none());
        assert_eq!(view.address, redis.url());
    });
}

#[test]
fn frames_of_strangers_are_refused_and_counted() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        let mut stranger = Hub::start(BridgeConfig { token: Some("another".into()), ..config(3, &redis.url()) });
        stranger.comes_up().await;
        let mut elsewhere = Hub::start(BridgeConfig { namespace: "other".to_owned(), ..config(4, &redis.url()) });
        elsewhere.comes_up().await;
        let before = a.bridge.view().refused;
        stranger.says(Some(a.id), "let me in");
        elsewhere.says(None, "hello");
        for junk in ["", "PPB", "x".repeat(200).as_str()] {
            let channel = format!("test:mesh.1:hub:{}", a.id);
            _ = redis::cmd("PUBLISH").arg(channel).arg(junk).exec(&mut redis.admin());
        }
        until(|| a.bridge.view().refused >= before + 4).await;
        hear_each_other(&mut a, &mut b).await;
    });
}

#[test]
fn a_killed_redis_and_its_return_are_noticed() {
    on_a_runtime(async || {
        let mut redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        hear_each_other(&mut a, &mut b).await;
        redis.kill();
        a.goes_down().await;
        b.goes_down().await;
        a.says(None, "into the void");
        assert_eq!(a.bridge.queued_bytes(), 0);
        let failed = a.bridge.view().errors;
        until(|| a.bridge.view().errors >= failed + 3).await;
        redis.launch();
        a.comes_up().await;
        b.comes_up().await;
        hear_each_other(&mut a, &mut b).await;
        assert_eq!(a.bridge.view().reconnects, 1);
    });
}

#[test]
fn clients_that_redis_disconnects_reconnect() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        for round in 1..=5 {
            for kind in ["pubsub", "normal"] {
                let _: i64 = redis.ask(&format!("CLIENT KILL TYPE {kind} SKIPME yes"));
            }
            a.goes_down().await;
            b.goes_down().await;
            a.comes_up().await;
            b.comes_up().await;
            hear_each_other(&mut a, &mut b).await;
            assert_eq!(a.bridge.view().reconnects, round);
        }
    });
}

#[test]
fn a_paused_redis_counts_as_down_until_it_continues() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        redis.signal("STOP");
        while a.bridge.queued_bytes() < BRIDGE_QUEUE_BYTES {
            a.bridge.push(None, |out| out.resize(out.len() + 10_000, 0));
        }
        a.says(None, "no room");
        assert_eq!(a.bridge.view().lost, 1);
        a.goes_down().await;
        b.goes_down().await;
        // Attempts to reconnect get no answer meanwhile.
        let failed = a.bridge.view().errors;
        until(|| a.bridge.view().errors > failed).await;
        redis.signal("CONT");
        a.comes_up().await;
        b.comes_up().await;
        hear_each_other(&mut a, &mut b).await;
    });
}

#[test]
fn many_frames_arrive_in_order() {
    const FRAMES: u32 = 20_000;
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        have_met(&[&a, &b]).await;
        let to = b.id;
        let send = async {
            for n in 0..FRAMES {
                a.bridge.push(if n % 2 == 0 { Some(to) } else { None }, |out| out.extend_from_slice(&n.to_le_bytes()));
                a.bridge.flush();
                // The bridge gets a turn, and fewer pipelines are in progress than allowed, so each flush is one frame.
                tokio::task::yield_now().await;
                until(|| a.bridge.queued_bytes() < 4 * 60).await;
            }
        };
        let receive = async {
            let mut next = [0, 1];
            while next != [FRAMES, FRAMES + 1] {
                let BridgeEvent::Received { frame, .. } = b.event().await else { panic!("{:?}", b.bridge.view()) };
                for n in frame.chunks_exact(4).map(|n| u32::from_le_bytes(n.try_into().unwrap())) {
                    let next = &mut next[n as usize % 2];
                    assert_eq!(n, *next);
                    *next += 2;
                }
            }
        };
        tokio::join!(send, receive);
        assert_eq!(b.bridge.view().lost, 0);
        assert!(b.bridge.view().received > u64::from(FRAMES / 2), "{:?}", b.bridge.view());
        until(|| a.bridge.view().published >= b.bridge.view().received).await;
    });
}

#[test]
fn one_large_flush_arrives_in_order() {
    const ENVELOPES: u32 = 1_000;
    const LEN: usize = 8 * 1024;
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        have_met(&[&a, &b]).await;
        // Many pipelines, started in one turn.
        for n in 0..ENVELOPES {
            a.bridge.push(None, |out| {
                out.extend_from_slice(&n.to_le_bytes());
                out.resize(out.len() + LEN - 4, 0);
            });
        }
        a.bridge.flush();
        let mut next = 0;
        while next < ENVELOPES {
            let BridgeEvent::Received { frame, .. } = b.event().await else { panic!("{:?}", b.bridge.view()) };
            for envelope in frame.chunks_exact(LEN) {
                assert_eq!(envelope[..4], next.to_le_bytes());
                next += 1;
            }
        }
        assert_eq!(b.bridge.view().lost, 0);
    });
}

#[test]
fn a_mesh_that_does_not_read_loses_only_frames() {
    const FRAMES: usize = 1_400;
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        have_met(&[&a, &b]).await;
        for _ in 0..FRAMES {
            a.bridge.push(Some(b.id), |out| out.resize(out.len() + BRIDGE_FRAME_BYTES, 0));
            a.bridge.flush();
            until(|| a.bridge.queued_bytes() < BRIDGE_QUEUE_BYTES / 2).await;
        }
        until(|| a.bridge.view().published >= FRAMES as u64).await;
        let mut heard = 0;
        loop {
            // This frame may be lost too while there is no room.
            a.says(Some(b.id), "last");
            if b.hears().await.1.ends_with("last") {
                break;
            }
            heard += 1;
        }
        let view = b.bridge.view();
        assert!(view.lost > 0 && heard > 64 && heard < FRAMES, "heard {heard}: {view:?}");
        assert_eq!((view.reconnects, view.errors), (0, 0));
        let begin = Instant::now();
        while begin.elapsed() < BRIDGE_PROBE * 2 {
            tokio::select! {
                event = b.events.recv() => {
                    assert!(matches!(event, Some((_, BridgeEvent::Received { .. } | BridgeEvent::Met))), "{event:?}");
                }
                () = tokio::task::yield_now() => {}
            }
        }
        until(|| a.bridge.queued_bytes() == 0).await;
    });
}

#[test]
fn a_bridge_connects_with_a_password_or_an_acl_user_and_not_with_a_wrong_one() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let rights = REDIS_ACL.replace("<namespace>", "test");
        let _: String = redis.ask(&format!("ACL SETUSER bridge on >se:cr@t {rights}"));
        let at = |user: &str| format!("redis://{user}@127.0.0.1:{}", redis.port);
        let mut a = Hub::up(1, &at("bridge:se%3Acr%40t")).await;
        let mut b = Hub::up(2, &at("bridge:se%3Acr%40t")).await;
        hear_each_other(&mut a, &mut b).await;
        assert_eq!(a.bridge.view().address, redis.url());
        // A database number would need the right to select it. A mesh with bounded discovery has a longer namespace.
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

        // Rights only to subscribe: its frames do not come back.
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
    let page = include_str!("../../../docs/troubleshooting.md");
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
        assert!(view.last_error.as_deref().is_some_and(|error| error.contains("certificate")), "{view:?}");
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

/// Records everything that is published, in order: channel and frame.
struct Recorder(redis::Connection);

impl Recorder {
    fn start(redis: &RedisServer) -> Self {
        let mut connection = redis.admin();
        redis::cmd("PSUBSCRIBE").arg("*").exec(&mut connection).unwrap();
        connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self(connection)
    }

    fn stop(mut self) -> Vec<(String, Vec<u8>)> {
        let mut recorded = Vec::new();
        while let Ok(push) = self.0.recv_response() {
            let (_, _, channel, frame): (String, String, String, Vec<u8>) = redis::from_redis_value(push).unwrap();
            recorded.push((channel, frame));
        }
        recorded
    }
}

fn publish(redis: &RedisServer, frames: &[(String, Vec<u8>)]) {
    let mut connection = redis.admin();
    for (channel, frame) in frames {
        redis::cmd("PUBLISH").arg(channel).arg(frame.as_slice()).exec(&mut connection).unwrap();
    }
}

#[test]
fn recorded_frames_are_refused_by_old_and_new_hubs() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let recorder = Recorder::start(&redis);
        let mut a = Hub::up(1, &redis.url()).await;
        let mut b = Hub::up(2, &redis.url()).await;
        hear_each_other(&mut a, &mut b).await;
        let recorded = recorder.stop();
        assert!(recorded.len() >= 8, "{recorded:?}");
        // The frames are repeated while the hub lives, and after it has ended.
        publish(&redis, &recorded);
        hear_each_other(&mut a, &mut b).await;
        drop(a);
        let mut beginner = Hub::up(3, &redis.url()).await;
        let mut again = Hub::up(2, &redis.url()).await;
        for _ in 0..3 {
            publish(&redis, &recorded);
        }
        until(|| [&b, &beginner, &again].iter().all(|hub| hub.bridge.view().stale.iter().sum::<u64>() >= 6)).await;
        for hub in [&mut b, &mut beginner, &mut again] {
            while let Ok(event) = hub.events.try_recv() {
                assert!(!matches!(event, (_, BridgeEvent::Received { .. })), "{event:?} at {}", hub.id);
            }
            assert_eq!(hub.bridge.view().refused, 0);
        }
        assert!(!beginner.has_met(id(1)) && !again.has_met(id(1)));
        // The view shows that the frames come from a hub that does not answer.
        until(|| {
            publish(&redis, &recorded[recorded.len() - 1..]);
            publish(&redis, &recorded[..2]);
            beginner.bridge.view().one_way.contains(&id(1))
        })
        .await;
    });
}

#[test]
fn two_live_hubs_with_one_id_receive_each_other() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut one = Hub::up(1, &redis.url()).await;
        let mut other = Hub::up(1, &redis.url()).await;
        until(|| one.has_met(id(1)) && other.has_met(id(1))).await;
        one.says(None, "it is me");
        assert_eq!(other.hears().await, (id(1), "it is me".to_owned()));
        other.says(None, "no, me");
        assert_eq!(one.hears().await, (id(1), "no, me".to_owned()));
    });
}

#[test]
fn frames_of_an_earlier_process_do_not_confirm_the_bridge() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let recorder = Recorder::start(&redis);
        let hub = Hub::up(1, &redis.url()).await;
        drop(hub);
        let recorded = recorder.stop();
        let _: String = redis.ask("ACL SETUSER mute on >secret resetchannels &test:* -@all +hello +subscribe");
        let mute = Hub::start(config(1, &format!("redis://mute:secret@127.0.0.1:{}", redis.port)));
        until(|| {
            publish(&redis, &recorded);
            mute.bridge.view().errors >= 2
        })
        .await;
        assert!(mute.events.is_empty());
    });
}

#[test]
fn frames_of_a_hub_that_receives_nothing_are_refused_until_it_receives() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut a = Hub::up(1, &redis.url()).await;
        // This hub publishes frames and receives none. A hub at a replica sees a hub at the master in this way.
        let seal = Seal::new(id(2), Some("mesh token"), None);
        let mut fresh = super::fresh::Fresh::new().unwrap();
        let channel = "test:mesh.1:presence";
        let mut speak = || {
            let mut frame = seal.begin();
            fresh.stamp(None, &mut frame);
            frame.extend_from_slice(b"payload");
            seal.finish(channel, &mut frame);
            publish(&redis, &[(channel.to_owned(), frame)]);
        };
        until(|| {
            speak();
            !a.bridge.view().one_way.is_empty()
        })
        .await;
        assert_eq!(a.bridge.view().one_way, [id(2)]);
        while let Ok(event) = a.events.try_recv() {
            assert!(!matches!(event, (_, BridgeEvent::Received { .. })), "{event:?}");
        }
        let mut b = Hub::up(2, &redis.url()).await;
        hear_each_other(&mut a, &mut b).await;
        until(|| a.bridge.view().one_way.is_empty()).await;
    });
}

/// A hub of version 2.0: its frames have no stamps, it ignores those of others, and it answers questions.
struct OldHub {
    id: HubId,
    redis: redis::Connection,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl OldHub {
    fn start(n: u8, redis: &RedisServer) -> Self {
        let (mut subscribed, mut answers) = (redis.admin(), redis.admin());
        redis::cmd("SUBSCRIBE").arg(format!("test:mesh.1:hub:{}", id(n))).exec(&mut subscribed).unwrap();
        let thread = std::thread::spawn(move || {
            loop {
                let push = subscribed.recv_response().unwrap();
                let (_, _, frame): (String, String, Vec<u8>) = redis::from_redis_value(push).unwrap();
                if frame == b"stop" {
                    return;
                }
                Self::answer(id(n), &frame[HEADER..], &mut answers);
            }
        });
        Self { id: id(n), redis: redis.admin(), thread: Some(thread) }
    }

    fn publish(hub: HubId, to: Option<HubId>, payload: &[u8], redis: &mut redis::Connection) {
        let channel = to.map_or("test:mesh.1:presence".to_owned(), |hub| format!("test:mesh.1:hub:{hub}"));
        let seal = Seal::new(hub, Some("mesh token"), None);
        let mut frame = seal.begin();
        frame.truncate(HEADER);
        frame.extend_from_slice(payload);
        seal.finish(&channel, &mut frame);
        redis::cmd("PUBLISH").arg(channel).arg(frame).exec(redis).unwrap();
    }

    fn says(&mut self, to: Option<HubId>, payload: &[u8]) {
        Self::publish(self.id, to, payload, &mut self.redis);
    }

    fn answer(hub: HubId, mut payload: &[u8], redis: &mut redis::Connection) {
        while let Ok(Some(envelope)) = Envelope::decode(&mut payload) {
            if let Envelope::Routed(route, routed) = envelope
                && let Routed::Takeover { peer, ticket, .. } = *routed
            {
                let back = RouteHeader { to: route.from, from: hub, hops: 1, ..route };
                let answer = Routed::TakeoverAnswer { peer, ticket, in_use: false };
                let mut payload = Vec::new();
                Envelope::Routed(back, Box::new(answer)).encode(&mut payload);
                Self::publish(hub, Some(route.from), &payload, redis);
            }
        }
    }
}

impl Drop for OldHub {
    fn drop(&mut self) {
        _ = redis::cmd("PUBLISH").arg(format!("test:mesh.1:hub:{}", self.id)).arg("stop").exec(&mut self.redis);
        _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_hub_of_version_2_0_takes_part_while_it_lives() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let mut new = Hub::up(1, &redis.url()).await;
        let mut old = OldHub::start(2, &redis);
        let recorder = Recorder::start(&redis);
        let begin = Instant::now();
        while !new.has_met(old.id) {
            assert!(begin.elapsed() < DEADLINE, "{:?}", new.bridge.view());
            old.says(None, b"\0\0\0\0beat");
            tokio::task::yield_now().await;
        }
        old.says(None, b"to all");
        while !matches!(new.event().await, BridgeEvent::Received { frame, .. } if frame == b"to all") {}
        let recorded = recorder.stop();
        drop(old);
        let [mut one, mut other] = [Hub::up(3, &redis.url()).await, Hub::up(4, &redis.url()).await];
        for _ in 0..10 {
            publish(&redis, &recorded);
        }
        hear_each_other(&mut one, &mut other).await;
        assert!(!one.has_met(id(2)) && !other.has_met(id(2)));
    });
}

#[test]
fn a_dropped_bridge_leaves_nothing_behind() {
    on_a_runtime(async || {
        let redis = RedisServer::start(&[]);
        let hub = Hub::up(1, &redis.url()).await;
        assert_eq!(redis.ask::<Vec<String>>("PUBSUB CHANNELS *").len(), 2);
        drop(hub);
        until(|| redis.ask::<Vec<String>>("PUBSUB CHANNELS *").is_empty()).await;
    });
}

#[test]
fn an_invalid_url_is_only_reported() {
    on_a_runtime(async || {
        let config = config(1, "redis://u:hunter2@h:port");
        assert!(config.check().is_err_and(|error| !error.contains("hunter2")));
        assert!(!format!("{config:?}").contains("hunter2"));
        let view = Hub::start(config).bridge.view();
        assert!(!view.connected && view.last_error.is_some());
    });
}
