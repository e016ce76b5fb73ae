//! Heartbeats. This hub sends its own heartbeats. This hub also compares the heartbeats of other hubs with its
//! replicas, and forwards these heartbeats.

use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::envelope::{Envelope, Heartbeat};
use crate::id::{HubId, LinkId};
use crate::limits::{
    EXTRA_BEAT_PAUSE, GREATEST_TIME, HEARTBEAT, LEASE, LINK_SILENCE, MAX_HOPS, MAX_HUBS, MAX_NEIGHBOURS,
};
use crate::route::Hop;
use crate::time::Now;

use super::holding::PresenceRefusal;
use super::remote::{Liveness, Remote};
use super::{Destination, MeshEvent, Relay};

/// Maximum number of newer heartbeats of a hub that may arrive before an older heartbeat, because the newer ones took a
/// faster route.
const LATE_BEATS: u64 = 16;

impl Relay {
    /// Sends a heartbeat soon, for example because the queue of a link has become full. Such extra heartbeats are at
    /// least [`EXTRA_BEAT_PAUSE`] apart.
    pub(super) fn beat_soon(&mut self, now: Now) {
        self.next_beat = self.next_beat.min(now.at.max(self.last_beat + EXTRA_BEAT_PAUSE));
    }

    /// Sends a heartbeat of this hub to every neighbour.
    pub(super) fn beat(&mut self, now: Now) {
        if self.ended {
            return;
        }
        self.last_beat = now.at;
        self.next_beat = now.at + HEARTBEAT;
        self.beats += 1;
        let usable = |link: LinkId| !self.is_saturated(Hop::Link(link)) && !self.is_spare(Hop::Link(link));
        let neighbours = self.links.in_use().filter(|&(_, link)| usable(link));
        let beat = Arc::new(Heartbeat {
            hub: self.config.hub,
            incarnation: self.config.incarnation,
            number: self.beats,
            seq: self.own.seq,
            digest: self.own.digest,
            age_ms: 0,
            draining: self.draining,
            neighbours: neighbours.map(|(hub, _)| hub).take(MAX_NEIGHBOURS).collect(),
            advertise: self.config.advertise.clone(),
            public_url: self.config.public_url.clone(),
            process: self.process(),
            unheard: self.links.silent_hubs().take(MAX_NEIGHBOURS).collect(),
            link_unheard: false,
            status: self.status.clone(),
        });
        // Heartbeats are sent over every link, even over links that are not in use. From these heartbeats, the other
        // hub decides whether the link works.
        let links: Vec<(LinkId, bool)> = self.links.iter().map(|(link, open)| (link, open.is_silent())).collect();
        for (link, link_unheard) in links {
            let beat =
                if link_unheard { Arc::new(Heartbeat { link_unheard, ..(*beat).clone() }) } else { Arc::clone(&beat) };
            self.send(Destination::Link(link), Envelope::Heartbeat(beat));
        }
        if self.bridge.is_up() {
            self.send(Destination::Everyone, Envelope::Heartbeat(beat));
        }
    }

