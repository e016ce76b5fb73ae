//! Tests of two live hubs with the same HUB_ID, and of a hub that restarts with its HUB_ID.

use std::time::Instant;

use proto::limits::LEASE;

use crate::client::{Client, id};
use crate::hub::Hub;
use crate::mesh::{TOKEN, discovered, eventually, free_port, json};

const ID: &str = "efefefefefefefefefefefefefefefefefefefef";

fn start(port: u16, bootstrap: &[u16], env: &[(&str, &str)]) -> Hub {
    let urls: Vec<String> = bootstrap.iter().map(|port| format!("ws://127.0.0.1:{port}")).collect();
    let (port, bootstrap) = (port.to_string(), urls.join(","));
    let mut all =
        vec![("PORT", port.as_str()), ("IS_HUB", "true"), ("MESH_TOKEN", TOKEN), ("BOOTSTRAP_HUBS", &bootstrap)];
    all.extend_from_slice(env);
    Hub::start(&all)
}

fn hub_id(hub: &Hub) -> String {
    json(hub, "/stats")["hubPeerId"].as_str().unwrap().to_owned()
}

fn hub_of(client: &mut Client) -> String {
    client.hear_type("connected")["data"]["hubId"].as_str().unwrap().to_owned()
}

fn outcome(from: &mut Client, to: &str) -> String {
    from.offer(to, "n", "1", r#","id":"s""#);
    from.hear_type("receipt")["data"]["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn the_later_of_two_hubs_with_one_id_takes_a_new_id() {
    // The two hubs are linked through a third hub, and if `direct` is true, also directly.
    for direct in [false, true] {
        let ports = [free_port(), free_port(), free_port()];
        let third = start(ports[2], &[], &[]);
        let first = start(ports[0], &ports[2..], &[("HUB_ID", ID)]);
        eventually("the first hub is linked", || json(&third, "/health")["hubs"] == 1);
        let mut watcher = Client::join(&third, 1, "n");
        let mut a = Client::join(&first, 2, "n");
        assert_eq!(discovered(&mut watcher), id(2));
        let bootstrap = if direct { vec![ports[2], ports[0]] } else { vec![ports[2]] };
        let second = start(ports[1], &bootstrap, &[("HUB_ID", ID)]);
        let began = Instant::now();
        let mut b = Client::join(&second, 3, "n");
        assert_eq!(discovered(&mut watcher), id(3));
        println!("direct: {direct}: the peer of the later hub is discovered after {:?}", began.elapsed());
        assert_eq!(third.metric("peerpigeon_mesh_hubs_lost_total"), 0.0, "no lease may expire");
        second.logged("hub_id_changed");
        if !direct {
            third.logged("hub_id_twice");
        }
        eventually("each hub knows both others", || {
            [&first, &second, &third].iter().all(|hub| json(hub, "/health")["hubs"] == 2)
        });
        assert_eq!(outcome(&mut watcher, &id(2)), "delivered");
        assert_eq!(outcome(&mut watcher, &id(3)), "delivered");
        assert_eq!(outcome(&mut a, &id(3)), "delivered");
        assert_eq!(outcome(&mut b, &id(2)), "delivered");
        watcher.hears_nothing();
        assert_eq!(hub_id(&first), ID);
        assert_ne!(hub_id(&second), ID);
        assert_eq!(hub_of(&mut Client::open(second.address, 9, b"")), hub_id(&second), "clients must get the new id");
        assert_eq!(first.metric("peerpigeon_mesh_ids_given_up_total"), 0.0);
        assert_eq!(second.metric("peerpigeon_mesh_ids_given_up_total"), 1.0);
    }
}

#[test]
fn a_restarted_hub_keeps_its_id() {
    for (signal, drain) in [("-KILL", "0"), ("-TERM", "1")] {
        let ports = [free_port(), free_port(), free_port()];
        let third = start(ports[2], &[], &[]);
        let middle = start(ports[1], &ports[2..], &[]);
        let env = [("HUB_ID", ID), ("DRAIN_SECS", drain)];
        let mut hub = start(ports[0], &ports[1..2], &env);
        eventually("the third hub knows both others", || json(&third, "/health")["hubs"] == 2);
        let mut watcher = Client::join(&third, 1, "n");
        let _lost = Client::join(&hub, 2, "n");
        assert_eq!(discovered(&mut watcher), id(2));
        hub.signal(signal);
        hub.wait();
        let hub = start(ports[0], &ports[1..2], &env);
        let began = Instant::now();
        let _back = Client::join(&hub, 3, "n");
        assert_eq!(discovered(&mut watcher), id(3));
        println!("{signal}: the new peer of the restarted hub is discovered after {:?}", began.elapsed());
        // If the hub mistook its own earlier run for another hub, it would change its id within the time of a lease.
        eventually("the time of a lease has passed", || began.elapsed() > LEASE);
        assert_eq!((hub_id(&hub).as_str(), hub.metric("peerpigeon_mesh_ids_given_up_total")), (ID, 0.0));
        drop(middle);
    }
}
