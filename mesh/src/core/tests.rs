use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::task::Context;
use std::time::Instant;

use proto::envelope::SnapshotRequest;
use proto::limits::{
    LETTER_BATCH, LINK_COUNT_STEP, LINK_FRAME_BYTES, LINK_MESSAGE_BYTES, LINK_PATIENCE, LINK_QUEUE_CAP,
    LINK_QUEUE_HIGH, MAX_LINKS, OUTBOX_HIGH_WATER, READ_BUFFER_BYTES, SLICE_ROOM, THAW, TICK, TURN_OUTPUTS,
};
use proto::{
    Claim, Destination, Envelope, HubIncarnation, Keys, PeerId, PeerIncarnation, RelayConfig, RelayTuning, ShardId,
    ToShard, Transport,
};
use thread::Mailboxes;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::*;
use crate::link_task;
use crate::queue::LinkQueue;
use crate::stats::LinkEnd;
use crate::stream::MaybeTlsStream;

fn id(n: u8) -> HubId {
    HubId(PeerId::from_bytes([n; 20]))
}

/// A core with a manual clock.
fn core() -> (Core, Arc<std::sync::atomic::AtomicU64>) {
    core_with(None)
}

fn core_with(make_bridge: Option<Box<dyn Fn(HubId) -> Bridge>>) -> (Core, Arc<std::sync::atomic::AtomicU64>) {
    let (config, ms) = config();
    (Core::new(&config, 1, make_bridge), ms)
}

/// A core with a manual clock and a changed configuration.
fn core_of(change: impl FnOnce(&mut MeshConfig)) -> (Core, Arc<std::sync::atomic::AtomicU64>) {
    let (mut config, ms) = config();
    change(&mut config);
    (Core::new(&config, 1, None), ms)
}

fn config() -> (MeshConfig, Arc<std::sync::atomic::AtomicU64>) {
    let ms = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = Arc::clone(&ms);
    let config = MeshConfig {
        relay: RelayConfig {
            discovery: proto::Discovery::All,
            hub: id(1),
            incarnation: HubIncarnation(1),
            shards: 1,
            keys: Keys(1, 2),
            namespace: "mesh".into(),
            advertise: None,
            public_url: None,
            presence_bytes: proto::limits::DEFAULT_MESH_PRESENCE_BYTES,
            tuning: RelayTuning::default(),
        },
        token: None,
        bootstrap: Vec::new(),
        dns: None,
        dns_tls: false,
        extra_roots: None,
        legacy: Vec::new(),
        sends_bearer: true,
        certificate: None,
        prefers_certificate: false,
        is_open: false,
        max_message_bytes: 64 * 1024,
        link_queues_bytes: proto::limits::LINK_QUEUES_BYTES,
        link_partial_bytes: proto::limits::LINK_PARTIAL_BYTES,
        max_dials: proto::limits::MAX_DIALS_AT_ONCE,
        redis: None,
        status: tokio::sync::watch::channel(None).1,
        tracer: None,
        turned: Arc::new(|| {}),
        clock: Arc::new(move || {
            let ms = clock.load(std::sync::atomic::Ordering::Relaxed);
            Now { at: Duration::from_millis(ms), wall_ms: 0 }
        }),
    };
    (config, ms)
}

fn adopt(core: &mut Core, hub: u8, legacy: bool) -> LinkId {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let (auth, leftover) = (LinkAuth::Token, Bytes::new());
    let adopted = NewLink { address, target: None, hub: Some(id(hub)), legacy, auth, leftover, trace: None };
    core.adopt(adopted).unwrap()
}

