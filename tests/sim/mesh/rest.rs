//! Ends all faults and runs the hubs until nothing is in flight. Then each peer must know the right members, and no hub
//! may have work left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::envelope::EnvelopeKind;
use proto::{MessageKind, PeerId, SignalKind, limits};

use super::agenda::Event;
use super::clients::{Phase, Saying};
use super::presence::View;
use super::world::World;
use crate::oracle::Net;

/// Time in which leases expire, links open again, and requests and their repetitions are answered.
const REST: Duration = Duration::from_secs(25);

/// Maximum time that a meeting takes. A hub repeats a meeting until it is answered, and the other hub may receive only
/// a late repetition.
const UNDER_WAY: Duration = Duration::from_secs(2);

impl World {
    pub(crate) fn rest(&mut self) {
        self.resting = true;
        self.rested_at = Some(self.now);
        self.note(|| "rest".to_owned());
        self.mend();
        self.come_back();
        self.pass(REST + self.plan.slices());
        if self.is_bounded() {
            // Within this time, hubs restore acquaintances that one hub has and the other hub has forgotten.
            self.pass(limits::MEETING_AGAIN + 10 * limits::MEETING_SWEEP);
        }
        self.at_rest();
        self.is_quiet();
        self.epilogue();
        self.at_rest();
    }

    fn mend(&mut self) {
        let thaw = self.hubs.iter().filter_map(|hub| hub.frozen_until).max();
        self.pass(thaw.unwrap_or_default().saturating_sub(self.now));
        // Within this time, all clients that have begun to leave complete their leaves.
        self.pass(Duration::from_secs(6));
        self.blocked.clear();
        let up = self.hubs.iter().filter(|hub| hub.is_up()).count();
        if !self.plan.stays_down || up == 0 {
            for hub in 0..self.hubs.len() {
                self.start(hub);
            }
        }
        let up: Vec<usize> = (0..self.hubs.len()).filter(|&hub| self.hubs[hub].is_up()).collect();
        if up.len() < self.hubs.len() {
            self.plan.edges.extend(up.windows(2).map(|two| (two[0], two[1])));
        }
        for (a, b) in self.plan.edges.clone() {
            let at = self.now + self.ms(0, 500);
            self.agenda.put(at, Event::Dial { a, b });
        }
        for hub in up {
            let life = self.hubs[hub].life;
            if self.plan.bridged[hub] {
                self.agenda.put(self.now, Event::Bridge { hub, life, up: true });
            }
        }
    }

    /// Connects clients in place of clients that lost their hubs, so that networks have members.
    fn come_back(&mut self) {
        let up: Vec<usize> = (0..self.hubs.len()).filter(|&hub| self.hubs[hub].is_up()).collect();
        for peer in 0..self.plan.peers.len() {
            let (hub, at) = (*self.rng.pick(&up), self.now + self.ms(0, 2_000));
            if self.rng.one_in(2) {
                self.agenda.put(at, Event::Open { hub, peer });
            }
        }
        self.pass(Duration::from_secs(6));
        for client in self.those(|client| client.phase == Phase::Open && client.views.is_empty()) {
            let at = self.now + self.ms(0, 500);
            self.agenda.put(at, Event::Say { client, saying: Saying::Announce });
        }
    }

    /// The members of each network, with their latest announcements.
    fn members(&self) -> BTreeMap<(Net, PeerId), u64> {
        let open = self.clients.iter().filter(|client| client.phase == Phase::Open);
        open.flat_map(|client| client.views.iter().map(|(&net, view)| ((net, client.peer), view.said))).collect()
    }

    pub(crate) fn at_rest(&mut self) {
        if !self.complaints.is_empty() {
            return;
        }
        let one_sided = self.one_sided_for_good();
        let mut wrong = Vec::new();
        let members = self.members();
        let mut at: BTreeMap<PeerId, usize> = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate().filter(|(_, client)| client.phase != Phase::Ended) {
            if client.phase != Phase::Open {
                wrong.push(format!("{} waits", self.name(index)));
            }
            if let Some(other) = at.insert(client.peer, client.hub) {
                wrong.push(format!("{:?} is on h{other} and on h{}", client.peer, client.hub));
            }
            for (&net, view) in &client.views {
                let of_net = members.range((net, PeerId::from_bytes([0; 20]))..=(net, PeerId::from_bytes([255; 20])));
                let others: BTreeMap<PeerId, u64> = of_net
                    .filter(|((_, peer), _)| *peer != client.peer)
                    .map(|((_, peer), said)| (*peer, *said))
                    .collect();
                if let Err(what) = self.knows_whom_it_should(client.peer, net, view, &others, &one_sided) {
                    let (name, network) = (self.name(index), self.plan.networks[net]);
                    let told = &view.told;
                    wrong.push(format!(
                        "{name} in {network} {what}: it knows {told:?}, but the other members are {others:?}"
                    ));
                }
            }
        }
        for hub in 0..self.hubs.len() {
            if self.hubs[hub].lives() {
                self.count(hub, &at, members.len(), &mut wrong);
            }
        }
        wrong.extend(self.senders_know());
        for what in wrong {
            self.complain(format!("at rest: {what}"));
        }
    }

