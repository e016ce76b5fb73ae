//! Starts the thread of a shard, with its listeners and its mailbox.

use std::cell::RefCell;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use proto::limits::{FLUSH_CHUNK, HANDOFF_QUEUE, MAILBOX_BATCHES, SHARD_COMMANDS, TICK};
use proto::{Acted, NetworkName, Order, Router, ShardId, ToMesh, ToShard};
use thread::{Mailboxes, check, planted};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::warn;

use crate::accept::accept;
use crate::config::HubConfig;
use crate::core::{Core, check_tokens};
use crate::crowd::Crowd;
use crate::drain::Drain;
use crate::http::{Door, DoorFiles, DoorTuning, Gate, Handshakes};
use crate::session::HandOff;
use crate::session_task;
use crate::socket::Writer;
use crate::stats::HandshakeFailure;
use crate::{Largest, NetworkList, ShardReading};

/// An operator's order for a shard, and the channel for the answer.
#[derive(Debug)]
struct Command {
    order: Order,
    done: oneshot::Sender<Acted>,
}

/// Whether the hub wants a shard to drain. Only the latest wish counts, so a shard that is busy for long misses none.
#[derive(Clone, Debug, Default)]
struct DrainWish {
    /// Number of this wish. The first has 1.
    number: u64,
    /// `None` ends the drain, so that the remaining sessions stay and new peers are accepted.
    plan: Option<Drain>,
}

/// The hub's handle of a running shard. Dropping the handle ends the shard.
#[derive(Debug)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    wish: watch::Sender<DrainWish>,
    /// The number of the last wish that is fulfilled or replaced.
    fulfilled: watch::Receiver<u64>,
    thread: std::thread::JoinHandle<()>,
}

