//! Tests of starting and stopping.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, Heard, frame, id};
use crate::hub::{DEADLINE, DEFAULTS, Hub, command};

#[test]
pub fn a_drain_notifies_every_peer_and_exits_with_0() {
    for shards in ["1", "8"] {
        let mut hub = Hub::start(&[("SHARDS", shards), ("DRAIN_SECS", "8")]);
        let mut peers: Vec<Client> = (0..6).map(|n| Client::join(&hub, n, "n")).collect();
        for peer in &mut peers {
            for _ in 0..5 {
                peer.hear_type("peer-discovered");
            }
        }
        hub.signal("-TERM");
        hub.logged("server_draining");
        let mut peers: Vec<(u64, Client)> = peers
            .into_iter()
            .map(|mut peer| {
                let go_away = peer.hear_type("go-away");
                assert_eq!((&go_away["networkName"], &go_away["data"]["reason"]), (&"n".into(), &"draining".into()));
                (go_away["data"]["closeInMs"].as_u64().unwrap(), peer)
            })
            .collect();
        peers.sort_by_key(|(slot, _)| *slot);
        let (last_slot, mut last) = peers.pop().unwrap();
        assert!(last_slot > peers[0].0, "all peers have the same slot");
        // The last peer to leave receives the leaves of the peers that leave at least 700 ms earlier.
        for (slot, peer) in &mut peers {
            loop {
                match peer.next() {
                    Heard::Close(1012, _) => break,
                    Heard::Text(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            if last_slot - *slot < 700 {
                // The last peer may not receive the leave of a peer that leaves shortly before it.
                continue;
            }
            // The hub still relays messages that the peer sends after it has received the close frame.
            peer.offer(&last.id.clone(), "n", "null", "");
            peer.raw(&frame(8, &[0x03, 0xf4]));
            assert_eq!(last.hear_type("offer")["fromPeerId"], peer.id.as_str());
            assert_eq!(last.hear_type("peer-disconnected")["data"]["reason"], "draining");
        }
        assert_eq!(last.closed().0, 1012);
        drop(last);
        assert_eq!(hub.wait().code(), Some(0));
    }
}

#[test]
fn a_drain_is_spread_over_its_whole_time() {
    for (secs, shards) in [(0, "2"), (1, "1"), (1, "4"), (2, "4")] {
        let mut hub = Hub::start(&[("SHARDS", shards), ("DRAIN_SECS", &secs.to_string())]);
        let mut peers: Vec<Client> = (0..20).map(|n| Client::join(&hub, n, "n")).collect();
        for peer in &mut peers {
            for _ in 0..19 {
                peer.hear_type("peer-discovered");
            }
        }
        hub.signal("-TERM");
        let mut slots: Vec<u64> = peers
            .iter_mut()
            .map(|peer| {
                let go_away = peer.hear_type("go-away");
                let [slot, back] = ["closeInMs", "reconnectInMs"].map(|field| go_away["data"][field].as_u64().unwrap());
                // A hub without other hubs asks its peers to reconnect at least half a second after the end of its
                // drain.
                assert!((secs * 1000 + 500..=secs * 1500 + 1001).contains(&(slot + back)), "{slot} + {back}");
                assert_eq!(peer.closed().0, 1012);
                slot
            })
            .collect();
        slots.sort_unstable();
        drop(peers);
        assert_eq!(hub.wait().code(), Some(0));
        let all = secs * 1000;
        assert!(slots.iter().all(|slot| *slot < all.max(1)), "{secs} s: {slots:?}");
        // Each shard spreads the closes of its own peers over the whole drain, and the fullest of four shards has at
        // least five peers.
        assert!(slots.last().unwrap() * 5 >= all * 4, "{secs} s: {slots:?}");
        let most_at_once = slots.windows(4).all(|four| four[3] > four[0] || all == 0);
        assert!(most_at_once, "{secs} s: {slots:?}");
    }
}

#[test]
pub fn a_second_signal_ends_the_hub_at_once() {
    let mut hub = Hub::start(&[("DRAIN_SECS", "600")]);
    let _peer = Client::join(&hub, 1, "n");
    hub.signal("-TERM");
    hub.logged("server_draining");
    // The hub ignores a second signal that arrives right after the first.
    let deadline = Instant::now() + DEADLINE;
    let asked = Instant::now();
    while hub.ended().is_none() {
        assert!(Instant::now() < deadline, "the hub does not receive signals");
        hub.signal("-INT");
    }
    assert!(asked.elapsed() > Duration::from_millis(400), "the first signal must not count twice");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_drain_without_peers_ends_at_once() {
    let mut hub = Hub::start(&[("DRAIN_SECS", "600")]);
    hub.signal("-INT");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn every_stop_signal_starts_a_drain() {
    for (signal, number) in [("-TERM", 15), ("-INT", 2), ("-QUIT", 3), ("-HUP", 1)] {
        // A hub that is started with SIGQUIT or SIGHUP ignored continues to ignore this signal. The hubs of these tests
        // can inherit ignored signals, because the tests may run under nohup(1).
        if peerpigeon::telemetry::process::ignores(number) && number != 2 {
            continue;
        }
        let mut hub = Hub::start(&[("DRAIN_SECS", "3")]);
        let mut peer = Client::join(&hub, 1, "n");
        peer.say(r#"{"type":"ping"}"#);
        peer.hear_type("pong");
        hub.signal(signal);
        assert_eq!(peer.hear_type("go-away")["data"]["reason"], "draining", "{signal}");
        assert_eq!(peer.closed().0, 1012, "{signal}");
        drop(peer);
        assert_eq!(hub.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_hub_under_nohup_outlives_its_terminal() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP && exec \"$0\"", env!("CARGO_BIN_EXE_peerpigeon")]);
    let mut hub = Hub::run(shell.env_clear().envs(DEFAULTS.iter().copied()), [127, 0, 0, 1]);
    hub.signal("-HUP");
    Client::join(&hub, 1, "n").hears_nothing();
    hub.signal("-TERM");
    let draining = hub.logged("server_draining");
    assert!(draining.contains("drain_secs"), "{draining}");
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for shards in ["1", "4"] {
        let run = command(&[("HOST", "127.0.0.1"), ("PORT", &port), ("SHARDS", shards)]).output().unwrap();
        assert!(!run.status.success());
        assert!(String::from_utf8_lossy(&run.stderr).contains(&port), "{run:?}");
    }
    let hub = Hub::start(&[("SHARDS", "4")]);
    let port = hub.address.port().to_string();
    let run = command(&[("HOST", "127.0.0.1"), ("PORT", &port), ("SHARDS", "4")]).output().unwrap();
    assert!(!run.status.success(), "two hubs must not share a port silently");
}

#[test]
fn peers_reconnect_after_their_hub_was_killed() {
    let mut hub = Hub::start(&[]);
    let address = hub.address;
    let mut a = Client::join(&hub, 1, "n");
    hub.signal("-KILL");
    hub.wait();
    assert_eq!(a.next(), Heard::End);
    let hub = Hub::start(&[("PORT", &address.port().to_string())]);
    let mut a = Client::join(&hub, 1, "n");
    let _b = Client::join(&hub, 2, "n");
    assert_eq!(a.hear()["data"]["peerId"], id(2).as_str());
}

#[test]
fn the_tools_work_against_a_hub() {
    let hub = Hub::start(&[]);
    let mut a = Client::join(&hub, 1, "n");
    let url = format!("ws://{}", hub.address);
    let run: Command = {
        let mut run = command(&[]);
        run.args(["peer", "--hub", &url, "--network", "n", "--listen", "1s", "--json", "--offer-to", &id(1)]);
        run
    };
    let peer = std::thread::spawn(move || { run }.output().unwrap());
    a.hear_type("peer-discovered");
    a.hear_type("offer");
    let run = peer.join().unwrap();
    assert!(run.status.success(), "{run:?}");
    let out = String::from_utf8(run.stdout).unwrap();
    assert!(out.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{out}");
    assert!(out.contains("peer-discovered"), "{out}");
}

#[test]
fn invalid_settings_exit_with_64_and_are_named() {
    let refuses = |env: &[(&str, &str)], args: &[&str], named: &str| {
        // If the hub wrongly accepts the setting, the program `timeout` ends it.
        let mut run = Command::new("timeout");
        run.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("PORT", "0");
        run.args(["20", env!("CARGO_BIN_EXE_peerpigeon")]).envs(env.iter().copied());
        let run = run.args(args).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(64), "{env:?} {args:?}: {said}");
        assert!(said.contains(named), "{said}");
    };
    refuses(&[("PORT", "99999")], &[], "PORT");
    refuses(&[("MAX_CONNECTIONS", "many")], &["serve"], "MAX_CONNECTIONS");
    refuses(&[], &["--shards", "0"], "--shards");
    refuses(&[], &["--no-such-flag"], "--no-such-flag");
    let hubs = ("BOOTSTRAP_HUBS", "ws://127.0.0.1:1");
    refuses(&[("MESH_DNS", "localhost:1"), ("IS_HUB", "true")], &[], "MESH_INSECURE");
    refuses(&[("IS_HUB", "false"), hubs, ("MESH_TOKEN", "t")], &[], "IS_HUB");
    refuses(&[("MESH_TOKEN", "same"), ("AUTH_TOKEN", "same")], &[], "MESH_TOKEN");
    refuses(&[("MESH_CA", "/no/such/file")], &[], "MESH_CA");
    refuses(&[("IS_HUB", "perhaps")], &["serve", "--port", "0"], "IS_HUB");
}