/// Sends envelopes to a link, as outputs of the relay do.
fn send(core: &mut Core, link: LinkId, envelopes: usize) {
    let envelope = || {
        Envelope::Routed(
            proto::envelope::RouteHeader {
                to: id(1),
                to_incarnation: HubIncarnation(1),
                from: id(2),
                from_incarnation: HubIncarnation(2),
                hops: 0,
            },
            Box::new(proto::envelope::Routed::Outcomes(vec![(1, proto::Outcome::Delivered); 1_000])),
        )
    };
    let now = core.now();
    for _ in 0..envelopes {
        core.carry_out(RelayOutput::Send { to: Destination::Link(link), envelope: envelope() }, now);
    }
    core.turn_ends(now);
}

/// Length of an envelope of [`send`], in bytes.
const ENVELOPE: usize = 5 + 57 + 4 + 9_000;

fn is_saturated(core: &Core, link: LinkId) -> bool {
    core.links[&link].saturated
}

#[test]
fn when_all_queues_exceed_their_maximum_the_link_with_the_longest_queue_ends() {
    let (mut core, _) = core();
    let links = [ready(&mut core, 2), ready(&mut core, 3), ready(&mut core, 4)];
    let mib = |n: usize| n * 1024 * 1024 / ENVELOPE;
    core.queues_cap = 12 * 1024 * 1024;
    send(&mut core, links[0], mib(3));
    assert!(!is_saturated(&core, links[0]), "less than half of the maximum is used");
    send(&mut core, links[1], mib(5));
    assert!(is_saturated(&core, links[1]), "above half of the maximum, a link with more than its share is saturated");
    send(&mut core, links[2], mib(1));
    assert!(
        !is_saturated(&core, links[2]),
        "above half of the maximum, a link with less than its share is not saturated"
    );
    send(&mut core, links[2], mib(4));
    assert!(!core.links.contains_key(&links[1]) && core.links.len() == 2, "the link with the longest queue has ended");
    assert_eq!(core.stats.ended[LinkEnd::Overflow as usize], 1);
    assert!(core.queued_bytes() <= core.queues_cap);
    send(&mut core, links[0], mib(1));
    assert_eq!(core.links.len(), 2, "the remaining links have room again");
}

#[test]
fn with_little_memory_the_high_water_mark_of_a_queue_is_lower() {
    let (core, _) = core_of(|config| config.link_queues_bytes = 12 * 1024 * 1024);
    assert_eq!(core.queue_high, 3 * 1024 * 1024);
    let (core, _) = core_of(|_| {});
    assert_eq!(core.queue_high, LINK_QUEUE_HIGH);
}

/// Receives the first `bytes` bytes of a message of the maximum length.
fn begin(core: &mut Core, link: LinkId, bytes: usize) {
    let mut message = Vec::new();
    proto::ws::put_masked_header(&mut message, proto::ws::Opcode::Binary, LINK_MESSAGE_BYTES, [0; 4]);
    message.resize(bytes, 0);
    core.received(link, &mut message);
}

#[test]
fn when_incomplete_messages_exceed_their_maximum_the_link_with_the_longest_message_ends() {
    const MIB: usize = 1024 * 1024;
    let (mut core, _) = core();
    let links = [ready(&mut core, 2), ready(&mut core, 3), ready(&mut core, 4)];
    core.partial_cap = 8 * MIB;
    begin(&mut core, links[0], 2 * MIB);
    begin(&mut core, links[1], MIB);
    assert!(links.iter().all(|link| core.links[link].is_ready()));
    begin(&mut core, links[2], 2 * LINK_COUNT_STEP);
    core.partial_cap = core.kept_bytes() - 1;
    core.received(links[2], &mut [0; LINK_COUNT_STEP]);
    assert_eq!(
        core.links[&links[0]].end(),
        Some(LinkEnd::Memory),
        "the link with the longest message has ended, and not the link whose message grew"
    );
    assert!(core.links[&links[1]].is_ready() && core.links[&links[2]].is_ready(), "the other links stay");
    assert!(core.kept_bytes() <= core.partial_cap);
    // The remaining data of the ended link is read and not kept.
    core.received(links[0], &mut vec![0; MIB]);
    assert_eq!(core.links[&links[0]].kept_bytes(), 0);
}