impl ShardHandle {
    /// Closes all sessions, each in its slot. The future completes when the last session has closed, or when another
    /// drain or [`Self::undrain`] has replaced this drain. The future of a shard that has ended does not complete. A
    /// second drain gives the remaining sessions new slots.
    pub fn drain(&self, plan: Drain) -> impl Future<Output = ()> + Send + use<> {
        let number = self.wish(Some(plan));
        let mut fulfilled = self.fulfilled.clone();
        async move {
            if fulfilled.wait_for(|last| *last >= number).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Ends a drain that does not stop the hub. The remaining sessions stay, and new peers are accepted.
    pub fn undrain(&self) {
        self.wish(None);
    }

    fn wish(&self, plan: Option<Drain>) -> u64 {
        let mut number = 0;
        self.wish.send_modify(|wish| {
            number = wish.number + 1;
            *wish = DrainWish { number, plan };
        });
        number
    }

    /// Executes an operator's order. The receiver resolves when the order is executed. The receiver gets an error if
    /// the shard has ended, or if [`SHARD_COMMANDS`] other orders are queued.
    pub fn order(&self, order: Order) -> oneshot::Receiver<Acted> {
        let (done, acted) = oneshot::channel();
        _ = self.commands.try_send(Command { order, done });
        acted
    }

    /// Ends the shard, even if sessions are left. The shard's thread ends after its current turn.
    pub fn stop(self) -> std::thread::JoinHandle<()> {
        self.thread
    }
}

/// The shards of a hub, in the order of their numbers.
#[derive(Debug)]
pub struct Shards {
    /// The handle of each shard.
    pub handles: Vec<ShardHandle>,
    /// The mailbox of each shard, for the mesh.
    pub mailboxes: Vec<mpsc::Sender<Vec<ToShard>>>,
}

/// Starts one shard for each set of listeners. Once per tick, each shard publishes its statistics through its sender in
/// `publish`. `mesh` receives the letters for the mesh. `ended` receives the number of each shard that ends, whether it
/// was stopped or has failed.
///
/// # Errors
///
/// If a thread cannot be started.
pub fn start(
    config: &HubConfig,
    listeners: Vec<Vec<StdListener>>,
    publish: Vec<watch::Sender<Arc<ShardReading>>>,
    mesh: Option<mpsc::Sender<Vec<ToMesh>>>,
    ended: &mpsc::Sender<ShardId>,
) -> std::io::Result<Shards> {
    let shards = listeners.len() as u16;
    let (homes, arrivals): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(HANDOFF_QUEUE)).unzip();
    let (posts, mailboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(MAILBOX_BATCHES)).unzip();
    let homes: Arc<[mpsc::Sender<HandOff>]> = homes.into();
    let files = DoorFiles::new(config.files);
    // All shards share the table of addresses, because the kernel spreads the connections of one address over the
    // shards.
    let crowd = Arc::new(Crowd::new(config.door.addresses, config.router.keys));
    let mut handles = Vec::new();
    let receivers = arrivals.into_iter().zip(mailboxes).zip(publish);
    for (i, (listeners, ((arrivals, mailbox), publish))) in listeners.into_iter().zip(receivers).enumerate() {
        let shard = ShardId(i as u16);
        let (handle, commands) = mpsc::channel(SHARD_COMMANDS);
        let (wish, wishes) = watch::channel(DrainWish::default());
        let (fulfil, fulfilled) = watch::channel(0);
        let config = config.of_shard(shard, shards, mesh.is_some());
        let router = Router::new(config.router.clone());
        let gauges = Arc::clone(&config.gauges);
        let mut core = Core::new(router, &config.router, config.limits, config.clock, gauges, config.echo);
        core.trace_joins(config.tracer.clone(), config.router.hub);
        let (files, crowd) = (files.clone(), Arc::clone(&crowd));
        let outgoing = Mailboxes::new(&posts, mesh.as_ref());
        let channels = Channels {
            homes: Arc::clone(&homes),
            files,
            crowd,
            outgoing,
            arrivals,
            mailbox,
            commands,
            wishes,
            fulfil,
            publish,
        };
        let ended = ended.clone();
        let on_end = move || _ = ended.try_send(shard);
        let part = move |busy| run(config, core, listeners, channels, busy);
        let thread = thread::spawn(format!("shard-{i}"), on_end, part)?;
        handles.push(ShardHandle { commands: handle, wish, fulfilled, thread });
    }
    Ok(Shards { handles, mailboxes: posts })
}

struct Channels {
    homes: Arc<[mpsc::Sender<HandOff>]>,
    files: DoorFiles,
    crowd: Arc<Crowd>,
    outgoing: Mailboxes,
    arrivals: mpsc::Receiver<HandOff>,
    mailbox: mpsc::Receiver<Vec<ToShard>>,
    commands: mpsc::Receiver<Command>,
    wishes: watch::Receiver<DrainWish>,
    fulfil: watch::Sender<u64>,
    publish: watch::Sender<Arc<ShardReading>>,
}

async fn run(config: HubConfig, core: Core, listeners: Vec<StdListener>, channels: Channels, busy: Arc<AtomicU64>) {
    let Channels { homes, files, crowd, outgoing, arrivals, mailbox, mut commands, mut wishes, fulfil, publish } =
        channels;
    let core = Rc::new(RefCell::new(core));
    let door = Rc::new(Door {
        shards: config.router.shards,
        keys: config.router.keys,
        resume_keys: config.router.resume_keys,
        tuning: DoorTuning::default(),
        gate: Gate::new(crowd, config.router.keys, config.door.connect_rate),
        max_connections: config.max_connections,
        files,
        gauges: config.gauges,
        auth_token: config.auth_token,
        tokens: config.tokens,
        id_proofs: config.id_proofs,
        links: config.links,
        admin_port: config.admin_port,
        redirect: config.redirect,
        tls: config.tls.map(|tls| (tls.ports, Handshakes::new(tls.acceptor))),
        config: config.door,
        pages: config.pages,
        homes,
        page_rates: Door::page_rates(config.router.keys),
    });
    let (close_door, door_open) = watch::channel(true);
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn_local(accept(Rc::clone(&door), Rc::clone(&core), listener, door_open.clone()));
    }
    if let Some(tokens) = door.tokens.clone() {
        tasks.spawn_local(check_tokens(Rc::clone(&core), tokens));
    }
    tasks.spawn_local(welcome(Rc::clone(&core), arrivals));
    tasks.spawn_local(read_mail(Rc::clone(&core), mailbox));
    tasks.spawn_local(flush(Rc::clone(&core), outgoing));
    if config.router.shard == ShardId(0) {
        tasks.spawn_local(list_networks(Rc::clone(&core), config.networks));
    }
    let (turned, shard) = (config.turned, config.router.shard);
    tasks.spawn_local(keep_time(Rc::clone(&core), publish, busy, move || turned(shard)));

    let mut draining = None;
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command { order, done }) => core.borrow_mut().ordered(order, done),
                None => break,
            },
            Ok(()) = wishes.changed() => {
                let DrainWish { number, plan } = wishes.borrow_and_update().clone();
                // All earlier drains are replaced.
                fulfil.send_replace(number - 1);
                draining = plan.is_some().then_some(number);
                match plan {
                    Some(plan) => {
                        if plan.stops {
                            close_door.send_replace(false);
                        }
                        core.borrow_mut().drain(plan);
                    }
                    None => core.borrow_mut().undrain(),
                }
            }
            Some(ended) = tasks.join_next() => check(ended),
            () = tokio::time::sleep(TICK), if draining.is_some() => {
                if core.borrow().is_drained()
                    && let Some(number) = draining.take()
                {
                    fulfil.send_replace(number);
                }
            }
        }
    }
}

