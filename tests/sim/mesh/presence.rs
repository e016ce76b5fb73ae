//! What has to be true of what clients hear of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{CloseReason, Discovery, Lineage, PeerId, Right, limits};

use super::agenda::Event;
use super::clients::{Client, Phase, Saying};
use super::trouble::Trouble;
use super::world::World;
use crate::heard::Heard;
use crate::oracle::Net;

/// What a member knows of its network.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Those that it has been told of and that have not left: what they announced.
    pub(crate) told: BTreeMap<PeerId, u64>,
    /// How often it was told that.
    times: BTreeMap<PeerId, u32>,
    /// Those it may be told of again unchanged, because it announced itself again.
    again: BTreeSet<PeerId>,
    /// How many of the closest it wants to know; 0: all.
    pub(crate) closest: u8,
    /// Which of all stays this is.
    pub(crate) stay: usize,
    /// What it announced itself last.
    pub(crate) said: u64,
}

/// An announcement, by its number in the data.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) client: usize,
    pub(crate) net: Net,
    /// Its client's stays in that network in which it was said: one that comes back may say the same.
    pub(crate) stays: Vec<usize>,
    /// How often it was said.
    said: u32,
}

impl World {
    pub(crate) fn announce(&mut self, client: usize, net: Net) {
        self.announced += 1;
        // What was said first holds.
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
        self.tell_message(
            client,
            &match wish {
                None => format!(r#"{{"type":"announce","networkName":{network},"data":{{"v":{version}}}}}"#),
                Some(k) => format!(
                    r#"{{"type":"announce","networkName":{network},"data":{{"discover":{{"closest":{k}}},"v":{version}}}}}"#
                ),
            },
        );
    }

    pub(crate) fn discover(&mut self, client: usize, net: Net) {
        let network = serde_json::to_string(self.plan.networks[net]).expect("a string");
        let limit = self.rng.below(4);
        self.tell_message(
            client,
            &format!(r#"{{"type":"discover","networkName":{network},"data":{{"limit":{limit}}}}}"#),
        );
    }

    /// Whether somebody is told of some only.
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

    /// A frame is put into the queue of a client.
    pub(crate) fn hears(&mut self, client: usize, heard: &Heard) {
        if self.clients[client].phase == Phase::Retiring {
            return self.complain(format!("{} is told {heard:?}", self.name(client)));
        }
        let wrong = match heard {
            Heard::Discovered { subject, network, version } => self.discovers(client, *subject, network, *version),
            Heard::Left { subject, network, .. } => self.is_left(client, *subject, network),
            Heard::Signal { number, text } => self.is_signalled(client, *number, text),
            Heard::Receipt { id, outcome } => self.has_receipt(client, id, outcome),
            Heard::Error { code, about } => self.has_error(client, code, about.as_ref()),
            Heard::Connected { .. } | Heard::GoAway | Heard::Page { .. } | Heard::Pong => Ok(()),
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
            return Err("is told what nobody announced");
        };
        if self.clients[said_by].peer != subject || said_in != net || subject == self.clients[client].peer {
            return Err("is told what was announced by another, or elsewhere");
        }
        if self.clients[said_by].ended.is_some_and(|(_, forgotten)| self.now > forgotten) {
            return Err("is told of one that is long gone");
        }
        let session_of = |version: u64| self.versions[version as usize].client;
        let Some(view) = self.clients[client].views.get(&net) else { return Err("is not in that network") };
        if let Some(&before) = view.told.get(&subject) {
            if session_of(before) != said_by {
                return Err("is told of another session before the leave of the first");
            }
            if before > version {
                return Err("is told of an announcement after a later one");
            }
            let told_all = view.times.get(&subject).is_some_and(|times| *times >= said);
            if before == version && told_all && !view.again.contains(&subject) {
                return Err("is told again, and nothing is new");
            }
        }
        // As a browser does that calls whoever comes.
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
        let Some(view) = self.clients[client].views.get_mut(&net) else { return Err("is not in that network") };
        view.again.remove(&subject);
        view.told.remove(&subject).map(|_| ()).ok_or("is told of the leave of one that it does not know")
    }

    /// For how long others may believe that a client is there after its end.
    pub(crate) fn longest_memory(&self, client: usize) -> Duration {
        let gone = !self.hubs[self.clients[client].hub].lives();
        let way = Duration::from_micros((self.hubs.len() * self.plan.link_us + 4 * self.plan.letter_us) as u64);
        let mut longest = limits::LEASE + limits::HEARTBEAT + way + 2 * limits::TICK;
        if !gone {
            // Its hub goes on, and what it said of the end may have been lost a few times before it is asked for again.
            longest += Duration::from_secs(if self.plan.calm { 0 } else { 20 });
        }
        // What waits in a pipe that nobody reads does not know how old it is.
        for (trouble, most) in [(Trouble::Stall, 6), (Trouble::Stop, 20)] {
            longest += Duration::from_secs(if self.plan.has(trouble) { 2 * most } else { 0 });
        }
        longest
    }

    /// Nobody may believe any longer that this client is there.
    pub(crate) fn is_forgotten(&mut self, gone: usize) {
        let peer = self.clients[gone].peer;
        // One that is on its way out is told nothing any more.
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
                self.complain(format!("{} still believes in {}", self.name(client), self.name(gone)));
            }
        }
    }

    /// A router closes a session: there has to be a reason.
    pub(crate) fn is_closed(&mut self, client: usize, reason: CloseReason) {
        let Client { peer, answers, lost, phase, lineage, .. } = self.clients[client];
        // One that is gone and not yet forgotten counts.
        let others = self.those(|other| {
            let known = other.ended.is_none_or(|(_, forgotten)| forgotten >= self.now);
            other.peer == peer && known && other.number() != client
        });
        // Where all hubs hear each other, one that answers is not pushed out.
        let pushed = self.plan.calm && answers && !lost && phase == Phase::Open;
        let at_once = |lineage, resume: Lineage| resume.against(lineage, Duration::ZERO) == Right::AtOnce;
        let resumed = |&other: &usize| lineage.zip(self.clients[other].resume).is_some_and(|(l, r)| at_once(l, r));
        let may_be_replaced =
            !others.is_empty() && (!pushed || self.at_the_same_moment(client, &others) || others.iter().any(resumed));
        let draining = !self.hubs[self.clients[client].hub].is_up();
        let right = (reason == CloseReason::Draining && draining)
            || (reason == CloseReason::IdInUse && !others.is_empty())
            || (reason == CloseReason::Replaced && may_be_replaced);
        if !right {
            self.complain(format!("{} is closed {reason:?}", self.name(client)));
        }
    }

    /// Whether one of these came while the hubs could not yet know of the client.
    fn at_the_same_moment(&self, client: usize, others: &[usize]) -> bool {
        let near = Duration::from_millis(3_500) + self.way();
        others.iter().any(|&other| self.clients[other].opened.abs_diff(self.clients[client].opened) < near)
    }

    /// How long news takes to every hub, where nothing is lost.
    pub(crate) fn way(&self) -> Duration {
        Duration::from_micros((self.hubs.len() * self.plan.link_us + 4 * self.plan.letter_us) as u64)
    }
}