    pub(super) fn heartbeat_received(&mut self, via: Hop, beat: &Arc<Heartbeat>, now: Now) {
        let mut age = Duration::from_millis(u64::from(beat.age_ms));
        // After a pause of this process, its sockets can contain messages that are as old as the pause is long.
        let slept = now.at.saturating_sub(self.last_timeout);
        if slept > 2 * HEARTBEAT {
            age += slept;
        }
        if beat.incarnation.0 > GREATEST_TIME {
            self.stats.numbers_refused += 1;
            return;
        }
        if beat.hub == self.config.hub {
            return self.heard_of_itself(beat, now);
        }
        self.note_unheard(via, beat, now);
        if age >= LEASE {
            return self.pass_back(via, beat, now);
        }
        if self.hubs.get(&beat.hub).is_some_and(|remote| remote.has_ended(beat.incarnation)) {
            // An incarnation that is known to have ended is not accepted again. Otherwise, two incarnations of one hub
            // could replace each other forever in a ring of hubs.
            self.stats.duplicates += 1;
            return self.report_end(via, beat, now);
        }
        let lease_ends = now.at + LEASE - age;
        if via == Hop::Bridge(beat.hub)
            && let Some(remote) = self.hubs.get_mut(&beat.hub)
            && remote.incarnation() == beat.incarnation
            && remote.beat().number <= beat.number + LATE_BEATS
        {
            // A heartbeat over the bridge shows that the hub is on the bridge, even if a newer heartbeat has already
            // arrived over a link. An older heartbeat that arrives over the bridge is not forwarded.
            if !remote.is_bridged(now.at) {
                self.reach = None;
            }
            remote.note_bridged(lease_ends);
        }
        let known = self.hubs.get(&beat.hub).map(|r| (r.incarnation(), r.beat().number, r.state()));
        let found = match known {
            None if self.hubs.len() >= MAX_HUBS && !self.make_room(via, now) => {
                self.stats.presence_refused[PresenceRefusal::Hubs as usize] += 1;
                return;
            }
            None => {
                let number = self.number(beat.hub);
                let by = self.neighbour(via).unwrap_or(beat.hub);
                *self.introducers.entry(by).or_default() += 1;
                let most = self.config.tuning.max_peers_per_hub;
                self.hubs.insert(beat.hub, Remote::new(number, Arc::clone(beat), by, lease_ends, most, now.at));
                true
            }
            Some((life, _, state)) if beat.incarnation < life && !self.goes_on(beat, state) => {
                return self.earlier_incarnation(via, beat, now);
            }
            Some((life, ..)) if beat.incarnation != life || self.is_other_process(beat) => {
                if self.is_contested(beat, now) {
                    return self.contest(via, beat, now);
                }
                let peers_gone = self.end_incarnation(beat.hub, Liveness::Live, now);
                self.stats.ghosts_evicted += peers_gone as u64;
                self.begin_incarnation(beat);
                true
            }
            Some((_, number, state)) if beat.number <= number || state == Liveness::Ended => {
                self.stats.duplicates += 1;
                let Some(remote) = self.hubs.get_mut(&beat.hub) else {
                    return bug!(self.bugs, HubMissing, "late heartbeat of {:?}", beat.hub);
                };
                remote.paths.note(via, beat.number, false);
                // If a heartbeat directly from the hub has a much lower number than the known heartbeat, another hub
                // has forged the known heartbeat.
                if self.neighbour(via) == Some(beat.hub)
                    && state != Liveness::Ended
                    && number > beat.number + LATE_BEATS
                {
                    self.recall(via, beat.hub, now);
                }
                return;
            }
            Some((.., state)) => state == Liveness::Lost,
        };
        let Some(remote) = self.hubs.get_mut(&beat.hub) else {
            return bug!(self.bugs, HubMissing, "heartbeat of {:?}", beat.hub);
        };
        if remote.beat().neighbours != beat.neighbours || found {
            self.reach = None;
        }
        remote.renew(via, beat, lease_ends, now.at);
        self.compare(beat, found, now);
        self.pass_on(via, beat, now);
        if found {
            self.event(MeshEvent::HubFound(beat.hub));
        }
    }

    /// Compares a hub's heartbeat with this hub's replica of that hub.
    fn compare(&mut self, beat: &Heartbeat, found: bool, now: Now) {
        let Some(remote) = self.hubs.get_mut(&beat.hub) else {
            return bug!(self.bugs, HubMissing, "heartbeat of {:?}", beat.hub);
        };
        remote.ahead.forget_unconfirmed(remote.beat().number, remote.beat().seq);
        self.account(beat.hub);
        let Some(remote) = self.hubs.get_mut(&beat.hub) else {
            return bug!(self.bugs, HubMissing, "heartbeat of {:?}", beat.hub);
        };
        if remote.repair.is_under_way() || remote.is_catching_up() {
            return;
        }
        remote.doubt();
        let differs = beat.seq == remote.holding.seq && beat.digest != remote.holding.digest;
        if beat.seq > remote.holding.seq {
            if found {
                // The hub was found just now, so the missing changes are not in transit.
                remote.repair.note_far_behind(now.at);
            } else {
                remote.repair.note_behind(now.at);
            }
        } else if differs || remote.is_doubted() {
            remote.repair.note_wrong(now.at);
        } else if remote.ahead.is_empty() {
            remote.repair.note_agrees(beat.seq == remote.holding.seq);
        }
        if remote.repair.is_asking(now.at) {
            self.ask_for_snapshot(beat.hub, now);
        }
    }

