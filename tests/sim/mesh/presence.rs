//! The oracle of presence: what clients may and must know about each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{CloseReason, Discovery, Lineage, PeerId, Right, limits};

use super::agenda::Event;
use super::clients::{Client, Phase, Saying};
use super::trouble::Trouble;
use super::world::World;
use crate::heard::Heard;
use crate::oracle::Net;

/// A member's view of its network.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Discovered peers that have not left, with their announcements.
    pub(crate) told: BTreeMap<PeerId, u64>,
    /// Number of times the current announcement of each peer was received.
    times: BTreeMap<PeerId, u32>,
    /// Peers whose announcement may arrive again unchanged, because this member has announced itself again.
    again: BTreeSet<PeerId>,
    /// Number of closest members that this member wants to know. 0 means all members.
    pub(crate) closest: u8,
    /// The number of this member's stay.
    pub(crate) stay: usize,
    /// The latest announcement of this member.
    pub(crate) said: u64,
}

/// An announcement. The data of the announcement contains its index in `World::versions`.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) client: usize,
    pub(crate) net: Net,
    /// The stays in which the client sent this announcement. A client that joins again may repeat its announcement.
    pub(crate) stays: Vec<usize>,
    /// Number of times the announcement was sent.
    said: u32,
}

/// Time in which hubs repair their replicas of a hub that is alive. A change that reports a leave may be lost, and so
/// may several snapshots that would repair the replica.
const REPAIRS: Duration = Duration::from_secs(20);