/// Accepts the sockets that belong to this shard, and owns their sessions' tasks.
async fn welcome(core: Rc<RefCell<Core>>, mut arrivals: mpsc::Receiver<HandOff>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            arrived = arrivals.recv() => {
                let Some(arrived) = arrived else { break };
                planted("welcome");
                let (stream, tls, leftover, arrival) = arrived.into_parts();
                match TcpStream::from_std(stream) {
                    Ok(stream) => {
                        let (read, tcp) = stream.into_split();
                        let id = core.borrow_mut().adopt(Writer { tcp, tls }, leftover, arrival);
                        sessions.spawn_local(session_task::run(Rc::clone(&core), id, read));
                    }
                    Err(error) => {
                        core.borrow_mut().refusals_mut().count(HandshakeFailure::HandOff);
                        warn!(%error, "hand_off_failed");
                    }
                }
            }
            Some(ended) = sessions.join_next() => check(ended),
        }
    }
}

/// Processes letters from other shards and from the mesh. Letters wait while too much output is queued and recent
/// letters have caused much output.
async fn read_mail(core: Rc<RefCell<Core>>, mailbox: mpsc::Receiver<Vec<ToShard>>) {
    let is_held = || core.borrow().holds_letters();
    thread::read_mail(mailbox, |letters| core.borrow_mut().letters(letters), is_held).await;
}

/// Writes queued data. The letters are written first, because other cores wait for them, and then the queues of some
/// sessions.
///
/// The function runs once after all ready tasks have had a turn, so that one write sends many frames.
pub(crate) async fn flush(core: Rc<RefCell<Core>>, mut mailboxes: Mailboxes) {
    loop {
        std::future::poll_fn(|cx| {
            let mut core = core.borrow_mut();
            core.set_flusher(cx.waker());
            core.deliver(&mut mailboxes, cx);
            let has_more = core.flush(FLUSH_CHUNK);
            let has_waiting = core.begin_round();
            if core.continue_work() || has_more || has_waiting { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // Yields to the I/O driver after each chunk. With a plain wake-up, tokio would run this task up to 61 times
        // before it polls sockets.
        tokio::task::yield_now().await;
    }
}

/// Collects the largest networks, and the members of a network, when a page requests them.
async fn list_networks(core: Rc<RefCell<Core>>, networks: Arc<NetworkList>) {
    let part = |slots, largest: &mut Largest| {
        let core = core.borrow();
        let Some(part) = core.router().networks_in(slots) else { return false };
        part.for_each(|(name, members)| largest.offer(name, members));
        true
    };
    let members = |network: &NetworkName, most| core.borrow().router().members_of(network.as_str(), most);
    tokio::select! {
        () = networks.collect(part) => {}
        () = networks.answer(members) => {}
    }
}

async fn keep_time(
    core: Rc<RefCell<Core>>,
    publish: watch::Sender<Arc<ShardReading>>,
    busy: Arc<AtomicU64>,
    turned: impl Fn(),
) {
    thread::each_tick(|| {
        let mut core = core.borrow_mut();
        core.tick();
        core.stats_mut().busy_micros = thread::awake_micros(&busy);
        publish.send_replace(Arc::new(core.reading()));
        turned();
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A shard that reads nothing: the handle, and the ends of its channels.
    fn hung() -> (ShardHandle, mpsc::Receiver<Command>, watch::Receiver<DrainWish>, watch::Sender<u64>) {
        let (commands, orders) = mpsc::channel(SHARD_COMMANDS);
        let (wish, wishes) = watch::channel(DrainWish::default());
        let (fulfil, fulfilled) = watch::channel(0);
        let thread = std::thread::spawn(|| {});
        (ShardHandle { commands, wish, fulfilled, thread }, orders, wishes, fulfil)
    }

    fn plan(spread: u64) -> Drain {
        Drain { spread: Duration::from_secs(spread), hubs: [].into(), is_alone: true, stops: true }
    }

    #[tokio::test]
    async fn a_shard_that_hangs_misses_no_drain() {
        let (shard, _orders, mut wishes, fulfil) = hung();
        let order = || Order::CloseNetwork { network: proto::NetworkName::new("n"), out_for: None };
        let orders: Vec<_> = (0..=SHARD_COMMANDS).map(|_| shard.order(order())).collect();
        for answer in orders.into_iter().skip(SHARD_COMMANDS) {
            assert!(answer.await.is_err(), "the queue of orders is full");
        }
        for round in 1..=10 {
            drop(shard.drain(plan(round)));
            shard.undrain();
        }
        let mut last = std::pin::pin!(shard.drain(plan(99)));
        let wish = wishes.borrow_and_update().clone();
        assert_eq!(wish.plan.expect("a drain is wished").spread, Duration::from_secs(99));
        fulfil.send_replace(wish.number - 1);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(last.as_mut().poll(&mut cx).is_pending(), "only earlier wishes are fulfilled");
        fulfil.send_replace(wish.number);
        last.await;
    }
}