    /// Forwards a heartbeat to all linked hubs, except the neighbour that sent it here and the hub that the heartbeat
    /// describes. Publishes it on the bridge only if this hub [speaks for](Self::speaks_for) the described hub.
    fn pass_on(&mut self, via: Hop, beat: &Arc<Heartbeat>, now: Now) {
        self.pass_to_neighbours(via, beat.hub, &Envelope::Heartbeat(Arc::clone(beat)), now);
    }

    pub(super) fn pass_to_neighbours(&mut self, via: Hop, about: HubId, envelope: &Envelope, now: Now) {
        let sender = self.neighbour(via);
        let to: Vec<LinkId> =
            self.links.in_use().filter(|&(hub, _)| hub != about && Some(hub) != sender).map(|(_, link)| link).collect();
        for link in to {
            self.send(Destination::Link(link), envelope.clone());
        }
        if matches!(via, Hop::Link(_)) && self.bridge.is_up() && self.speaks_for(&about, now) {
            self.send(Destination::Everyone, envelope.clone());
        }
    }

    /// Informs another hub that its current incarnation counts as ended here. A hub sends nothing after its farewell.
    /// If a heartbeat follows, the farewell was forged, and the other hub must begin a later incarnation. If this hub
    /// knows an even later incarnation, that incarnation was forged as well. In this case, this hub sends the heartbeat
    /// of the forged incarnation, so that the other hub's next incarnation is later than the forged one.
    ///
    /// If the ended incarnation is the known one, its farewell was forwarded to all hubs. In this case, only neighbours
    /// of the other hub send the farewell back to it. If the ended incarnation is later than the known one, its
    /// farewell arrived before its first heartbeat, and was not forwarded. So this hub sends the farewell to the
    /// neighbour from which the heartbeat came.
    fn report_end(&mut self, via: Hop, beat: &Heartbeat, now: Now) {
        let Some(known) = self.hubs.get(&beat.hub).map(Remote::incarnation) else {
            return bug!(self.bugs, HubMissing, "the end of {:?}", beat.hub);
        };
        if known > beat.incarnation {
            self.recall(via, beat.hub, now);
        } else if known < beat.incarnation || self.neighbour(via) == Some(beat.hub) {
            self.send(Destination::from(via), Envelope::Farewell(beat.hub, beat.incarnation));
        }
    }

    /// Forwards an old heartbeat only towards the hub that it describes, and only if the heartbeat's incarnation is
    /// later than the known incarnation. Each hub on the route adds [`HEARTBEAT`] to the age of the heartbeat, so that
    /// the heartbeat passes at most [`MAX_HOPS`] hubs.
    fn pass_back(&mut self, via: Hop, beat: &Heartbeat, now: Now) {
        let furthest = LEASE + HEARTBEAT * u32::from(MAX_HOPS);
        let age = Duration::from_millis(u64::from(beat.age_ms)) + HEARTBEAT;
        let is_later = self.hubs.get(&beat.hub).is_some_and(|remote| remote.incarnation() < beat.incarnation);
        if let Some(next) = self.route(&beat.hub, now).filter(|&next| is_later && age < furthest && next != via) {
            let beat = Arc::new(Heartbeat { age_ms: age.as_millis() as u32, ..beat.clone() });
            self.send(Destination::from(next), Envelope::Heartbeat(beat));
        }
    }

    /// Whether a heartbeat shows that an earlier incarnation of a hub is still alive. A later incarnation had replaced
    /// it here, and has ended.
    fn goes_on(&self, beat: &Heartbeat, state: Liveness) -> bool {
        let is_fresh = Duration::from_millis(u64::from(beat.age_ms)) < LINK_SILENCE;
        state == Liveness::Ended && beat.process != 0 && is_fresh && self.is_other_process(beat)
    }

    /// Whether a heartbeat comes from a process that is not the known process with this id.
    fn is_other_process(&self, beat: &Heartbeat) -> bool {
        let known = self.hubs.get(&beat.hub).map_or(0, |remote| remote.beat().process);
        known != 0 && beat.process != 0 && known != beat.process
    }
}