impl World {
    pub(crate) fn announce(&mut self, client: usize, net: Net) {
        self.announced += 1;
        // A stay has the number of its first announcement.
        let stay = self.clients[client].views.get(&net).map_or(self.announced, |view| view.stay);
        let before = self.clients[client].said.get(&net).copied();
        let version = match before.filter(|_| self.rng.one_in(4)) {
            Some(before) => {
                let version = &mut self.versions[before as usize];
                version.said += 1;
                version.stays.push(stay);
                before
            }
            None => {
                self.versions.push(Version { client, net, stays: vec![stay], said: 1 });
                self.versions.len() as u64 - 1
            }
        };
        self.clients[client].said.insert(net, version);
        let wish = if self.plan.mixed && self.rng.one_in(2) { Some(*self.rng.pick(&[1, 2, 4])) } else { None };
        let closest = wish.unwrap_or(self.plan.discovery.closest());
        let view = self.clients[client].views.entry(net);
        let view = view.or_insert_with(|| View { stay, closest, ..View::default() });
        view.said = version;
        view.again = view.told.keys().copied().collect();
        let network = serde_json::to_string(self.plan.networks[net]).expect("a string");
        let discover = wish.map(|k| format!(r#""discover":{{"closest":{k}}},"#)).unwrap_or_default();
        let data = format!(r#"{{{discover}"v":{version}}}"#);
        self.tell_message(client, &format!(r#"{{"type":"announce","networkName":{network},"data":{data}}}"#));
    }

    pub(crate) fn discover(&mut self, client: usize, net: Net) {
        let network = serde_json::to_string(self.plan.networks[net]).expect("a string");
        let limit = self.rng.below(4);
        self.tell_message(
            client,
            &format!(r#"{{"type":"discover","networkName":{network},"data":{{"limit":{limit}}}}}"#),
        );
    }

    /// Whether some peers may use bounded discovery.
    pub(crate) fn is_bounded(&self) -> bool {
        self.plan.mixed || self.plan.discovery != Discovery::All
    }

    pub(crate) fn say_goodbye(&mut self, client: usize, only: Option<Net>) {
        self.clients[client].views.retain(|&net, _| only.is_some_and(|only| only != net));
        let network = only.map_or(String::new(), |net| {
            format!(r#","networkName":{}"#, serde_json::to_string(self.plan.networks[net]).expect("a string"))
        });
        self.tell_message(client, &format!(r#"{{"type":"goodbye"{network}}}"#));
    }

    /// Checks a frame that is queued for a client.
    pub(crate) fn hears(&mut self, client: usize, heard: &Heard) {
        if self.clients[client].phase == Phase::Retiring {
            return self.complain(format!("{} receives {heard:?}", self.name(client)));
        }
        let wrong = match heard {
            Heard::Discovered { subject, network, version } => self.discovers(client, *subject, network, *version),
            Heard::Left { subject, network, .. } => self.is_left(client, *subject, network),
            Heard::Signal { number, text } => self.is_signalled(client, *number, text),
            Heard::Receipt { id, outcome } => self.has_receipt(client, id, outcome),
            Heard::Error { code, network, about: None } if code == "kicked" => self.is_kicked(client, network),
            Heard::Error { code, about, .. } => self.has_error(client, code, about.as_ref()),
            Heard::Connected { .. } | Heard::GoAway | Heard::Page { .. } | Heard::Pong => Ok(()),
            Heard::Authorized | Heard::TokenExpires => Err("has no token"),
        };
        if let Err(what) = wrong {
            self.complain(format!("{} {what}: {heard:?}", self.name(client)));
        }
    }

    fn net(&self, network: &str) -> Net {
        self.plan.networks.iter().position(|&name| name == network).unwrap_or(Net::MAX)
    }

    fn discovers(&mut self, client: usize, subject: PeerId, network: &str, version: u64) -> Result<(), &'static str> {
        let net = self.net(network);
        let Some(&Version { client: said_by, net: said_in, said, .. }) = self.versions.get(version as usize) else {
            return Err("receives data that was never announced");
        };
        if self.clients[said_by].peer != subject || said_in != net || subject == self.clients[client].peer {
            return Err("receives data that was announced by another peer or in another network");
        }
        if self.clients[said_by].ended.is_some_and(|(_, forgotten)| self.now > forgotten) {
            return Err("discovers a peer that has left long ago");
        }
        let session_of = |version: u64| self.versions[version as usize].client;
        let Some(view) = self.clients[client].views.get(&net) else {
            return Err("receives an event of a network that it is not in");
        };
        if let Some(&before) = view.told.get(&subject) {
            if session_of(before) != said_by {
                return Err("discovers a later session before the leave of the earlier one");
            }
            if before > version {
                return Err("receives an announcement after a later one");
            }
            let told_all = view.times.get(&subject).is_some_and(|times| *times >= said);
            if before == version && told_all && !view.again.contains(&subject) {
                return Err("receives an unchanged announcement again");
            }
        }
        // After a third of the discoveries, the client sends a signal to the peer, as browsers do.
        if !self.resting && self.rng.one_in(3) {
            self.agenda.put(self.now, Event::Say { client, saying: Saying::Greeting(subject, net) });
        }
        let Some(view) = self.clients[client].views.get_mut(&net) else { return Ok(()) };
        let times = view.times.entry(subject).or_default();
        if view.told.insert(subject, version) == Some(version) {
            if !view.again.remove(&subject) {
                *times += 1;
            }
        } else {
            *times = 1;
        }
        Ok(())
    }

    fn is_left(&mut self, client: usize, subject: PeerId, network: &str) -> Result<(), &'static str> {
        let net = self.net(network);
        let Some(view) = self.clients[client].views.get_mut(&net) else {
            return Err("receives an event of a network that it is not in");
        };
        view.again.remove(&subject);
        view.told.remove(&subject).map(|_| ()).ok_or("receives the leave of a peer that it does not know")
    }

    /// Checks an error that tells a client that an operator has removed it from a network.
    fn is_kicked(&mut self, client: usize, network: &str) -> Result<(), &'static str> {
        let (net, Client { hub, life, .. }) = (self.net(network), &self.clients[client]);
        let kicked = self.kicks || self.closed.contains(&(*hub, *life, net));
        let was_member = self.clients[client].views.remove(&net).is_some();
        match (was_member, kicked) {
            (false, _) => Err("is removed from a network that it is not in"),
            (true, false) => Err("is removed from a network without an order"),
            (true, true) => Ok(()),
        }
    }

    /// Maximum time for which other peers may consider a client present after its session has ended.
    pub(crate) fn longest_memory(&self, client: usize) -> Duration {
        let gone = !self.hubs[self.clients[client].hub].lives();
        let mut longest = limits::LEASE + limits::HEARTBEAT + self.transit() + self.plan.slices() + 2 * limits::TICK;
        if !gone {
            longest += if self.plan.calm { Duration::ZERO } else { REPAIRS };
        }
        // Hubs cannot know how long a frame was in a pipe that was not read.
        for (trouble, most) in [(Trouble::Stall, 6), (Trouble::Stop, 20)] {
            longest += Duration::from_secs(if self.plan.has(trouble) { 2 * most } else { 0 });
        }
        longest
    }

    /// Time until which repairs of presence may fail repeatedly, or `None` if every repair can succeed. A repair needs
    /// three envelopes: a heartbeat, a request and a snapshot. If faults occur more often than these envelopes can
    /// arrive, repairs may fail until the run is at rest.
    fn repairs_fail_until(&self) -> Option<Duration> {
        let is_hopeless = !self.plan.calm && Duration::from_millis(self.plan.trouble_ms as u64) < 3 * self.transit();
        let until = self.rested_at.map_or(self.now + Duration::from_secs(1), |rested_at| rested_at + REPAIRS);
        is_hopeless.then_some(until)
    }

    /// Checks that no peer considers this client present.
    pub(crate) fn is_forgotten(&mut self, gone: usize) {
        if let Some(until) = self.repairs_fail_until().filter(|&until| until > self.now) {
            self.clients[gone].ended = self.clients[gone].ended.map(|(at, _)| (at, until));
            return self.agenda.put(until, Event::Forgotten { client: gone });
        }
        let peer = self.clients[gone].peer;
        // A retiring client receives no events, so its view is outdated.
        let believers = self.those(|client| {
            let mut views = client.views.values().filter(|_| client.phase != Phase::Retiring);
            views
                .any(|view| view.told.get(&peer).is_some_and(|&version| self.versions[version as usize].client == gone))
        });
        for client in believers {
            if self.hubs[self.clients[client].hub]
                .frozen_until
                .is_none_or(|thaw| thaw + Duration::from_secs(3) < self.now)
            {
                self.complain(format!("{} still knows {}, which has left", self.name(client), self.name(gone)));
            }
        }
    }

    /// Checks that a router has a reason to close a session.
    pub(crate) fn is_closed(&mut self, client: usize, reason: CloseReason) {
        let Client { peer, answers, lost, phase, lineage, .. } = self.clients[client];
        // A client that has ended still counts while other peers may consider it present.
        let others = self.those(|other| {
            let known = other.ended.is_none_or(|(_, forgotten)| forgotten >= self.now);
            other.peer == peer && known && other.number() != client
        });
        // In a run without faults, a session that answers pings may be replaced only by a session with its secret, or
        // by one that opened at nearly the same time.
        let pushed = self.plan.calm && answers && !lost && phase == Phase::Open;
        let at_once = |lineage, resume: Lineage| resume.against(lineage, Duration::ZERO) == Right::AtOnce;
        let resumed = |&other: &usize| lineage.zip(self.clients[other].resume).is_some_and(|(l, r)| at_once(l, r));
        let may_be_replaced =
            !others.is_empty() && (!pushed || self.at_the_same_moment(client, &others) || others.iter().any(resumed));
        let draining = !self.hubs[self.clients[client].hub].is_up();
        let right = (reason == CloseReason::Draining && draining)
            || (reason == CloseReason::IdInUse && !others.is_empty())
            || (reason == CloseReason::Replaced && may_be_replaced)
            || (reason == CloseReason::Kicked && self.kicks);
        if !right {
            self.complain(format!("{} is closed {reason:?}", self.name(client)));
        }
    }

    /// Whether one of these clients connected at nearly the same time, so that hubs could not know of both sessions
    /// yet.
    fn at_the_same_moment(&self, client: usize, others: &[usize]) -> bool {
        let near = Duration::from_millis(3_500) + self.transit();
        others.iter().any(|&other| self.clients[other].opened.abs_diff(self.clients[client].opened) < near)
    }

    /// Maximum time that a change needs to reach every hub if nothing is lost.
    pub(crate) fn transit(&self) -> Duration {
        Duration::from_micros((self.hubs.len() * self.plan.link_us + 4 * self.plan.letter_us) as u64)
    }
}