#[test]
fn a_partly_processed_message_counts_as_incomplete() {
    let (mut core, _) = core();
    let (link, other) = (ready(&mut core, 2), ready(&mut core, 3));
    let message = vec![0; 2 * 1024 * 1024];
    core.links.get_mut(&link).unwrap().unread = Some(Unread { message, at: 1 });
    core.partial_cap = 1024 * 1024;
    begin(&mut core, other, 2 * LINK_COUNT_STEP);
    assert_eq!(core.links[&link].end(), Some(LinkEnd::Memory));
    assert!(core.links[&link].unread.is_none() && core.links[&other].is_ready());
}

#[test]
fn a_full_link_is_reported_once_and_ends_when_its_queue_reaches_the_maximum() {
    let (mut core, _) = core();
    let link = ready(&mut core, 2);
    send(&mut core, link, LINK_QUEUE_HIGH / ENVELOPE - 1);
    assert!(!is_saturated(&core, link));
    send(&mut core, link, 10);
    assert!(is_saturated(&core, link));
    assert_eq!(core.stats.saturations, 1);
    send(&mut core, link, LINK_QUEUE_CAP / ENVELOPE);
    assert!(core.links.is_empty());
    assert_eq!((core.stats.saturations, core.stats.ended[LinkEnd::Overflow as usize]), (1, 1));
}

#[test]
fn links_beyond_the_maximum_are_refused() {
    let (mut core, _) = core();
    let adopted = |hub| {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (auth, leftover) = (LinkAuth::Token, Bytes::new());
        NewLink { address, target: None, hub: Some(id(hub)), legacy: false, auth, leftover, trace: None }
    };
    let links: Vec<_> = (0..MAX_LINKS).map(|_| core.adopt(adopted(2)).unwrap()).collect();
    assert!(core.adopt(adopted(3)).is_none());
    assert_eq!((core.links.len(), core.stats.refused), (MAX_LINKS, 1));
    core.links.remove(&links[0]);
    assert!(core.adopt(adopted(3)).is_some(), "an ended link makes room for another link");
}

/// A ready link.
fn ready(core: &mut Core, hub: u8) -> LinkId {
    let link = adopt(core, hub, false);
    let mut hello = Vec::new();
    Envelope::Hello(Box::new(proto::envelope::Hello {
        discovery: proto::Discovery::All,
        version: proto::envelope::VERSION,
        hub: id(hub),
        incarnation: HubIncarnation(1),
        namespace: "mesh".into(),
        process: u64::from(hub),
    }))
    .encode(&mut hello);
    core.received(link, &mut masked(&hello));
    core.received(link, &mut masked(&[]));
    assert!(core.links[&link].is_ready());
    link
}

fn masked(payload: &[u8]) -> Vec<u8> {
    let mut queue = LinkQueue::new(true);
    queue.message(proto::ws::Opcode::Binary, payload);
    queue.unwritten().to_vec()
}

#[test]
fn nothing_is_queued_for_a_link_that_is_not_ready() {
    let (mut core, _) = core();
    let link = adopt(&mut core, 2, false);
    send(&mut core, link, 1);
    send(&mut core, LinkId(99), 1);
    assert_eq!(core.links[&link].queue.len_bytes(), 0);
}

#[test]
fn a_message_may_arrive_byte_by_byte() {
    let (mut core, _) = core();
    let link = ready(&mut core, 2);
    let mut bytes = Vec::new();
    let request = SnapshotRequest { hub: id(3), incarnation: HubIncarnation(1), have: 0 };
    Envelope::SnapshotRequest(request).encode(&mut bytes);
    for byte in masked(&bytes) {
        core.received(link, &mut [byte]);
    }
    assert!(core.links[&link].reader.waiting_bytes() == 0 && core.links[&link].is_ready());
    assert_eq!(core.stats.frames_in, 3);
}

