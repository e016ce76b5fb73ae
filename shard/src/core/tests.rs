mod drains;
mod letters;
mod orders;
mod turns;

use std::net::{TcpListener, TcpStream};
use std::task::Context;

use proto::limits::{
    CHEAP_TURN_NANOS, FLUSH_BACKLOG, FLUSH_BACKLOG_BYTES, ICE_LOOK, LETTER_BATCH, LOUD_TURNS, OUTBOX_HIGH_WATER,
    RECEIVE_FLOOR_BYTES, SEND_FLOOR_BYTES, SLICE_ROOM,
};
use proto::{
    Budget, Claim, HubId, IceServers, Keys, PeerIncarnation, ResumeKeys, RouterConfig, RouterTuning, ToMesh, Turn,
};
use socket2::SockRef;
use thread::Mailboxes;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;

use super::*;
use crate::session::{HandOff, PeerRequest, Seat};
use crate::socket::Socket;

const MEBIBYTE: usize = 1024 * 1024;

fn core(limits: SessionLimits) -> Core {
    core_beside(limits, false)
}

/// A core of a hub with or without a mesh.
fn core_beside(limits: SessionLimits, meshed: bool) -> Core {
    core_of(limits, meshed, None)
}

fn core_of(limits: SessionLimits, meshed: bool, ice: Option<Arc<IceServers>>) -> Core {
    let config = RouterConfig {
        discovery: proto::Discovery::All,
        ice,
        shard: ShardId(0),
        shards: 1,
        keys: Keys(1, 2),
        resume_keys: ResumeKeys::new("mesh", b"key", None),
        hub: HubId(peer(0)),
        heartbeat: Duration::from_secs(25),
        max_message_bytes: limits.max_message_bytes,
        max_networks_per_peer: 1,
        max_peers_per_network: 100,
        announce_budget_bytes: usize::MAX,
        budget: Budget::UNLIMITED,
        network_budget: Budget::UNLIMITED,
        meshed,
        events: false,
        tuning: RouterTuning { roster_chunk: 1, ..RouterTuning::default() },
    };
    Core::new(Router::new(config.clone()), &config, limits, Clock::start(), Arc::default(), false)
}

const fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 20])
}

/// A session of peer `n` whose client never reads, and the handles that keep it open.
async fn adopt(core: &mut Core, n: u8) -> (SessionId, OwnedReadHalf, TcpStream) {
    adopt_as(core, peer(n)).await
}

async fn adopt_as(core: &mut Core, peer: PeerId) -> (SessionId, OwnedReadHalf, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    SockRef::from(&client).set_recv_buffer_size(4096).expect("set");
    let (stream, address) = listener.accept().expect("accepted");
    SockRef::from(&stream).set_send_buffer_size(4096).expect("set");
    stream.set_nonblocking(true).expect("set");
    let (read, write) = tokio::net::TcpStream::from_std(stream).expect("registered").into_split();
    write.writable().await.expect("open");
    let gauges = Arc::clone(&core.gauges);
    let seat = Seat::request(&gauges, 1000);
    let arrival = Arrival {
        request: PeerRequest { peer, resume: None, owner: false, key: None, grant: None, names_protocol: false },
        address,
        seat,
    };
    (core.adopt(Writer { tcp: write, tls: None }, Vec::new(), arrival), read, client)
}

#[tokio::test]
async fn an_open_session_gets_new_credentials_and_an_ended_session_does_not() {
    let limits = SessionLimits {
        max_message_bytes: MEBIBYTE,
        send_queue_frames: 1000,
        send_queue_bytes: 4 * MEBIBYTE,
        send_budget_bytes: 4 * MEBIBYTE,
        send_floor_bytes: SEND_FLOOR_BYTES,
        receive_budget_bytes: 2 * MEBIBYTE,
        peer_timeout: Duration::from_secs(3600),
    };
    let turn = Turn { urls: "[]".into(), secrets: vec!["s".into()], ttl: Duration::from_secs(400) };
    let mut core = core_of(limits, false, Some(Arc::new(IceServers::new("", Some(turn)))));
    let (staying, _read, _client) = adopt(&mut core, 1).await;
    let (ending, _its_read, _its_client) = adopt(&mut core, 2).await;
    core.lost(ending, CloseReason::ConnectionLost);
    let begin = core.now();
    let mut issued = Vec::new();
    for minute in 0..=11 {
        let now = Now { at: begin.at + minute * ICE_LOOK, ..begin };
        // The client answers pings.
        core.session_mut(staying).expect("open").life.shown(now.at);
        core.wheel.expire(now.at, &mut core.due);
        core.expire(now);
        issued.push(core.router.stats().turn_credentials);
    }
    // Each of the two sessions got credentials with `connected`. The session that stays gets new credentials after 300
    // s and 600 s.
    assert_eq!(issued, [2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4]);
    assert_eq!(core.session_mut(staying).expect("open").phase(), SessionPhase::Open);
}

