//! Tests with recorded frames that are published again, and with hubs of version 2.0.0.

use super::*;

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
        // This hub publishes frames and receives none. For a hub at a replica, the hubs at the master behave like this
        // hub.
        let seal = Seal::new(id(2), Some("mesh token"), None);
        let mut fresh = crate::bridge::fresh::Fresh::new().unwrap();
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

/// A simulated hub of version 2.0. Hubs of version 2.0 send frames without stamps, ignore the stamps of other hubs, and
/// answer questions.
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
