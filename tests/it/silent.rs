//! Tests of links that stay open but carry no data, and of the recovery after such a failure.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use proto::limits::{LEASE, LINK_SILENCE};

use crate::client::{Client, id};
use crate::hub::Hub;
use crate::mesh::{TOKEN, discovered, eventually, free_port, json, settled};

/// A path between two hubs that can silently drop data in each direction.
struct Path {
    port: u16,
    swallows: [Arc<AtomicBool>; 2],
}

impl Path {
    fn to(hub: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallows: [Arc<AtomicBool>; 2] = Default::default();
        let [there, back] = swallows.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", hub)) else { continue };
                for (from, into, swallows) in [(&near, &far, &there), (&far, &near, &back)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let swallows = Arc::clone(swallows);
                    std::thread::spawn(move || carry(from, into, &swallows));
                }
            }
        });
        Self { port, swallows }
    }
}

fn carry(mut from: TcpStream, mut into: TcpStream, swallows: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !swallows.load(Ordering::Relaxed) && into.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    _ = into.shutdown(Shutdown::Both);
}

fn start(port: u16, bootstrap: &[u16]) -> Hub {
    let urls: Vec<String> = bootstrap.iter().map(|port| format!("ws://127.0.0.1:{port}")).collect();
    let (port, bootstrap) = (port.to_string(), urls.join(","));
    Hub::start(&[("PORT", port.as_str()), ("IS_HUB", "true"), ("MESH_TOKEN", TOKEN), ("BOOTSTRAP_HUBS", &bootstrap)])
}

/// Sends a signal and returns its outcome.
fn outcome(from: &mut Client, to: &str) -> String {
    from.offer(to, "n", "1", r#","id":"s""#);
    from.hear_type("receipt")["data"]["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn signals_avoid_a_link_that_drops_data() {
    for swallowed in [&[0, 1][..], &[0], &[1]] {
        let ports = [free_port(), free_port(), free_port()];
        let path = Path::to(ports[1]);
        let hubs = [start(ports[0], &[path.port, ports[2]]), start(ports[1], &[ports[2]]), start(ports[2], &[])];
        settled(&hubs);
        eventually("the third hub is linked with both others", || {
            hubs[2].metric("peerpigeon_links{direction=\"in\"}") == 2.0
        });
        eventually("the first hub has both links", || hubs[0].metric("peerpigeon_links{direction=\"out\"}") == 2.0);
        let (mut a, mut b) = (Client::join(&hubs[0], 1, "n"), Client::join(&hubs[1], 2, "n"));
        assert_eq!((discovered(&mut a), discovered(&mut b)), (id(2), id(1)));
        assert_eq!(outcome(&mut a, &id(2)), "delivered");
        for &direction in swallowed {
            path.swallows[direction].store(true, Ordering::Relaxed);
        }
        let dead = Instant::now();
        eventually("both ends report a silent link", || {
            hubs[..2].iter().all(|hub| hub.metric("peerpigeon_links_silent") == 1.0)
        });
        let noticed = dead.elapsed();
        println!("dropped {swallowed:?}: detected at both ends after {noticed:?}");
        // On a busy machine, the detection may take up to one lease longer. Without the detection of silent links, a
        // hub would notice only after LINK_PATIENCE that nothing arrives.
        assert!(noticed < LINK_SILENCE + LEASE, "{noticed:?}");
        assert_eq!((outcome(&mut a, &id(2)), outcome(&mut b, &id(1))), ("delivered".into(), "delivered".into()));
        // Announcements avoid the silent link, too, and no hub is considered lost.
        let mut c = Client::join(&hubs[0], 3, "n");
        assert_eq!(discovered(&mut b), id(3));
        assert_eq!(outcome(&mut c, &id(2)), "delivered");
        assert_eq!(hubs[1].metric("peerpigeon_mesh_hubs_lost_total"), 0.0);
    }
}

#[test]
fn a_chain_recovers_after_a_cut() {
    let ports = [free_port(), free_port(), free_port()];
    let hubs = [start(ports[0], &[]), start(ports[1], &ports[..1]), start(ports[2], &ports[1..2])];
    settled(&hubs);
    let mut peers: Vec<Client> = Vec::new();
    for n in 0..3_u32 {
        let mut peer = Client::join(&hubs[n as usize], 1 + n, "n");
        for other in &mut peers {
            assert_eq!(discovered(other), id(1 + n));
            discovered(&mut peer);
        }
        peers.push(peer);
    }
    // The stopped hub keeps its sockets open. The other hubs receive nothing from the stopped hub until its lease
    // expires.
    hubs[0].signal("-STOP");
    for n in [1, 2] {
        assert_eq!(peers[n].hear_type("peer-disconnected")["data"]["reason"], "hub-lost");
    }
    hubs[0].signal("-CONT");
    assert_eq!(discovered(&mut peers[1]), id(1));
    assert_eq!(discovered(&mut peers[2]), id(1));
    eventually("all hubs are known again", || json(&hubs[2], "/health")["hubs"] == 2);
}