/// Sends a signal of this length from `from`.
fn signal(core: &mut Core, from: SessionId, target: PeerId, bytes: usize) {
    let text = format!(r#"{{"type":"offer","targetPeerId":"{target}","data":"{}"}}"#, "x".repeat(bytes));
    core.input(Input::Message { session: from, text: &text }, core.now());
}

#[tokio::test]
async fn a_slow_session_is_closed_only_once_when_the_budget_is_exhausted() {
    let limits = SessionLimits {
        max_message_bytes: MEBIBYTE,
        send_queue_frames: 1000,
        send_queue_bytes: 4 * MEBIBYTE,
        send_budget_bytes: 2 * MEBIBYTE,
        send_floor_bytes: SEND_FLOOR_BYTES,
        receive_budget_bytes: 2 * MEBIBYTE,
        peer_timeout: Duration::from_secs(300),
    };
    let mut core = core(limits);
    let mut sessions = Vec::new();
    for n in 0..10 {
        sessions.push(adopt(&mut core, n).await);
    }
    let [(sender, ..), (slow, ..), others @ ..] = &sessions[..] else { panic!("ten sessions") };
    // The first frame is partly written, so the end of that frame cannot be removed from the queue.
    signal(&mut core, *sender, peer(1), MEBIBYTE - 200);
    while core.flush(1) {}
    assert!(core.session_mut(*slow).expect("open").queued_bytes() > SEND_FLOOR_BYTES);
    // Other sessions then exhaust the budget. Each of the other sessions has a queue that is shorter than its floor.
    for (n, _) in others.iter().enumerate() {
        signal(&mut core, *sender, peer(2 + n as u8), SEND_FLOOR_BYTES - 1000);
    }
    // A further signal to the slow session is refused. The hub's own `pong` exceeds the floor, and closes the session.
    signal(&mut core, *sender, peer(1), 10);
    assert_eq!(core.session_mut(*slow).expect("open").reason(), None);
    core.input(Input::Message { session: *slow, text: r#"{"type":"ping"}"# }, core.now());
    let cut = core.session_mut(*slow).expect("it lingers");
    assert_eq!((cut.phase(), cut.reason()), (SessionPhase::Closing, Some(CloseReason::SlowConsumer)));
    assert_eq!(core.stats.closes.iter().sum::<u64>(), 1);
    assert_eq!(core.router.stats().failed.iter().sum::<u64>(), 1, "only the signal to the slow session failed");
    for (id, ..) in &sessions {
        core.lost(*id, CloseReason::ConnectionLost);
    }
    assert_eq!(core.stats.queued_bytes, 0);
    let stats = core.router.stats();
    assert_eq!(stats.outcomes(), 10, "each signal has one outcome");
}

#[tokio::test]
async fn a_signal_has_an_outcome_although_the_previous_frame_closed_its_target() {
    let limits = SessionLimits {
        max_message_bytes: MEBIBYTE,
        send_queue_frames: 2,
        send_queue_bytes: MEBIBYTE,
        send_budget_bytes: MEBIBYTE,
        send_floor_bytes: SEND_FLOOR_BYTES,
        receive_budget_bytes: 2 * MEBIBYTE,
        peer_timeout: Duration::from_secs(300),
    };
    let mut core = core(limits);
    let mut sessions = Vec::new();
    for n in 0..3 {
        let adopted = adopt(&mut core, n).await;
        let text = r#"{"type":"announce"}"#;
        core.input(Input::Message { session: adopted.0, text }, core.now());
        sessions.push(adopted);
        for (id, ..) in &sessions[..sessions.len().min(2)] {
            core.flush_session(*id);
        }
    }
    // The target has not discovered the second peer yet. So the discovery of that peer is queued before its signal.
    let [_, (sender, ..), (target, ..)] = &sessions[..] else { panic!("three sessions") };
    signal(&mut core, *sender, peer(2), 10);
    assert_eq!(core.session_mut(*target).and_then(|s| s.reason()), Some(CloseReason::SlowConsumer));
    assert_eq!(core.router.stats().failed.iter().sum::<u64>(), 1);
}

const ROOMY: SessionLimits = SessionLimits {
    max_message_bytes: MEBIBYTE,
    send_queue_frames: 1000,
    send_queue_bytes: 4 * MEBIBYTE,
    send_budget_bytes: 4 * MEBIBYTE,
    send_floor_bytes: SEND_FLOOR_BYTES,
    receive_budget_bytes: 2 * MEBIBYTE,
    peer_timeout: Duration::from_secs(300),
};

/// The header of a client's text message of `declared` bytes, and the first `sent` bytes of this message.
fn begun(declared: usize, sent: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    proto::ws::put_masked_header(&mut frame, proto::ws::Opcode::Text, declared, [0; 4]);
    frame.resize(frame.len() + sent, b' ');
    frame
}

#[tokio::test]
async fn incomplete_messages_share_a_budget_and_small_messages_are_always_read() {
    let mut core = core(ROOMY);
    let mut sessions = Vec::new();
    for n in 0..10 {
        sessions.push(adopt(&mut core, n).await);
    }
    let reason = |core: &mut Core, id| core.session_mut(id).and_then(|session| session.reason());
    let [large @ .., (small, ..)] = &sessions[..] else { panic!("ten sessions") };
    let mut closed = 0;
    for (id, ..) in large {
        core.received(*id, &mut begun(MEBIBYTE, 60_000));
        for _ in 0..8 {
            if reason(&mut core, *id).is_none() {
                core.received(*id, &mut vec![b' '; 60_000]);
            }
        }
        closed += usize::from(reason(&mut core, *id) == Some(CloseReason::TryAgainLater));
        assert!(core.stats.kept_bytes <= (ROOMY.receive_budget_bytes + 9 * RECEIVE_FLOOR_BYTES) as u64);
    }
    assert!((1..9).contains(&closed), "{closed} of 9 were closed");
    // A message as long as a usual offer is read, although it arrives in two parts.
    let text = r#"{"type":"ping"}"#;
    let mut ping = begun(30_000, 30_000 - text.len());
    ping.extend_from_slice(text.as_bytes());
    let (first, second) = ping.split_at_mut(20_000);
    core.received(*small, first);
    core.received(*small, second);
    assert_eq!(
        (reason(&mut core, *small), core.router.stats().messages_in[proto::MessageKind::Ping.index()]),
        (None, 1)
    );
    for (id, ..) in &sessions {
        core.lost(*id, CloseReason::ConnectionLost);
        core.remove(*id);
    }
    assert_eq!(core.stats.kept_bytes, 0);
}

#[tokio::test]
async fn a_new_member_receives_several_chunks_in_one_turn() {
    let mut core = core(ROOMY);
    let mut sessions = Vec::new();
    for n in 0..3 {
        let adopted = adopt(&mut core, n).await;
        core.input(Input::Message { session: adopted.0, text: r#"{"type":"announce"}"# }, core.clock.now());
        sessions.push(adopted);
    }
    let (newcomer, ..) = sessions[2];
    let session = core.session_mut(newcomer).expect("open");
    assert!(session.backlog, "the roster needs several chunks: each has one member, and each member is visited twice");
    SockRef::from(session.write.tcp.as_ref()).set_send_buffer_size(MEBIBYTE).expect("set");
    core.flush_session(newcomer);
    let session = core.session_mut(newcomer).expect("open");
    assert!(!session.backlog && session.queue.is_none());
}

#[tokio::test]
async fn unneeded_queues_are_freed() {
    let mut core = core(ROOMY);
    let _session = adopt(&mut core, 1).await;
    while core.flush(1) {}
    assert_eq!(core.queues.len(), 1, "the empty queue is kept for the next message");
    core.queues.tidy();
    assert_eq!(core.queues.len(), 1, "the queue was used a moment ago");
    core.queues.tidy();
    assert_eq!(core.queues.len(), 0);
}

#[tokio::test]
async fn a_session_keeps_only_the_bytes_after_its_request() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    for behind in ["", "early"] {
        // hyper's buffer is much larger than the bytes that follow the request.
        let mut buffer = Vec::with_capacity(8 * 1024);
        buffer.extend_from_slice(behind.as_bytes());
        let seat = Seat::request(&Arc::default(), 1);
        let handed = HandOff {
            socket: Socket { stream: TcpStream::connect(address).expect("connected"), tls: None },
            leftover: buffer.into(),
            arrival: Arrival {
                request: PeerRequest {
                    peer: peer(1),
                    resume: None,
                    owner: false,
                    key: None,
                    grant: None,
                    names_protocol: false,
                },
                address,
                seat,
            },
        };
        let (_, _, leftover, _) = handed.into_parts();
        assert_eq!((&leftover[..], leftover.capacity()), (behind.as_bytes(), behind.len()));
    }
}

#[tokio::test]
async fn sessions_that_the_hub_did_not_read_are_not_dead() {
    let later = |now: Now, secs| Now { at: now.at + Duration::from_secs(secs), ..now };
    let mut core = core(ROOMY);
    let (id, _read, _client) = adopt(&mut core, 1).await;
    core.park(id);
    core.judge_silence(id, later(core.clock.now(), 100));
    assert_eq!(
        core.session_mut(id).map(|s| (s.phase(), s.life.pings())),
        Some((SessionPhase::Open, 0)),
        "a session that the shard does not read is not pinged"
    );
    // After the pause, the session has as much time as any other session.
    let before = Life::new(Duration::MAX / 2);
    core.session_mut(id).expect("open").life = before;
    core.unpark();
    assert_ne!(core.session_mut(id).expect("open").life, before);
    core.judge_silence(id, later(core.clock.now(), 100));
    assert_eq!(core.session_mut(id).and_then(|s| s.reason()), Some(CloseReason::DeadPeer));
}

#[tokio::test]
async fn a_socket_that_accepts_nothing_is_dead_even_if_its_client_sends() {
    let mut core = core(SPACIOUS);
    let (sender, ..) = adopt(&mut core, 1).await;
    let (slow, _read, _client) = adopt(&mut core, 2).await;
    for _ in 0..3 {
        signal(&mut core, sender, peer(2), MEBIBYTE - 200);
    }
    while core.flush(1) {}
    let talks = |core: &mut Core, secs| {
        let later = Now { at: core.now().at + Duration::from_secs(secs), ..core.now() };
        core.session_mut(slow).expect("open").life.shown(later.at);
        core.judge_silence(slow, later);
        core.session_mut(slow).expect("it lingers").reason()
    };
    assert_eq!(talks(&mut core, 59), None);
    assert_eq!(talks(&mut core, 61), Some(CloseReason::DeadPeer));
    assert!(core.session_mut(slow).expect("it lingers").queued_bytes() < MEBIBYTE, "unsent messages are dropped");
    assert_eq!(core.router.stats().failed[proto::ErrorCode::PeerNotFound as usize], 2);
}

/// Limits with the default queue of a session.
const SPACIOUS: SessionLimits = SessionLimits {
    send_queue_frames: proto::limits::DEFAULT_SEND_QUEUE_FRAMES,
    send_queue_bytes: proto::limits::DEFAULT_SEND_QUEUE_BYTES,
    send_budget_bytes: 100 * MEBIBYTE,
    ..ROOMY
};

#[tokio::test]
async fn senders_share_a_queue_and_the_hub_has_a_reserved_part() {
    let mut core = core(SPACIOUS);
    let (target, _read, _client) = adopt(&mut core, 0).await;
    let refused = |core: &mut Core| core.router.stats().failed[proto::ErrorCode::SlowPeer as usize];
    let mut kept = Vec::new();
    let mut taken = Vec::new();
    // Each of many senders sends signals until one of its signals is refused.
    for n in 1..=200 {
        let (sender, read, client) = adopt(&mut core, n).await;
        kept.push((read, client));
        let before = core.session_mut(target).expect("open").queued_bytes();
        let refusals = refused(&mut core);
        while refused(&mut core) == refusals {
            signal(&mut core, sender, peer(0), 7_000);
            while core.flush(1) {}
        }
        taken.push(core.session_mut(target).expect("open").queued_bytes() - before);
    }
    let queued = core.session_mut(target).expect("open").queued_bytes();
    assert!(taken[0] > 2 * MEBIBYTE && taken[0] < 4 * MEBIBYTE, "{taken:?}");
    assert!(taken.iter().all(|&bytes| bytes >= 14_000), "each sender finds room for two signals: {taken:?}");
    assert!(queued < 12 * MEBIBYTE, "a quarter of the queue is reserved for the hub's own messages: {queued}");
    assert_eq!(core.session_mut(target).and_then(|s| s.reason()), None);
    // An empty queue accepts a message longer than a sender's share.
    let (idle, _read, _client) = adopt(&mut core, 201).await;
    let (sender, _read2, _client2) = adopt(&mut core, 202).await;
    let refusals = refused(&mut core);
    signal(&mut core, sender, peer(201), MEBIBYTE - 200);
    assert_eq!(refused(&mut core), refusals);
    assert!(core.session_mut(idle).expect("open").queued_bytes() > 0);
}

#[tokio::test]
async fn small_signals_are_limited_by_their_number() {
    let mut core = core(SPACIOUS);
    let (target, _read, _client) = adopt(&mut core, 0).await;
    let (sender, _read1, _client1) = adopt(&mut core, 1).await;
    let (other, _read2, _client2) = adopt(&mut core, 2).await;
    let refused = |core: &mut Core| core.router.stats().failed[proto::ErrorCode::SlowPeer as usize];
    for _ in 0..10_000 {
        signal(&mut core, sender, peer(0), 1);
    }
    let frames = core.session_mut(target).and_then(|s| s.queue.as_ref().map(|q| q.len_frames())).expect("a queue");
    assert!((6_000..7_000).contains(&frames), "{frames}");
    let refusals = refused(&mut core);
    signal(&mut core, other, peer(0), 1);
    assert_eq!(refused(&mut core), refusals, "another sender has its own share of the queue");
}