    /// The pairs of peers in which only the first peer knows the second peer.
    fn one_sided(&self) -> BTreeSet<(Net, PeerId, PeerId)> {
        let open = || self.clients.iter().filter(|client| client.phase == Phase::Open);
        let views: BTreeMap<(Net, PeerId), &View> =
            open().flat_map(|client| client.views.iter().map(|(&net, view)| ((net, client.peer), view))).collect();
        let knows = |(&(net, peer), view): (&(Net, PeerId), &&View)| {
            let known: Vec<_> = view.told.keys().map(|&other| (net, peer, other)).collect();
            known
        };
        let is_one_sided = |(net, peer, other): &(Net, PeerId, PeerId)| {
            views.get(&(*net, *other)).is_some_and(|view| !view.told.contains_key(peer))
        };
        views.iter().flat_map(knows).filter(is_one_sided).collect()
    }

    /// The pairs that stay one-sided. If peers are at their maximum of acquaintances, a pair may be one-sided for a
    /// moment, while a meeting is repeated and declined.
    fn one_sided_for_good(&mut self) -> BTreeSet<(Net, PeerId, PeerId)> {
        let mut pairs = self.one_sided();
        if !pairs.is_empty() && self.plan.is_crowded() {
            self.note(|| format!("{} pairs are one-sided", pairs.len()));
            self.pass(UNDER_WAY + 2 * self.transit());
            let still = self.one_sided();
            pairs.retain(|pair| still.contains(pair));
        }
        pairs
    }

    /// Checks which members a member knows. Two members with unbounded discovery must know each other. If one of two
    /// members has bounded discovery, acquaintance must be mutual. A member with bounded discovery must know as many
    /// members as it wants, if the network has so many.
    fn knows_whom_it_should(
        &self,
        peer: PeerId,
        net: Net,
        view: &View,
        others: &BTreeMap<PeerId, u64>,
        one_sided: &BTreeSet<(Net, PeerId, PeerId)>,
    ) -> Result<(), String> {
        if let Some((gone, _)) = view.told.iter().find(|(other, said)| others.get(*other) != Some(said)) {
            return Err(format!("knows {gone:?}, which has left, or has announced something else since"));
        }
        for other in others.keys() {
            let known = view.told.contains_key(other);
            let theirs = self.clients.iter().filter(|client| client.phase == Phase::Open && client.peer == *other);
            for back in theirs.filter_map(|client| client.views.get(&net)) {
                let by_right = view.closest == 0 && back.closest == 0;
                let is_one_sided = one_sided.contains(&(net, peer, *other)) || one_sided.contains(&(net, *other, peer));
                if is_one_sided || by_right && !known {
                    return Err(format!("knows {other:?}: {known}"));
                }
            }
        }
        let wanted = usize::from(view.closest).min(others.len());
        let (most, known) = (self.plan.router.max_acquaintances, self.acquaintances(net, view));
        if known > most {
            return Err(format!("knows {known} peers, which is more than {most}"));
        }
        // Members that are at their maximum of acquaintances may have declined meetings.
        if view.told.len() < wanted && !self.plan.is_crowded() {
            Err(format!("knows fewer peers than {wanted}"))
        } else {
            Ok(())
        }
    }

    /// Number of acquaintances in a view. A known peer is no acquaintance if both members have unbounded discovery.
    fn acquaintances(&self, net: Net, view: &View) -> usize {
        let by_right = |peer: &PeerId| {
            let theirs = self.clients.iter().filter(|client| client.phase == Phase::Open && client.peer == *peer);
            view.closest == 0 && theirs.filter_map(|client| client.views.get(&net)).all(|back| back.closest == 0)
        };
        view.told.keys().filter(|peer| !by_right(peer)).count()
    }

