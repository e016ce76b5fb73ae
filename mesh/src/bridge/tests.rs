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
mod replays;
mod servers;

/// Time limit of each wait. No event takes this long, even on a busy machine.
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

/// Checks that two hubs receive each other's frames over both kinds of channels.
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
        assert!(begin.elapsed() < DEADLINE, "the condition did not become true in time");
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
fn frames_with_another_token_are_refused_and_counted() {
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
                // The test waits until the bridge has published most of the queue, so that each flush makes a separate
                // frame.
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
        // The envelopes of this flush need many pipelines, which are started in one turn.
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
            // The frame `last` may be lost, too, while the queue is full.
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