/// Runs `task` beside the task of a link between a core and a plain socket.
fn beside_a_socket(task: impl AsyncFnOnce(Rc<RefCell<Core>>, LinkId, std::net::TcpStream)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, _) = listener.accept().unwrap();
        own.set_nonblocking(true).unwrap();
        let (mut core, _) = core();
        let link = ready(&mut core, 2);
        let core = Rc::new(RefCell::new(core));
        let stream = MaybeTlsStream::Plain(TcpStream::from_std(own).unwrap());
        let running = tokio::task::spawn_local(link_task::run(Rc::clone(&core), link, stream));
        task(core, link, other).await;
        running.await.unwrap();
    });
}

/// Yields to other tasks until the condition is true.
async fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "this did not happen within 20 s: {what}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_link_writes_again_when_the_other_hub_reads_again() {
    beside_a_socket(async |core, link, mut other| {
        send(&mut core.borrow_mut(), link, 3 * LINK_QUEUE_HIGH / ENVELOPE);
        // The socket accepts only a part of the queue.
        until("a part of the queue is written", || core.borrow().stats.writes > 0).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(is_saturated(&core.borrow(), link));
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            let mut total = 0;
            while total < 3 * LINK_QUEUE_HIGH / ENVELOPE * ENVELOPE {
                total += other.read(&mut buffer).unwrap();
            }
            other
        });
        until("the queue is below its high-water mark", || !is_saturated(&core.borrow(), link)).await;
        until("the whole queue is written", || core.borrow().links[&link].queue.is_empty()).await;
        let stats = core.borrow().stats.clone();
        // The frames are full, and each write contains many of them.
        assert!(stats.frames_out as usize <= 4 * LINK_QUEUE_HIGH / LINK_FRAME_BYTES, "{stats:?}");
        assert!(stats.writes * 10 < stats.frames_out, "{stats:?}");
        drop(reader.join().unwrap());
    });
}

#[test]
fn messages_of_one_turn_leave_in_one_write() {
    beside_a_socket(async |core, link, other| {
        until("the hello is written", || core.borrow().links[&link].queue.is_empty()).await;
        let before = core.borrow().stats.clone();
        send(&mut core.borrow_mut(), link, 3);
        until("the whole queue is written", || core.borrow().links[&link].queue.is_empty()).await;
        let after = core.borrow().stats.clone();
        let frames = (3 * ENVELOPE).div_ceil(LINK_FRAME_BYTES + ENVELOPE) as u64;
        assert_eq!((after.writes - before.writes, after.frames_out - before.frames_out), (1, frames));
        drop(other);
    });
}

fn letter() -> ToShard {
    let claim = Claim { incarnation: PeerIncarnation(1), hub: id(2) };
    ToShard::Nowhere { peer: PeerId::from_bytes([7; 20]), claim }
}

#[test]
fn links_are_not_read_while_a_shard_does_not_accept_its_letters() {
    beside_a_socket(async |core, link, mut other| {
        let posted = Cell::new(0);
        let post = || {
            let now = core.borrow().now();
            core.borrow_mut().carry_out(RelayOutput::Letter { to: ShardId(0), letter: letter() }, now);
            posted.set(posted.get() + 1);
        };
        while !core.borrow().is_stalled() {
            post();
        }
        assert_eq!(posted.get(), OUTBOX_HIGH_WATER + 1);
        post();
        other.write_all(&masked(&[])).unwrap();
        until("the link is parked", || core.borrow().parked == [link]).await;
        let before = core.borrow().stats.frames_in;
        let (shard, mut mailbox) = mpsc::channel(2 * OUTBOX_HIGH_WATER / LETTER_BATCH);
        core.borrow_mut().deliver(&mut Mailboxes::new(&[shard], None), &mut Context::from_waker(Waker::noop()));
        let mut taken = 0;
        while let Ok(letters) = mailbox.try_recv() {
            taken += letters.len();
        }
        assert_eq!(taken, posted.get(), "no letter is dropped");
        until("the link is read again", || core.borrow().stats.frames_in == before + 1).await;
        drop(other);
    });
}

