//! Tests of envelopes that a hub forges in the name of another hub. The forging hub has the mesh token.

use super::*;

/// A hub whose farewell was forged is informed of this farewell, and begins a later incarnation. Otherwise, other hubs
/// would ignore this hub forever.
#[test]
fn a_hub_returns_after_a_forged_farewell() {
    for deceived in [1, 2, 3] {
        let mut net = Net::chain(4);
        net.joins(1, 8, 0);
        net.joins(4, 9, 0);
        net.pass(HEARTBEAT);
        (1..=4).for_each(|n| _ = net.hears(n));
        // A forged farewell says that hub 1 has ended. The farewell arrives from the direction of hub 4.
        let via = match deceived {
            1 => Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap()),
            n => Hop::Link(net.hubs[&n].links.used_for(&hub(n + 1)).unwrap()),
        };
        let envelope = Envelope::Farewell(hub(1), net.hubs[&1].incarnation());
        net.input(deceived, RelayInput::Received { via, envelope });
        net.run();
        net.pass(3 * HEARTBEAT);
        for n in 2..=4 {
            assert_eq!(net.hubs[&n].locate(&id(8)), Some(hub(1)), "at hub {n}, after hub {deceived} was deceived");
            let heard = net.hears(n);
            let joined = heard.iter().filter(|line| line.starts_with("joined 8")).count();
            let left = heard.iter().filter(|line| line.starts_with("left 8")).count();
            assert_eq!(joined, left, "{heard:?}");
        }
        assert_eq!(net.hubs[&1].locate(&id(9)), Some(hub(4)));
    }
}

/// A forged heartbeat of a later incarnation can follow the forged farewell. A forged farewell can also arrive before
/// the incarnation that it names begins.
#[test]
fn a_hub_returns_after_a_forged_farewell_and_a_forged_incarnation() {
    for (farewell, heartbeat) in [(0, Some(1)), (0, Some(1_000)), (2, None)] {
        for deceived in [2, 3] {
            let mut net = Net::chain(4);
            net.joins(1, 8, 0);
            net.pass(2 * HEARTBEAT);
            let via = Hop::Link(net.hubs[&deceived].links.used_for(&hub(deceived + 1)).unwrap());
            let known = (**net.hubs[&deceived].hubs[&hub(1)].beat()).clone();
            let life = known.incarnation.0;
            // With key 1, the next incarnation of a hub is two milliseconds later.
            let farewell = Envelope::Farewell(hub(1), HubIncarnation(life + farewell));
            net.input(deceived, RelayInput::Received { via, envelope: farewell });
            if let Some(later) = heartbeat {
                let incarnation = HubIncarnation(life + later);
                let beat = crate::envelope::Heartbeat { incarnation, number: 0, seq: 0, process: 0, ..known };
                let envelope = Envelope::Heartbeat(Arc::new(beat));
                net.input(deceived, RelayInput::Received { via, envelope });
            } else {
                // Because of a forged heartbeat, hub 1 begins the incarnation for which the farewell was forged.
                let beat = crate::envelope::Heartbeat { number: known.number + 100, ..known };
                let via = Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
                net.input(1, RelayInput::Received { via, envelope: Envelope::Heartbeat(Arc::new(beat)) });
            }
            net.run();
            net.pass(GONE + 3 * HEARTBEAT);
            for n in 2..=4 {
                let case = (deceived, n, heartbeat);
                assert_eq!(net.hubs[&n].locate(&id(8)), Some(hub(1)), "(deceived, hub, heartbeat) = {case:?}");
            }
        }
    }
}

#[test]
fn a_farewell_of_another_incarnation_changes_nothing() {
    let mut net = Net::full(2);
    let via = Hop::Link(net.hubs[&1].links.used_for(&hub(2)).unwrap());
    let before = net.hubs[&1].incarnation();
    for other in [before.0 - 1, before.0 + 1] {
        let envelope = Envelope::Farewell(hub(1), HubIncarnation(other));
        net.input(1, RelayInput::Received { via, envelope });
        assert_eq!(net.hubs[&1].incarnation(), before);
    }
}
