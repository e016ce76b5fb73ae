//! Tests of the route of signals, and of the stay in which signals are delivered.

use super::*;

const FROM_HUB: Sender = Sender::Hub { hub: 1, counter: 1, receipt: false };

fn from_shard(detour: bool) -> Sender {
    Sender::Session { shard: ShardId(3), session: session(0, 0), ticket: Some(NonZeroU64::MIN), detour }
}

/// The addresses to which signals and outcomes were posted, and the outcomes.
fn posted(outputs: Vec<Output>) -> Vec<(Address, Option<Outcome>)> {
    let letter = |output| {
        if let Output::ToShard { to, letter: ToShard::Outcome(letter) } = output {
            Some((Address::Shard(to), Some(letter.outcome)))
        } else if let Output::ToMesh(ToMesh::Outcome(letter)) = output {
            Some((Address::Mesh, Some(letter.outcome)))
        } else if let Output::ToShard { to, letter: ToShard::Signal(_) } = output {
            Some((Address::Shard(to), None))
        } else {
            matches!(output, Output::ToMesh(ToMesh::Signal(_))).then_some((Address::Mesh, None))
        }
    };
    outputs.into_iter().filter_map(letter).collect()
}

#[test]
fn a_signal_reaches_members_in_the_stay_in_which_it_was_sent() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    let (claim, stay) = (at_hub(9, 10), |number| Stay { number, discovery: Discovery::All });
    let late = (Address::Mesh, Some(Outcome::Failed(ErrorCode::Unreachable)));
    let of_stay = |number| signal(FROM_HUB, "n", Standing::Member(number), 1);
    assert_eq!(posted(day.hears(of_stay(5))), [late], "the sender has not been discovered yet");
    day.hears(joined(9, claim, stay(5)));
    assert_eq!(told(&day.hears(of_stay(5))), [MessageKind::Signal(wire::SignalKind::Offer)]);
    assert_eq!(
        posted(day.hears(signal(from_shard(false), "n", Standing::Member(5), 1))).len(),
        1,
        "the sender is at another hub"
    );
    day.hears(left(9, claim));
    assert_eq!(posted(day.hears(of_stay(5))), [late], "the sender has left");
    day.hears(joined(9, claim, stay(6)));
    assert_eq!(posted(day.hears(of_stay(5))), [late], "the sender is already in its next stay");
    assert_eq!(told(&day.hears(of_stay(6))).len(), 1);
}

#[test]
fn signals_without_a_standing_need_a_known_sender_except_in_global() {
    let mut day = Day::new(8);
    day.router.config.meshed = true;
    day.opens(session(0, 0), 1);
    day.says(session(0, 0), ANNOUNCE);
    day.says(session(0, 0), r#"{"type":"announce"}"#);
    let late = (Address::Mesh, Some(Outcome::Failed(ErrorCode::Unreachable)));
    assert_eq!(posted(day.hears(signal(FROM_HUB, "n", Standing::Unknown, 1))), [late]);
    assert_eq!(
        told(&day.hears(signal(FROM_HUB, "global", Standing::Unknown, 1))).len(),
        1,
        "the sender may be in no network"
    );
    assert_eq!(
        told(&day.hears(signal(FROM_HUB, "global", Standing::Outsider, 1))).len(),
        1,
        "the sender is in no network"
    );
    day.hears(joined(9, at_hub(9, 10), Stay { number: 5, discovery: Discovery::All }));
    assert_eq!(told(&day.hears(signal(FROM_HUB, "n", Standing::Unknown, 1))).len(), 1);
}

#[test]
fn a_signal_goes_straight_to_the_mesh_if_its_target_is_known_to_be_at_another_hub() {
    let (mut day, at) = Day::meshed(0);
    let (sender, known, unknown) = (at(0, 20), at(1, 20), at(2, 20));
    day.opens(session(0, 0), sender);
    day.says(session(0, 0), ANNOUNCE);
    day.hears(joined(known, at_hub(9, 10), Stay { number: 5, discovery: Discovery::All }));
    let offer = |target| format!(r#"{{"type":"offer","networkName":"n","targetPeerId":"{}"}}"#, peer(target));
    for (target, to) in [(known, Address::Mesh), (unknown, Address::Shard(ShardId(2)))] {
        let text = offer(target);
        let input = Input::Message { session: session(0, 0), text: &text };
        day.router.handle_input(input, Now { at: day.now, wall_ms: WALL_MS });
        assert_eq!(posted(std::iter::from_fn(|| day.router.poll_output()).collect()), [(to, None)]);
    }
}

/// The sender's next signals are posted directly to the mesh, so a forwarded signal could arrive after them.
#[test]
fn a_signal_is_forwarded_to_another_hub_only_if_the_senders_shard_did_not_know_its_target() {
    let (mut day, at) = Day::meshed(0);
    let gone = at(0, 20);
    day.hears(ToShard::Elsewhere { peer: peer(gone), claim: at_hub(9, 10) });
    let to = |detour| signal(from_shard(detour), "n", Standing::Member(1), gone);
    assert_eq!(posted(day.hears(to(true))), [(Address::Mesh, None)], "the sender's shard did not know the target");
    let not_found = Outcome::Failed(ErrorCode::PeerNotFound);
    assert_eq!(posted(day.hears(to(false))), [(Address::Shard(ShardId(3)), Some(not_found))]);
}
