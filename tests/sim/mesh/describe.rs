//! Describes inputs, letters and envelopes for traces, in one line each.
#![expect(clippy::wildcard_enum_match_arm, reason = "other values are printed with Debug")]

use proto::envelope::{ChangeKind, Envelope, Routed};
use proto::{Announcement, Claim, Input, Leave, OutcomeLetter, RelayInput, SignalLetter, ToMesh, ToShard};

use super::hubs::Posted;

pub(crate) fn describe(input: &Input<'_>) -> String {
    match input {
        Input::Letter(letter) => format!("letter {}", describe_to_shard(letter)),
        Input::Message { session, text } => format!("{}> {text}", session.generation),
        Input::Opened { session, peer, .. } => format!("{} opens for {peer:?}", session.generation),
        Input::Closed { session, reason } => format!("{} is gone: {reason:?}", session.generation),
        other => format!("{other:?}"),
    }
}

pub(crate) fn describe_relay(input: &RelayInput<'_>) -> String {
    match input {
        RelayInput::Letter(letter) => format!("letter {}", describe_to_mesh(letter)),
        RelayInput::Received { via, envelope } => format!("receives {via:?} {}", describe_envelope(envelope)),
        other => format!("{other:?}"),
    }
}

pub(crate) fn describe_letter(letter: &Posted) -> String {
    match letter {
        Posted::ToShard(letter) => describe_to_shard(letter),
        Posted::ToMesh(letter) => describe_to_mesh(letter),
    }
}

fn describe_to_shard(letter: &ToShard) -> String {
    match letter {
        ToShard::Joined(announcement) => joined(announcement),
        ToShard::Left(leave) => left(leave),
        ToShard::Signal(letter) => signal(letter),
        ToShard::Outcome(letter) => outcome(letter),
        other => format!("{other:?}"),
    }
}

fn describe_to_mesh(letter: &ToMesh) -> String {
    match letter {
        ToMesh::Joined(announcement) => joined(announcement),
        ToMesh::Left(leave) => left(leave),
        ToMesh::Signal(letter) => signal(letter),
        ToMesh::Outcome(letter) => outcome(letter),
        other => format!("{other:?}"),
    }
}

fn joined(Announcement { peer, network, claim: by, .. }: &Announcement) -> String {
    format!("Joined {peer:?} in {network} by {}", claim(*by))
}

fn left(Leave { peer, network, claim: by, .. }: &Leave) -> String {
    format!("Left {peer:?} of {network} by {}", claim(*by))
}

fn signal(SignalLetter { origin, from, target, .. }: &SignalLetter) -> String {
    format!("Signal {from:?} > {target:?} of {:?}", origin.sender)
}

fn outcome(OutcomeLetter { origin, target, outcome }: &OutcomeLetter) -> String {
    format!("Outcome {outcome:?} > {target:?} {:?}", origin.sender)
}

fn claim(claim: Claim) -> String {
    format!("{}@{:?}", claim.incarnation.0, claim.hub.0)
}

/// An envelope in one line.
pub(crate) fn describe_envelope(envelope: &Envelope) -> String {
    match envelope {
        Envelope::Heartbeat(b) => {
            let (hub, life) = (b.hub.0, b.incarnation.0);
            format!(
                "Heartbeat {} of {hub:?}/{life} seq {} {:x} age {} to {:?}",
                b.number, b.seq, b.digest, b.age_ms, b.neighbours
            )
        }
        Envelope::Change(c) => {
            let what = match &c.kind {
                ChangeKind::Joined(a) => format!("Joined {}", a.network),
                ChangeKind::Left { network, .. } => format!("Left {network}"),
                ChangeKind::Up => "Up".to_owned(),
                ChangeKind::Down(reason) => format!("Down {reason:?}"),
            };
            format!("Change {:?}/{} seq {}: {:?} {} {what}", c.hub.0, c.incarnation.0, c.seq, c.peer, c.session.0)
        }
        Envelope::Snapshot(p) => {
            let (hub, life, peers) = (p.hub.0, p.incarnation.0, p.peers.len());
            format!(
                "Snapshot of {hub:?}/{life} seq {} {:x} part {} last {}, {peers} peers",
                p.seq, p.digest, p.part, p.last
            )
        }
        Envelope::Routed(route, routed) => {
            let what = match &**routed {
                Routed::Signal(s) => format!("Signal {} seq {} {:?} > {:?}", s.counter, s.seq, s.sender, s.target),
                other => format!("{other:?}"),
            };
            let (to, from) = (route.to.0, route.from.0);
            format!(
                "to {to:?}/{} from {from:?}/{} hops {}: {what}",
                route.to_incarnation.0, route.from_incarnation.0, route.hops
            )
        }
        other => format!("{other:?}"),
    }
}
