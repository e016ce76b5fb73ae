//! The command `peerpigeon serve` runs a hub.

use std::future::poll_fn;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use mesh::MeshReading;
use proto::keepalive::Patience;
use proto::limits::{TICK, TURN_PATIENCE};
use proto::{Budget, Keys, RouterConfig, RouterTuning, ShardId};
use shard::{
    Clock, DoorConfig, Gauges, HubConfig, NetworkList, Proxies, RedirectDoor, SessionLimits, ShardReading, TlsDoor,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::admin::{Desk, Gatekeeper};
use crate::certificates::Reloader;
use crate::cli::EX_USAGE;
use crate::config::{AcmeSettings, Config};
use crate::files::Files;
use crate::hub::{self, Failed, Hub};
use crate::lifecycle::{Lifecycle, Stage};
use crate::linking::{self, MeshHooks, Ports};
use crate::pages::{self, HubFacts};
use crate::sockets::Handed;
use crate::telemetry;
use crate::token_keys::KeyLoader;
use crate::traces::{Exporter, TraceTuning};
use crate::watchdog::{self, Stuck, Watchdog};

/// Exit code for a bug of the hub (`EX_SOFTWARE` of sysexits.h). After a bug, the hub may report wrong presence, so the
/// supervisor must restart it.
pub const EX_SOFTWARE: u8 = 70;

/// Runs a hub until a signal such as SIGTERM stops it.
pub fn run(mut config: Config) -> ExitCode {
    // The supervisor's sockets are taken before any thread starts, because `from_env` changes the environment.
    let handed = Handed::from_env();
    let log = match telemetry::log::init(&config.log) {
        Ok(log) => log,
        Err(error) => {
            _ = writeln!(
                std::io::stderr(),
                "peerpigeon: cannot start the thread of the log ({error}): raise the limit of threads"
            );
            return ExitCode::FAILURE;
        }
    };
    let taken = handed.and_then(|mut handed| Ok((handed.take(config.port, config.shards)?, handed)));
    let (peers, handed) = match taken {
        Ok(taken) => taken,
        Err(sentence) => {
            log.say(&sentence);
            return ExitCode::from(EX_USAGE);
        }
    };
    let hosts: Vec<_> = config.listen.iter().map(SocketAddr::ip).collect();
    if let Some(peers) = &peers {
        // The supervisor's sockets for PORT replace the addresses of HOST.
        config.listen = peers[0].iter().filter_map(|listener| listener.local_addr().ok()).collect();
    }
    let max_files = telemetry::process::raise_max_files();
    let files = Files::divide(&config, max_files);
    for warning in config.warnings().into_iter().chain(files.warning(&config, max_files)) {
        warn!(detail = %warning, "config_warning");
    }
    let acme = config.tls.as_ref().and_then(|tls| tls.acme.as_ref());
    if let Some(Err(error)) = acme.map(AcmeSettings::prepare) {
        log.say(&error.to_string());
        return ExitCode::from(EX_USAGE);
    }
    let listeners = match Listeners::open(&config, &hosts, peers, handed) {
        Ok(listeners) => listeners,
        Err((sentence, code)) => {
            // A person who starts a hub by hand expects a sentence, not a log line.
            log.say(&sentence);
            return code;
        }
    };
    // The log stores panics by the name of their thread.
    let main = std::thread::current().name().unwrap_or_default().to_owned();
    let served = catch_unwind(AssertUnwindSafe(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
            let ended = runtime.block_on(serve(config, files, listeners));
            // The runtime is not joined, because one of its threads may wait for a mesh that hangs.
            runtime.shutdown_background();
            ended
        })
    }));
    match served {
        Ok(Ok(Ok(()))) => {
            info!("server_stopped");
            ExitCode::SUCCESS
        }
        Ok(Ok(Err(failed))) => {
            match failed {
                Failed::Mesh => log.say_last("mesh_failed", "mesh"),
                Failed::Shard(shard) => log.say_last("shard_failed", &format!("shard-{}", shard.0)),
            }
            ExitCode::from(EX_SOFTWARE)
        }
        Ok(Err(error)) => {
            error!(%error, "server_failed");
            ExitCode::FAILURE
        }
        Err(_) => {
            log.say_last("main_failed", &main);
            ExitCode::from(EX_SOFTWARE)
        }
    }
}

