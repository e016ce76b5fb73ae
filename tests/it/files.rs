//! Tests of hubs with few file descriptors. Peers must leave enough file descriptors for links and operators.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::client::Client;
use crate::door::status;
use crate::hub::{DEFAULTS, Hub};
use crate::ports::free_port;

/// Starts a hub that may open at most `files` files.
fn start(files: u32, env: &[(&str, &str)]) -> Hub {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {files} && exec \"$0\""), env!("CARGO_BIN_EXE_peerpigeon")]);
    shell.env_clear().envs(DEFAULTS.iter().copied()).envs(env.iter().copied());
    Hub::run(&mut shell, [127, 0, 0, 1])
}

#[test]
fn peers_cannot_take_the_file_descriptors_of_probes_and_links() {
    let (admin, mesh) = (free_port(), free_port());
    let own = [("ADMIN_PORT", admin.to_string()), ("MESH_PORT", mesh.to_string())];
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    let common = [("MESH_TOKEN", "t"), ("IS_HUB", "true"), ("MAX_CONNECTIONS", "1000")];
    let mut hub = start(120, &own.chain(common).collect::<Vec<_>>());
    let peers = hub.address;
    let at_admin = SocketAddr::from(([127, 0, 0, 1], admin));
    hub.address = at_admin;
    let seats = hub.metric("peerpigeon_max_connections") as u32;
    assert!((20..100).contains(&seats), "{seats}");
    hub.address = peers;

    // All seats are taken, and one more peer is refused because the hub is full.
    let inside: Vec<Client> = (0..seats).map(|n| Client::connect(&hub, n)).collect();
    let mut refused = Client::open(hub.address, seats, b"");
    assert_eq!(refused.closed(), (1008, "max connections".into()));
    drop(refused);
    // There are more silent connections than files that the hub may open.
    let knocking: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(peers).unwrap()).collect();

    // Operators and other hubs still get answers. Each page is requested three times, because the port has several
    // listeners.
    hub.address = at_admin;
    for _ in 0..3 {
        assert_eq!(status(&hub.get("/livez")), "200");
        assert_eq!(status(&hub.get("/metrics")), "200");
    }
    assert_eq!(hub.metric("peerpigeon_connections"), f64::from(seats));
    let bootstrap = format!("ws://127.0.0.1:{mesh}");
    let other = Hub::start(&[("MESH_TOKEN", "t"), ("BOOTSTRAP_HUBS", &bootstrap)]);
    other.metric_becomes("peerpigeon_mesh_hubs", |hubs| hubs == 1.0);
    // While a hub is full, another hub can restart and link with it again.
    drop(other);
    let other = Hub::start(&[("MESH_TOKEN", "t"), ("BOOTSTRAP_HUBS", &bootstrap)]);
    other.metric_becomes("peerpigeon_mesh_hubs", |hubs| hubs == 1.0);
    assert!(hub.metric("process_open_fds") < 120.0);

    // When the silent connections and the admitted peers have left, another peer is admitted.
    drop((inside, knocking));
    hub.metric_becomes("peerpigeon_connections", |n| n == 0.0);
    hub.address = peers;
    Client::join(&hub, 7, "n");
}

#[test]
fn a_shortage_of_files_is_logged_at_the_start() {
    let hub = start(120, &[("MAX_CONNECTIONS", "1000")]);
    let said = hub.before_start.join("\n");
    assert!(said.contains("MAX_CONNECTIONS is 1000, but this process may open only 120 files"), "{said}");
    assert!(said.contains("ulimit -Hn"), "{said}");
}

#[test]
fn silent_connections_do_not_keep_peers_out() {
    let env = [("MESH_TOKEN", "t"), ("IS_HUB", "true"), ("MAX_CONNECTIONS", "1000")];
    let hub = start(120, &env);
    let seats = hub.metric("peerpigeon_max_connections") as u32;
    let inside: Vec<Client> = (0..seats).map(|n| Client::connect(&hub, n)).collect();
    let knocking: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(hub.address).unwrap()).collect();
    for _ in 0..5 {
        assert_eq!((status(&hub.get_in_a_crowd("/livez")), status(&hub.get_in_a_crowd("/readyz"))), ("200", "503"));
    }
    // The oldest silent connections were closed to make room, before the time limit for their requests.
    hub.metric_becomes("peerpigeon_handshake_failures_total{reason=\"crowded-out\"}", |n| n >= 1.0);
    let bootstrap = format!("ws://{}", hub.address);
    let other = Hub::start(&[("MESH_TOKEN", "t"), ("BOOTSTRAP_HUBS", &bootstrap)]);
    other.metric_becomes("peerpigeon_mesh_hubs", |hubs| hubs == 1.0);
    // Admitted peers are still connected.
    assert_eq!(hub.metric("peerpigeon_connections"), f64::from(seats));
    drop((inside, knocking));
}

#[test]
fn a_hub_that_cannot_read_proc_shows_no_memory_and_no_open_files() {
    const HIDDEN: &str = "mount -t tmpfs none /proc";
    let in_a_mount_namespace = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_peerpigeon")]);
        unshare
    };
    if !in_a_mount_namespace(HIDDEN).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this test needs root and unshare");
        return;
    }
    let series = |hub: &Hub| {
        let page = hub.get("/metrics");
        ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"]
            .map(|name| page.lines().any(|line| line.starts_with(&format!("{name} "))))
    };
    let mut run = in_a_mount_namespace(&format!("{HIDDEN} && exec \"$0\""));
    let hub = Hub::run(run.envs(DEFAULTS.iter().copied()), [127, 0, 0, 1]);
    assert_eq!(series(&hub), [false, false, true]);
    // The npm client needs the field.
    let health = hub.get("/health");
    assert!(health.contains("\"rss\":0"), "{health}");
    assert_eq!(series(&Hub::start(&[])), [true; 3]);
}
