//! Tests of the cost of the turns of sessions, and of the order in which sessions are read and written.

use super::*;

fn messages_in(core: &mut Core, kind: proto::MessageKind) -> u64 {
    core.router.stats().messages_in[kind.index()]
}

/// A masked text frame of a client.
fn text(payload: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    proto::ws::put_header(&mut frame, proto::ws::Opcode::Text, payload.len());
    frame[1] |= 0x80;
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload.as_bytes());
    frame
}

#[tokio::test]
async fn a_turn_ends_with_the_message_that_causes_much_output() {
    let mut core = core(SPACIOUS);
    let mut sessions = Vec::new();
    for n in 0..60 {
        let adopted = adopt(&mut core, n).await;
        core.input(Input::Message { session: adopted.0, text: r#"{"type":"announce"}"# }, core.now());
        sessions.push(adopted);
    }
    let (id, ..) = sessions[0];
    let before = messages_in(&mut core, proto::MessageKind::Announce);
    let announce = text(&format!(r#"{{"type":"announce","data":{{"x":"{}"}}}}"#, "x".repeat(10_000)));
    core.begin_turn(proto::limits::TURN_NANOS);
    core.received(id, &mut announce.repeat(5));
    assert_eq!(
        messages_in(&mut core, proto::MessageKind::Announce) - before,
        1,
        "the turn has caused 600 KB of output"
    );
    assert!(
        core.session_mut(id).expect("open").read.has_replay(),
        "the remaining messages are processed in another turn"
    );
}

#[tokio::test]
async fn messages_addressed_to_a_peer_are_written_before_presence_of_others() {
    let mut core = core(SPACIOUS);
    let mut sessions = Vec::new();
    for n in 0..20 {
        let adopted = adopt(&mut core, n).await;
        if n < 18 {
            core.input(Input::Message { session: adopted.0, text: r#"{"type":"announce"}"# }, core.now());
        }
        sessions.push(adopted);
    }
    while core.flush(1) {}
    let [(first, ..), (second, ..), .., (sender, ..), (target, ..)] = sessions[..] else { panic!("twenty sessions") };
    core.input(Input::Message { session: first, text: r#"{"type":"announce","data":{"n":1}}"# }, core.now());
    signal(&mut core, sender, peer(19), 100);
    let waits = |core: &mut Core, id| core.session_mut(id).expect("open").queue.is_some();
    assert!(waits(&mut core, second) && waits(&mut core, target));
    assert!(core.flush(1));
    assert!(waits(&mut core, second) && !waits(&mut core, target), "the session with the signal is written first");
    // A signal is written with everything queued before it, in order.
    signal(&mut core, second, peer(17), 100);
    assert!(core.flush(1));
    let (last, ..) = sessions[17];
    assert!(waits(&mut core, second) && !waits(&mut core, last));
    while core.flush(1) {}
    assert!(!waits(&mut core, second) && core.writes.counts() == (0, 0));
}

#[tokio::test]
async fn presence_is_written_even_if_many_messages_are_addressed_to_peers() {
    let mut core = core(SPACIOUS);
    let mut sessions = Vec::new();
    for n in 0..12 {
        sessions.push(adopt(&mut core, n).await);
    }
    while core.flush(1) {}
    for (id, ..) in &sessions {
        core.push(*id, |out| out.extend_from_slice(b"addressed"));
    }
    let later = sessions.pop().expect("twelve sessions");
    core.flush_session(later.0);
    core.mark_dirty(later.0, 0, Urgency::Later);
    core.flush(4);
    assert!(
        !core.session_mut(later.0).expect("open").writes.is_in_later(),
        "every fourth session comes from the second list"
    );
    assert!(core.writes.counts().0 > 6);
}

/// Runs one turn of a session that causes this many bytes of output. Returns false if the session must wait.
fn turn(core: &mut Core, id: SessionId, bytes: usize) -> bool {
    if !core.admits(id) {
        return false;
    }
    core.begin_turn(proto::limits::TURN_NANOS);
    core.now();
    core.turn.add_bytes(bytes);
    core.charge(id);
    true
}

/// The core charges each session for the cost of its turns. When the budget of a round is used up, a flood waits, and a
/// quiet session does not wait.
#[tokio::test]
async fn a_flood_is_charged_for_the_output_that_it_causes() {
    use proto::limits::{BYTE_NANOS, ROUND_DEAR_NANOS, TURN_NANOS};
    let mut core = core(SPACIOUS);
    let (flood, quiet) = (adopt(&mut core, 1).await, adopt(&mut core, 2).await);
    let bytes = (TURN_NANOS / BYTE_NANOS) as usize;
    let most = ROUND_DEAR_NANOS as u64 / TURN_NANOS + 1;
    for round in 0..50 {
        core.begin_round();
        let turns = (0..1000).take_while(|_| turn(&mut core, flood.0, bytes)).count() as u64;
        assert!(turns <= most, "round {round}: {turns} turns of the flood, {most} at most");
        let is_served = turn(&mut core, quiet.0, 100);
        // The cost of a new session is unknown in its first rounds.
        assert!(is_served || round < 20, "round {round}: the quiet session waits");
    }
}

/// Ten sessions have many invalid messages to read. One session that began later has a signal.
#[test]
fn a_quiet_pair_is_served_while_others_flood() {
    use std::io::{Read, Write};
    const FLOODS: usize = 10;
    const BYTES: usize = 512 * 1024;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = runtime.expect("a runtime");
    let (processed, sent) = runtime.block_on(async {
        let mut core = core(SessionLimits { max_message_bytes: MEBIBYTE, ..SPACIOUS });
        let mut sessions = Vec::new();
        let flood = text("{");
        let mut sent = 0;
        for n in 0..FLOODS + 2 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
            let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
            SockRef::from(&client).set_send_buffer_size(BYTES).expect("set");
            client.set_nonblocking(true).expect("set");
            let (stream, address) = listener.accept().expect("accepted");
            stream.set_nonblocking(true).expect("set");
            let (read, write) = tokio::net::TcpStream::from_std(stream).expect("registered").into_split();
            write.writable().await.expect("open");
            if n < FLOODS {
                let bytes = flood.repeat(BYTES / flood.len());
                sent += client.write(&bytes).expect("written") / flood.len();
            } else if n == FLOODS {
                let target = peer(FLOODS as u8 + 1);
                let signal = text(&format!(r#"{{"type":"offer","targetPeerId":"{target}","data":"the signal"}}"#));
                client.write_all(&signal).expect("written");
            }
            let seat = Seat::request(&Arc::clone(&core.gauges), 1000);
            let arrival = Arrival {
                request: PeerRequest {
                    peer: peer(n as u8),
                    resume: None,
                    owner: false,
                    key: None,
                    grant: None,
                    names_protocol: false,
                },
                address,
                seat,
            };
            let writer = Writer { tcp: write, tls: None };
            sessions.push((core.adopt(writer, Vec::new(), arrival), read, client));
        }
        let core = std::rc::Rc::new(std::cell::RefCell::new(core));
        let mut tasks = tokio::task::JoinSet::new();
        let (own, _mailbox) = tokio::sync::mpsc::channel(1);
        tasks.spawn_local(crate::runtime::flush(std::rc::Rc::clone(&core), Mailboxes::new(&[own], None)));
        let mut clients = Vec::new();
        for (id, read, client) in sessions {
            tasks.spawn_local(crate::session_task::run(std::rc::Rc::clone(&core), id, read));
            clients.push(client);
        }
        let mut heard = Vec::new();
        let target = clients.last_mut().expect("the target");
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !String::from_utf8_lossy(&heard).contains("the signal") {
            assert!(std::time::Instant::now() < deadline, "the signal must arrive in time");
            tokio::task::yield_now().await;
            let mut buffer = [0; 4096];
            if let Ok(n) = target.read(&mut buffer) {
                heard.extend_from_slice(&buffer[..n]);
            }
        }
        let processed = messages_in(&mut core.borrow_mut(), proto::MessageKind::Invalid);
        (processed as usize, sent)
    });
    assert!(processed < sent / 10, "{processed} of {sent} messages of the flood were processed before the signal");
}

#[tokio::test]
async fn a_slot_is_not_used_again_before_the_router_knows_that_its_session_has_ended() {
    let mut core = core(ROOMY);
    let (cut, _read, _client) = adopt(&mut core, 1).await;
    core.begin_turn(0);
    core.cut_slow_consumer(cut);
    core.lost(cut, CloseReason::ConnectionLost);
    assert!(core.session_mut(cut).is_none(), "the session has been removed");
    assert_eq!((core.reading().router.peers, core.slots.len()), (1, 0), "the turn was over before the router knew");
    let (next, _its_read, _its_client) = adopt(&mut core, 2).await;
    assert_ne!(next.slot, cut.slot);
    core.continue_work();
    assert_eq!((core.reading().router.peers, core.slots.len()), (1, 1), "the router knows only the second session");
    let (last, _last_read, _last_client) = adopt(&mut core, 1).await;
    assert_eq!(last.slot, cut.slot, "the slot is free now");
    assert_eq!(core.reading().router.peers, 2);
}
