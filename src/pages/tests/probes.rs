//! Probes: /livez and /readyz.

use super::*;

#[test]
fn livez_succeeds_in_every_stage_and_readyz_only_while_ready() {
    let hub = hub(&[], &[]);
    let ask = || (hub.get("/livez").status, hub.get("/readyz").status, hub.get("/readyz").body);
    assert_eq!(ask(), (200, 503, "starting\n".to_owned()));
    hub.lifecycle.advance(Stage::Ready);
    assert_eq!(ask(), (200, 200, "ready\n".to_owned()));
    hub.lifecycle.advance(Stage::Draining);
    assert_eq!(ask(), (200, 503, "draining\n".to_owned()));
}

#[test]
fn livez_names_a_thread_that_hangs() {
    let hub = hub(&[], &[]);
    hub.lifecycle.advance(Stage::Ready);
    for tick in 0..130 {
        hub.watchdog.turned(0, Duration::from_millis(100 * tick));
    }
    let said = "stuck: thread shard-1 has made no progress for 12 s\n".to_owned();
    for path in ["/livez", "/readyz"] {
        let answer = hub.get(path);
        assert_eq!((answer.status, answer.body), (503, said.clone()), "{path}");
    }
    assert!(hub.get("/metrics").body.contains("\npeerpigeon_oldest_turn_seconds 12.9\n"));
    hub.watchdog.turned(1, Duration::from_secs(13));
    assert_eq!((hub.get("/livez").status, hub.get("/readyz").status), (200, 200));
}

#[test]
fn a_full_hub_is_live_but_not_ready() {
    for (settings, status) in [(&[][..], 503), (&[("READY_WHEN_FULL", "true")], 200)] {
        let hub = hub(&[&[("MAX_CONNECTIONS", "100")], settings].concat(), &[]);
        hub.lifecycle.advance(Stage::Ready);
        let ask = |connections| {
            hub.gauges.connections.store(connections, Ordering::Relaxed);
            let full = hub.get("/metrics").body.contains("\npeerpigeon_full 1\n");
            (hub.get("/readyz").status, full, hub.get("/livez").status)
        };
        assert_eq!(ask(99), (200, false, 200));
        assert_eq!(ask(100), (status, true, 200));
        assert_eq!(ask(96), (status, true, 200));
        assert_eq!(ask(95), (200, false, 200));
        assert_eq!(ask(99), (200, false, 200));
        hub.lifecycle.advance(Stage::Draining);
        assert_eq!(hub.get("/readyz").body, "draining\n");
    }
}