#[test]
fn silence_ends_a_link_but_not_right_after_the_process_was_stopped() {
    let (mut core, ms) = core();
    let link = ready(&mut core, 2);
    let to = |at: Duration| ms.store(at.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
    core.tick();
    // The process is stopped for a minute.
    let thawed = Duration::from_secs(60);
    for at in [thawed, thawed + THAW, thawed + LINK_PATIENCE - TICK] {
        to(at);
        core.last_tick =
            core.last_tick.max(at.saturating_sub(TICK).min(if at == thawed { Duration::ZERO } else { at }));
        core.tick();
        assert!(core.links.contains_key(&link), "at {at:?}");
    }
    assert!(core.links[&link].queue.len_bytes() > 0, "the link was pinged");
    to(thawed + LINK_PATIENCE);
    core.tick();
    assert!(core.links.is_empty());
    assert_eq!(core.stats.ended.iter().sum::<u64>(), 1);
}

#[test]
fn a_link_reports_room_in_its_next_turn_if_the_relay_has_more_to_send() {
    beside_a_socket(async |core, link, other| {
        let now = core.borrow().now();
        core.borrow_mut().carry_out(RelayOutput::Backlog { transport: Transport::Link(link) }, now);
        until("the link reports room", || !core.borrow().links[&link].backlog).await;
        drop(other);
    });
}

#[test]
fn a_frame_above_the_maximum_length_ends_its_link() {
    let (mut core, _) = core();
    let link = ready(&mut core, 2);
    let mut header = Vec::new();
    proto::ws::put_masked_header(&mut header, proto::ws::Opcode::Binary, LINK_MESSAGE_BYTES + 1, [0; 4]);
    core.received(link, &mut header);
    assert_eq!(core.links[&link].end(), Some(LinkEnd::Malformed));
    const { assert!(READ_BUFFER_BYTES < LINK_MESSAGE_BYTES) };
}

#[test]
fn malformed_data_on_an_ending_link_is_read_once() {
    for (namespace, end) in [("other", LinkEnd::WrongNamespace), ("mesh", LinkEnd::Double)] {
        let (mut core, _) = core();
        let link = adopt(&mut core, 2, false);
        let hello = proto::envelope::Hello {
            discovery: proto::Discovery::All,
            version: proto::envelope::VERSION,
            hub: id(2),
            incarnation: HubIncarnation(1),
            namespace: namespace.into(),
            process: 2,
        };
        let mut bytes = Vec::new();
        Envelope::Hello(Box::new(hello)).encode(&mut bytes);
        core.received(link, &mut masked(&bytes));
        if end == LinkEnd::Double {
            core.received(link, &mut masked(&[]));
            let now = core.now();
            core.retire(link, end, now);
        }
        assert_eq!(core.links[&link].end(), Some(end));
        core.received(link, &mut [0xff; 8]);
        core.received(link, &mut [0xff; 8]);
        assert!(core.links[&link].reader.waiting_bytes() == 0);
    }
}

#[test]
fn a_go_hub_does_not_replace_the_link_of_the_hub_whose_id_it_sends() {
    let (mut core, _) = core();
    let native = ready(&mut core, 2);
    let legacy = adopt(&mut core, 2, true);
    assert!(core.links[&native].is_ready() && core.links[&legacy].is_ready());
    let again = ready(&mut core, 2);
    assert!(core.links[&again].is_ready() && core.links[&legacy].is_ready() && !core.links[&native].is_ready());
}

#[test]
fn a_go_hub_that_dials_receives_peers_after_its_own_announcements() {
    use proto::limits::LEGACY_PATIENCE;
    let (mut core, ms) = core();
    // Whether the relay has more to send and must wait.
    let waits = |core: &mut Core, link| {
        core.backlog(Transport::Link(link));
        core.after_write(link);
        core.links[&link].backlog
    };
    let native = ready(&mut core, 3);
    assert!(!waits(&mut core, native));
    let link = adopt(&mut core, 2, true);
    assert!(waits(&mut core, link));
    // The Go hub is pinged at the next tick, after the first messages.
    core.tick();
    let mut ping = Vec::new();
    proto::ws::put_header(&mut ping, proto::ws::Opcode::Ping, 8);
    assert!(core.link_mut(link).unwrap().queue.unwritten().windows(2).any(|bytes| bytes == ping));
    assert!(waits(&mut core, link), "the Go hub has not answered the ping yet");
    let mut pong = Vec::new();
    proto::ws::put_masked_header(&mut pong, proto::ws::Opcode::Pong, 8, [0; 4]);
    pong.extend_from_slice(&[0; 8]);
    core.received(link, &mut pong);
    assert!(!waits(&mut core, link));
    // A Go hub that answers no pings receives the announcements after LEGACY_PATIENCE.
    let silent = adopt(&mut core, 4, true);
    assert!(waits(&mut core, silent));
    ms.fetch_add(LEGACY_PATIENCE.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
    assert!(!waits(&mut core, silent));
}

/// A core with a disconnected bridge. The test makes its events.
fn core_with_bridge() -> Core {
    let make = |hub| {
        let config = crate::bridge::BridgeConfig {
            url: "nowhere".to_owned(),
            namespace: "mesh".to_owned(),
            hub,
            token: None,
            also: None,
            extra_roots: None,
        };
        Bridge::start(config, tokio::sync::mpsc::channel(1).0)
    };
    core_with(Some(Box::new(make))).0
}

/// A heartbeat of hub 2, as the bridge delivers it.
fn heartbeat(number: u64) -> BridgeEvent {
    let beat = proto::envelope::Heartbeat {
        hub: id(2),
        incarnation: HubIncarnation(1),
        number,
        seq: 0,
        digest: 0,
        age_ms: 0,
        draining: false,
        neighbours: Vec::new(),
        advertise: None,
        public_url: None,
        process: 1,
        unheard: Vec::new(),
        link_unheard: false,
        status: None,
    };
    let mut frame = Vec::new();
    Envelope::Heartbeat(Arc::new(beat)).encode(&mut frame);
    BridgeEvent::Received { from: id(2), frame }
}

#[test]
fn events_of_the_previous_bridge_do_not_concern_the_current_one() {
    let mut core = core_with_bridge();
    let is_bridged = |core: &Core| core.relay.hubs(core.now()).iter().any(|hub| hub.hub == id(2) && hub.bridged);
    core.bridged(id(1), BridgeEvent::Up);
    core.bridged(id(1), heartbeat(1));
    assert!(is_bridged(&core));
    // A relay that takes a new id first handles the end of its bridge.
    core.input(RelayInput::BridgeDown, core.now());
    core.carry_out(RelayOutput::Renamed { hub: id(7) }, core.now());
    core.bridged(id(1), heartbeat(2));
    assert!(!is_bridged(&core));
    core.bridged(id(7), BridgeEvent::Up);
    core.bridged(id(7), heartbeat(3));
    assert!(is_bridged(&core));
    core.bridged(id(1), BridgeEvent::Down);
    assert!(is_bridged(&core));
    core.bridged(id(7), BridgeEvent::Down);
    assert!(!is_bridged(&core));
}

#[test]
fn a_new_bridge_starts_with_an_empty_queue() {
    let mut core = core_with_bridge();
    core.followups.push_back(RelayInput::Saturated { transport: Transport::Bridge });
    core.followups.push_back(RelayInput::Saturated { transport: Transport::Link(LinkId(1)) });
    core.carry_out(RelayOutput::Renamed { hub: id(7) }, core.now());
    let kept: Vec<_> = core.followups.iter().collect();
    assert!(matches!(kept[..], [RelayInput::Saturated { transport: Transport::Link(_) }]));
}

/// Requests for snapshots of an unknown hub. The core answers each request with one envelope.
fn requests(count: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..count {
        let request = SnapshotRequest { hub: id(9), incarnation: HubIncarnation(1), have: 0 };
        Envelope::SnapshotRequest(request).encode(&mut message);
    }
    message
}

fn requests_received(core: &mut Core) -> u64 {
    let now = core.now();
    core.relay.stats(now).received[proto::envelope::EnvelopeKind::SnapshotRequest as usize]
}

#[test]
fn a_long_message_of_a_link_is_processed_in_several_turns() {
    let (mut core, _) = core();
    let link = ready(&mut core, 2);
    let mut bytes = masked(&requests(2 * TURN_OUTPUTS + 10));
    bytes.extend(masked(&requests(5)));
    core.begin_turn();
    core.received(link, &mut bytes);
    for turn in 1..=2 {
        let processed = requests_received(&mut core) as usize;
        assert_eq!(processed, turn * TURN_OUTPUTS);
        assert!(core.is_turn_over() && std::mem::take(&mut core.links.get_mut(&link).unwrap().replay));
        core.begin_turn();
        core.received(link, &mut []);
    }
    // The last turn has processed the end of the message. The next turn processes the bytes after the message, which
    // are in the reader.
    assert!(core.links[&link].unread.is_none() && core.links[&link].replay);
    core.received(link, &mut []);
    assert_eq!(requests_received(&mut core) as usize, 2 * TURN_OUTPUTS + 15);
    assert!(core.links[&link].is_ready());
}

#[tokio::test]
async fn a_long_event_of_the_bridge_is_processed_in_several_turns() {
    let mut core = core_with_bridge();
    core.bridged(id(1), BridgeEvent::Up);
    core.bridged(id(1), heartbeat(1));
    core.bridged(id(1), BridgeEvent::Received { from: id(2), frame: requests(2 * TURN_OUTPUTS + 10) });
    for turn in 1..=2 {
        assert_eq!(requests_received(&mut core) as usize, turn * TURN_OUTPUTS);
        assert!(core.go_on_with_bridge());
    }
    assert_eq!(requests_received(&mut core) as usize, 2 * TURN_OUTPUTS + 10);
    assert!(!core.go_on_with_bridge());
}

#[test]
fn a_slice_waits_until_few_letters_are_queued_for_each_shard() {
    let (mut core, _) = core();
    let now = core.now();
    let letter = || ToShard::Nowhere { peer: id(3).0, claim: Claim { incarnation: PeerIncarnation(1), hub: id(2) } };
    assert!(!core.continue_work(), "there is no work");
    core.carry_out(RelayOutput::Unfinished, now);
    (0..=SLICE_ROOM).for_each(|_| core.post(ShardId(0), letter()));
    assert!(!core.continue_work() && core.unfinished, "one letter too many is queued");
    let (shard, _mailbox) = mpsc::channel(1);
    core.deliver(&mut Mailboxes::new(&[shard], None), &mut Context::from_waker(Waker::noop()));
    assert!(core.continue_work() && !core.unfinished);
    assert!(!core.continue_work(), "the work is done only once");
}

#[test]
fn texts_of_spans_are_cut() {
    use proto::limits::TRACE_TEXT_BYTES;
    assert_eq!(super::traces::cut(&"é".repeat(TRACE_TEXT_BYTES)).len(), TRACE_TEXT_BYTES);
    assert_eq!(super::traces::cut(&format!("x{}", "é".repeat(TRACE_TEXT_BYTES))).len(), TRACE_TEXT_BYTES - 1);
    assert_eq!(&*super::traces::cut("short"), "short");
}