/// The listeners of each purpose, grouped by shard.
struct Listeners {
    peers: Vec<Vec<TcpListener>>,
    links: Vec<Vec<TcpListener>>,
    admin: Vec<Vec<TcpListener>>,
    redirect: Vec<Vec<TcpListener>>,
}

impl Listeners {
    /// Opens all ports at these hosts. If the supervisor has opened sockets for a port, uses those sockets instead.
    /// `peers` are the supervisor's sockets for PORT.
    ///
    /// # Errors
    ///
    /// Returns a sentence and the exit code if a port cannot be opened.
    fn open(
        config: &Config,
        hosts: &[IpAddr],
        peers: Option<Vec<Vec<TcpListener>>>,
        mut handed: Handed,
    ) -> Result<Self, (String, ExitCode)> {
        let mut open = |hosts: &[IpAddr], port: Option<u16>, name: &str| {
            let Some(port) = port else { return Ok((0..config.shards).map(|_| Vec::new()).collect()) };
            if let Some(listeners) = handed.take(port, config.shards)? {
                return Ok(listeners);
            }
            let addresses: Vec<_> = hosts.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            hub::bind(&addresses, config.shards).map_err(|(address, error)| cannot_listen(address, &error, name))
        };
        let all = peers.map_or_else(|| open(hosts, Some(config.port), "PORT (--port)"), Ok).and_then(|peers| {
            let admin_hosts = config.admin_host.as_deref().unwrap_or(hosts);
            Ok(Self {
                peers,
                links: open(hosts, config.mesh.port.filter(|_| config.is_hub), "MESH_PORT (--mesh-port)")?,
                admin: open(admin_hosts, config.admin_port, "ADMIN_PORT (--admin-port)")?,
                redirect: open(hosts, config.redirect_port, "HTTP_REDIRECT_PORT (--http-redirect-port)")?,
            })
        });
        let all = all.map_err(|sentence| (sentence, ExitCode::FAILURE))?;
        match handed.unclaimed() {
            None => Ok(all),
            Some(address) => {
                let sentence = format!(
                    "the supervisor hands in a socket at {address} (LISTEN_FDS), and no setting has this port: set \
                     PORT to {}, or remove the socket from the socket unit",
                    address.port()
                );
                Err((sentence, ExitCode::from(EX_USAGE)))
            }
        }
    }
}

/// A sentence that says why an address cannot be bound, and what to do. `port` is the setting.
fn cannot_listen(address: SocketAddr, error: &std::io::Error, port: &str) -> String {
    let what_to_do = if error.kind() == ErrorKind::AddrNotAvailable {
        "set HOST (--host) to an address of this machine".to_owned()
    } else if error.kind() == ErrorKind::PermissionDenied {
        format!(
            "ports below 1024 need a privilege: let systemd open the port (peerpigeon.socket), run `setcap \
             cap_net_bind_service=+ep` on the program, or set {port} to 1024 or above"
        )
    } else {
        format!("set another {port} or HOST (--host), or stop the program that uses this port")
    };
    format!("cannot listen on {address} ({error}): {what_to_do}")
}