    /// Checks that the counters of a hub's machines match the events, and that no work is left.
    fn count(&mut self, place: usize, at: &BTreeMap<PeerId, usize>, members: usize, wrong: &mut Vec<String>) {
        let now = self.time(place);
        let bounded = self.is_bounded();
        let of_here = self.clients.iter().filter(|client| client.phase == Phase::Open && client.hub == place);
        let views = of_here.flat_map(|client| client.views.iter());
        let acquaintances: usize = views.map(|(&net, view)| self.acquaintances(net, view)).sum();
        let ids: Vec<_> = self.hubs.iter().map(|hub| (hub.id, hub.lives())).collect();
        let hub = &mut self.hubs[place];
        let (mut signals, mut ended, mut peers, mut known) = (0, 0, 0, 0);
        for router in &mut hub.routers {
            let stats = router.stats();
            let kinds = [SignalKind::Offer, SignalKind::Answer, SignalKind::IceCandidate];
            signals += kinds.iter().map(|&kind| stats.messages_in[MessageKind::Signal(kind).index()]).sum::<u64>();
            ended += stats.outcomes();
            peers += stats.peers;
            known += stats.acquaintances;
            if stats.open_receipts != 0 {
                wrong.push(format!("h{place}: {} receipts are open", stats.open_receipts));
            }
            if stats.members != members as u64 {
                wrong.push(format!("h{place}: a roster has {} members instead of {members}", stats.members));
            }
        }
        if known != acquaintances as u64 {
            wrong.push(format!("h{place} reports {known} acquaintances instead of {acquaintances}"));
        }
        let here = at.values().filter(|&&hub| hub == place).count() as u64;
        if peers != here {
            wrong.push(format!("h{place} has {peers} peers instead of {here}"));
        }
        let stats = hub.relay.stats(now);
        if signals != ended + stats.outcomes() {
            wrong.push(format!("h{place}: {signals} signals have {ended} + {} outcomes", stats.outcomes()));
        }
        if (stats.in_flight, stats.held, stats.presence_lag_ms) != (0, 0, 0) {
            let (flying, held, lag) = (stats.in_flight, stats.held, stats.presence_lag_ms);
            wrong.push(format!("h{place}: {flying} signals are in flight, {held} are held, presence lags {lag} ms"));
        }
        if stats.remote_peers != at.len() as u64 - here {
            let (known, there) = (stats.remote_peers, at.len() as u64 - here);
            wrong.push(format!("h{place} knows {known} peers of other hubs instead of {there}"));
        }
        let views = hub.relay.hubs(now);
        for view in &views {
            let other = ids.iter().position(|&(id, lives)| lives && id == view.hub);
            let there = other.map(|other| at.values().filter(|&&hub| hub == other).count());
            if view.live != other.is_some() || (view.live && (view.lag != 0 || Some(view.peers) != there)) {
                wrong.push(format!("h{place} sees {view:?} instead of {there:?} peers"));
            }
        }
        let others = ids.iter().filter(|&&(id, lives)| lives && id != hub.id).count();
        if views.iter().filter(|view| view.live).count() != others {
            wrong.push(format!("h{place} sees {} hubs instead of {others}", views.len()));
        }
        for peer in &self.plan.peers {
            let (found, there) = (hub.relay.locate(peer), at.get(peer).map(|&hub| ids[hub].0));
            if found != there {
                wrong.push(format!("h{place} finds {peer:?} at {found:?}, but it is at {there:?}"));
            }
        }
        // Under bounded discovery, periodic work causes letters at any time.
        if !bounded && hub.has_mail() {
            wrong.push(format!("h{place} has letters in transit"));
        }
    }

    /// Checks that only heartbeats are sent when nothing happens.
    fn is_quiet(&mut self) {
        (self.sent, self.asked) = Default::default();
        self.pass(Duration::from_secs(3));
        self.only(&[EnvelopeKind::Heartbeat], "at rest");
        if self.asked > 0 {
            self.complain(format!("at rest, hubs asked {} times about acquaintances", self.asked));
        }
    }

    pub(crate) fn only(&mut self, kinds: &[EnvelopeKind], when: &str) {
        for kind in EnvelopeKind::ALL {
            let sent = self.sent[kind as usize];
            // A heartbeat may arrive on a faster route than the change that it counts. If the change arrives more than
            // GAP_PATIENCE later, the hub requests a snapshot that it does not need.
            let far = Duration::from_micros(self.plan.link_us as u64) > limits::GAP_PATIENCE;
            if kind == EnvelopeKind::Meeting && self.is_bounded() {
                continue;
            }
            let repairs =
                matches!(kind, EnvelopeKind::SnapshotRequest | EnvelopeKind::Snapshot | EnvelopeKind::SnapshotDeclined);
            let may = kinds.contains(&kind) || far && repairs && kinds.contains(&EnvelopeKind::Change);
            if sent > 0 && !may && self.complaints.is_empty() {
                self.complain(format!("{sent} of {} were sent {when}", kind.label()));
            }
        }
    }
}
