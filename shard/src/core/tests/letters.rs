//! Tests of letters for the mesh and for other shards, and of the pause of reading while too many letters wait.

use super::*;

/// The next batch of letters for the mesh.
fn take_letters(core: &mut Core) -> Vec<ToMesh> {
    let (shard, _shard_mailbox) = mpsc::channel(1);
    let (mesh, mut mailbox) = mpsc::channel(1);
    core.deliver(&mut Mailboxes::new(&[shard], Some(&mesh)), &mut Context::from_waker(Waker::noop()));
    mailbox.try_recv().unwrap_or_default()
}

#[tokio::test]
async fn letters_to_the_mesh_have_their_own_outbox() {
    let mut alone = core(ROOMY);
    let (_id, _read, _client) = adopt(&mut alone, 1).await;
    assert_eq!(alone.outboxes.waiting(), 0, "a hub without a mesh posts no letters to the mesh");

    let mut core = core_beside(ROOMY, true);
    let (id, _read, _client) = adopt(&mut core, 1).await;
    core.input(Input::Message { session: id, text: r#"{"type":"announce"}"# }, core.now());
    let letters = take_letters(&mut core);
    assert!(matches!(letters[..], [ToMesh::Opened { .. }, ToMesh::Joined(_)]), "{letters:?}");
    assert_eq!(core.outboxes.waiting(), 0);
    core.lost(id, CloseReason::ConnectionLost);
    assert!(!core.is_drained(), "the mesh has not received the end of the session");
    let letters = take_letters(&mut core);
    assert!(matches!(letters.last(), Some(ToMesh::Closed { .. })), "{letters:?}");
}

#[tokio::test]
async fn a_shard_stops_reading_until_the_mesh_accepts_letters() {
    let mut core = core_beside(ROOMY, true);
    let letter = || ToMesh::AskTakeover { peer: peer(1), shard: ShardId(0), ticket: 1, resume: None, owner: false };
    for _ in 0..=OUTBOX_HIGH_WATER {
        assert!(!core.is_busy());
        core.post_to_mesh(letter());
    }
    assert!(core.is_busy());
    assert_eq!(core.outboxes.stats().stalls, 1);
    let mut taken = 0;
    while core.is_busy() {
        let batch = take_letters(&mut core).len();
        assert_eq!(batch, LETTER_BATCH);
        taken += batch;
    }
    assert!(taken >= OUTBOX_HIGH_WATER / 2, "the shard reads again after half of the letters have left");
    assert_eq!(core.outboxes.waiting() + taken, OUTBOX_HIGH_WATER + 1, "no letter is dropped");
}

#[tokio::test]
async fn many_sessions_with_short_queues_do_not_stop_reading() {
    let mut core = core(ROOMY);
    let mut sessions = Vec::new();
    for n in 0..=FLUSH_BACKLOG as u16 {
        let mut id = [0; 20];
        id[..2].copy_from_slice(&n.to_be_bytes());
        sessions.push(adopt_as(&mut core, PeerId::from_bytes(id)).await);
    }
    assert!(core.writes.counts().0 > FLUSH_BACKLOG as u64 && core.writes.counts().1 > 0);
    assert!(!core.is_behind(), "each session waits only for its greeting");
    let (first, ..) = sessions[0];
    core.mark_dirty(first, FLUSH_BACKLOG_BYTES, Urgency::First);
    assert!(core.is_behind());
    assert!(core.flush(1), "the other sessions are not written yet");
    assert!(!core.is_behind(), "only the first session had much data to write");
    for (id, ..) in &sessions {
        core.lost(*id, CloseReason::ConnectionLost);
    }
    assert_eq!(core.writes.counts(), (0, 0), "an ended session has no data to write");
}

#[tokio::test]
async fn letters_wait_for_queued_output_only_if_they_add_much_to_it() {
    let announce = |data: &str| format!(r#"{{"type":"announce","data":{{"name":"{data}"}}}}"#);
    const LONG: usize = 15_000;
    let joined = async |peer: u8, bytes: usize| {
        let mut core = core_beside(ROOMY, true);
        let (id, _read, _client) = adopt(&mut core, peer).await;
        core.input(Input::Message { session: id, text: &announce(&"x".repeat(bytes)) }, core.now());
        let joined = take_letters(&mut core).into_iter().find_map(|letter| {
            let ToMesh::Joined(announcement) = letter else { return None };
            Some(ToShard::Joined(announcement))
        });
        joined.expect("the announcement")
    };
    let mut core = core(ROOMY);
    let (id, _read, _client) = adopt(&mut core, 1).await;
    core.input(Input::Message { session: id, text: &announce("") }, core.now());
    while core.flush(1) {}
    core.writes.set_behind(true);
    core.letters(&mut [joined(2, 100).await].into_iter());
    assert!(!core.holds_letters(), "a short announcement causes little output");
    let mut long = Vec::new();
    for peer in 3..=3 + (CHEAP_TURN_NANOS as usize / LONG) as u8 {
        long.push(joined(peer, LONG).await);
    }
    core.letters(&mut long.into_iter());
    let queued = core.session_mut(id).expect("open").queued_bytes();
    assert!(queued > LONG, "{queued} bytes are queued");
    assert!(core.holds_letters(), "announcements of more than 50 KB cause much output");
    core.writes.set_behind(false);
    assert!(!core.holds_letters());
    core.writes.set_behind(true);
    (0..LOUD_TURNS).for_each(|_| core.letters(&mut [].into_iter()));
    assert!(!core.holds_letters(), "letters do not wait after several turns with little output");
}

#[test]
fn a_slice_waits_until_few_letters_are_queued_for_each_receiver() {
    let mut core = core_beside(ROOMY, true);
    let now = core.now();
    let claim = Claim { incarnation: PeerIncarnation(1), hub: HubId(peer(0)) };
    assert!(!core.continue_work(), "there is no work");
    core.carry_out(Output::Unfinished, now);
    (0..=SLICE_ROOM).for_each(|_| core.carry_out(Output::ToMesh(ToMesh::Opened { peer: peer(1), claim }), now));
    assert!(!core.continue_work() && core.unfinished, "one letter too many is queued");
    assert_eq!(take_letters(&mut core).len(), LETTER_BATCH);
    assert!(core.continue_work() && !core.unfinished);
    assert!(!core.continue_work(), "the work is done only once");
}