async fn serve(config: Config, files: Files, bound: Listeners) -> std::io::Result<Result<(), Failed>> {
    let at = |bound: &[Vec<TcpListener>]| bound[0].iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
    let (addresses, link_addresses, admin_addresses) = (at(&bound.peers)?, at(&bound.links)?, at(&bound.admin)?);
    let redirect_addresses = at(&bound.redirect)?;
    let mut listeners = bound.peers;
    for others in [bound.links, bound.admin, bound.redirect] {
        listeners.iter_mut().zip(others).for_each(|(listeners, others)| listeners.extend(others));
    }
    let ports = Ports {
        peers: addresses[0].port(),
        links: link_addresses.first().map(SocketAddr::port),
        admin: admin_addresses.first().map(SocketAddr::port),
        redirect: redirect_addresses.first().map(SocketAddr::port),
    };
    let config = Arc::new(config);
    let gauges = Arc::<Gauges>::default();
    let lifecycle = Lifecycle::new();
    let (publish, readings): (Vec<_>, Vec<_>) =
        listeners.iter().map(|_| watch::channel(Arc::new(ShardReading::default()))).unzip();
    let (publish_mesh, mesh_reading) = watch::channel(Arc::new(MeshReading::default()));
    let clock = Clock::start();
    let keys = Keys(getrandom::u64()?, getrandom::u64()?);
    let mut challenge_key = [0; 32];
    getrandom::fill(&mut challenge_key)?;
    // The shards have the first numbers of threads. The main thread, the mesh (if there is one) and the thread of the
    // pages have the next numbers.
    let mut threads: Vec<String> = (0..config.shards).map(|shard| format!("shard-{shard}")).collect();
    let (main_thread, mesh_thread) = (threads.len(), threads.len() + 1);
    threads.push("main".to_owned());
    if config.has_mesh() {
        threads.push("mesh".to_owned());
    }
    let pages_thread = threads.len();
    threads.push("pages".to_owned());
    let watchdog = Watchdog::new(threads, TURN_PATIENCE);
    let turned = |thread: usize| {
        let watchdog = watchdog.clone();
        move || watchdog.turned(thread, clock.elapsed())
    };
    let turned_mesh = Arc::new(turned(mesh_thread));
    let (status, status_reader) = watch::channel(None);
    let exporting =
        config.traces.as_ref().map(|traces| Exporter::new(traces, config.hub_id, clock, TraceTuning::default()));
    let (mut exporter, tracer) = exporting.transpose()?.unzip();
    let reloader = Reloader::new(config.tls.as_ref(), &config.mesh.certificates)?;
    let (reloader, acme) = reloader.unzip();
    let hooks = MeshHooks {
        turned: turned_mesh,
        publish: publish_mesh,
        status: status_reader,
        tracer: tracer.clone(),
        certificate: reloader.as_ref().and_then(Reloader::own).cloned(),
    };
    let (mesh, links) = linking::prepare(&config, clock, (keys, challenge_key), ports, files.dials, hooks);
    let networks = Arc::<NetworkList>::default();
    let key_loader = config.tokens.as_ref().map(KeyLoader::new).transpose()?;
    let tls_ports = config.tls.as_ref().map(|tls| ports.of(tls.ports)).unwrap_or_default();
    let facts = HubFacts {
        started: Instant::now(),
        started_at: SystemTime::now(),
        port: ports.peers,
        max_connections: files.seats,
        gauges: Arc::clone(&gauges),
        readings,
        networks: Arc::clone(&networks),
        mesh: mesh_reading.clone(),
        status,
        lifecycle: lifecycle.clone(),
        watchdog: watchdog.clone(),
        tls: reloader.as_ref().map(Reloader::facts),
        token_keys: key_loader.as_ref().map(KeyLoader::facts),
        traces: exporter.as_ref().map(Exporter::facts),
    };
    let mut cookie_key = [0; 32];
    getrandom::fill(&mut cookie_key)?;
    let gatekeeper = Gatekeeper::new(config.admin_token.clone(), cookie_key);
    let (desk, orders) = Desk::new();
    let (pages, sampler) = pages::pages(Arc::clone(&config), facts, gatekeeper, desk, turned(pages_thread))?;
    let shards = HubConfig {
        router: RouterConfig {
            shard: ShardId(0),
            shards: config.shards,
            keys,
            resume_keys: linking::resume_keys(&config)?,
            hub: config.hub_id,
            heartbeat: Patience::new(config.peer_timeout).interval(),
            max_message_bytes: config.max_message_bytes,
            max_networks_per_peer: config.max_networks_per_peer,
            max_peers_per_network: config.max_peers_per_network,
            announce_budget_bytes: config.announce_budget_bytes,
            budget: Budget::of_session(&config.budget_rates, config.max_message_bytes),
            network_budget: config.network_budget(),
            discovery: config.discovery,
            ice: config.ice.servers().map(Arc::new),
            meshed: mesh.is_some(),
            events: tracing::enabled!(target: "shard", tracing::Level::DEBUG) || tracer.is_some(),
            tuning: RouterTuning::default(),
        },
        limits: SessionLimits {
            max_message_bytes: config.max_message_bytes,
            send_queue_frames: config.send_queue_frames,
            send_queue_bytes: config.send_queue_bytes,
            send_budget_bytes: config.send_budget_bytes,
            send_floor_bytes: config.send_floor_bytes(),
            receive_budget_bytes: config.receive_budget_bytes,
            peer_timeout: config.peer_timeout,
        },
        max_connections: files.seats,
        files: files.shares,
        auth_token: config.auth_token.as_ref().map(|token| token.expose().into()),
        tokens: key_loader.as_ref().map(KeyLoader::tokens),
        id_proofs: config.id_proofs.proofs(config.mesh.public_url.as_deref()),
        links,
        admin_port: ports.admin,
        redirect: ports.redirect.map(|port| RedirectDoor { port, https_port: config.https_port(ports.peers) }),
        tls: reloader
            .as_ref()
            .and_then(Reloader::acceptor)
            .map(|acceptor| TlsDoor { acceptor: acceptor.clone(), ports: tls_ports }),
        door: DoorConfig {
            proxies: Arc::new(Proxies {
                ranges: config.door.trusted_proxies.clone(),
                ports: ports.of(config.door.proxy_protocol).to_vec(),
            }),
            origins: Arc::clone(&config.origins),
            cors: Arc::clone(&config.cors),
            addresses: config.door.limits(files.seats),
            connect_rate: config.door.connect_rate,
        },
        pages,
        networks,
        gauges,
        clock,
        turned: {
            let watchdog = watchdog.clone();
            Arc::new(move |shard| watchdog.turned(usize::from(shard.0), clock.elapsed()))
        },
        tracer,
        echo: false,
    };
    // The signal handlers are registered before the hub is reachable, so that no SIGTERM is lost.
    let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
    let mut reloads = reloader.is_some().then(|| signal(SignalKind::hangup())).transpose()?;
    let mut key_reloads = key_loader.is_some().then(|| signal(SignalKind::hangup())).transpose()?;
    let is_reloaded = reloads.is_some() || key_reloads.is_some();
    kinds.extend(
        [SignalKind::hangup(), SignalKind::quit()]
            .into_iter()
            // With TLS, SIGHUP reloads the certificates; with JWTs, it reloads the keys of tokens.
            .filter(|kind| !is_reloaded || *kind != SignalKind::hangup())
            // A signal that was ignored at the start stays ignored, so that nohup(1) keeps a hub running when its
            // terminal closes.
            .filter(|kind| !telemetry::process::ignores(kind.as_raw_value())),
    );
    let mut signals = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>()?;
    let (stop, stops) = mpsc::channel(2);
    let hub = Hub::start(&shards, listeners, publish, mesh, mesh_reading)?;
    lifecycle.advance(Stage::Ready);
    let listening = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let links_at = link_addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    info!(
        listening,
        admin_at = ports.admin,
        redirect_at = ports.redirect,
        links_at = (!links_at.is_empty()).then_some(links_at),
        shards = config.shards,
        max_connections = files.seats,
        hub = %config.hub_id,
        version = env!("CARGO_PKG_VERSION"),
        "server_started"
    );
    let signals = async {
        loop {
            poll_fn(|cx| {
                let came = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
                if came { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            // The channel has room for two stops. Further stops have no effect.
            _ = stop.try_send(());
        }
    };
    let reload = async {
        match (reloader, &mut reloads) {
            (Some(reloader), Some(asked)) => reloader.run(asked).await,
            _ => std::future::pending().await,
        }
    };
    let load_keys = async {
        match (key_loader, &mut key_reloads) {
            (Some(loader), Some(asked)) => loader.run(asked).await,
            _ => std::future::pending().await,
        }
    };
    let order = async {
        match acme.flatten() {
            Some(acme) => acme.run().await,
            None => std::future::pending().await,
        }
    };
    let export = async {
        match &mut exporter {
            Some(exporter) => exporter.run().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = hub.run(config.drain, stops, orders, &lifecycle) => ended,
        () = signals => Ok(()),
        () = reload => Ok(()),
        () = load_keys => Ok(()),
        () = order => Ok(()),
        () = export => Ok(()),
        () = sampler.run() => Ok(()),
        () = watch(&watchdog, turned(main_thread)) => Ok(()),
    };
    // After a bug, the last spans are not sent, because sending them would delay the restart of the process.
    if let Some(exporter) = exporter.as_mut().filter(|_| ended.is_ok()) {
        exporter.flush().await;
    }
    Ok(ended)
}

/// Records the turns of the main thread, and logs each thread that hangs or recovers.
async fn watch(watchdog: &Watchdog, turned: impl Fn()) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stuck = Vec::new();
    loop {
        ticks.tick().await;
        turned();
        let now = watchdog.all_stuck();
        let (new, over) = watchdog::changes(&stuck, &now);
        for Stuck { thread, since } in new {
            error!(thread, secs = since.as_secs(), "thread_stuck");
        }
        for Stuck { thread, since } in over {
            warn!(thread, secs = since.as_secs(), "thread_turns_again");
        }
        stuck = now;
    }
}
