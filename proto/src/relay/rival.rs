//! Handles two live hubs with one id. Either this hub is one of the two hubs, or both are other hubs.
//!
//! Other hubs remember the last incarnation of a restarted hub with a fixed HUB_ID. If the clock was set back, that
//! incarnation is later than the hub's new one. The hub then begins an incarnation that is later than the remembered
//! one. A hub must not begin this incarnation while another process still uses the remembered one. Otherwise, each of
//! the two processes would replace the other forever. An incarnation is alive if the numbers of its heartbeats grow. If
//! two live hubs have one id, the hub that started later takes a new id (`names`). A third hub continues with the hub
//! that it already knows under this id. The third hub forwards the heartbeats of each of the two hubs to the other hub.
//!
//! Two third hubs, A and B, can know different hubs under this id. When A receives a heartbeat of the hub that B knows,
//! A answers with the last heartbeat of the hub that A knows. B does the same. The rate of these answers is limited
//! ([`Answers`]), because otherwise A and B would answer each other's answers forever.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::bug;
use crate::envelope::{Envelope, Heartbeat};
use crate::id::{HubId, HubIncarnation};
use crate::limits::{
    CONTEST_PAUSE, GREATEST_TIME_FOLLOWED, HEARTBEAT, LEASE, LINK_SILENCE, MAX_CONTEST_HEARTBEATS, RIVAL_EVIDENCE,
    RIVAL_MEMORY, RIVAL_PATIENCE, RIVAL_YIELD,
};
use crate::route::Hop;
use crate::router::ToShard;
use crate::time::Now;

use super::remote::Paths;
use super::{Destination, MeshEvent, Relay, RelayOutput};

/// Maximum difference between the incarnation that other hubs remember and the later one that this hub begins, in
/// milliseconds. It is about a minute.
const INCARNATION_STEPS: u64 = 1 << 16;

/// Another incarnation of this hub's id, in another process.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    life: (HubIncarnation, u64),
    first_at: Duration,
    last_number: u64,
    /// Number of times that the heartbeat number of this incarnation has grown. The number can also grow a few times
    /// for an ended incarnation, because third hubs can remember different last heartbeats of it.
    grew: u32,
    /// Time at which the heartbeat number last grew.
    last_at: Duration,
    /// Time of the last report that another hub remembers this incarnation.
    recalled_at: Option<Duration>,
    /// Time since which other hubs have reported that they remember another incarnation of this id. The time in `since`
    /// does not restart when other hubs report a different incarnation.
    since: Duration,
    /// Whether the other process has identified itself with a hello on a link.
    proven: bool,
    told: bool,
}

impl Rival {
    fn is_alive(&self, now: Duration) -> bool {
        let grew = self.grew >= 3 && self.last_at >= self.first_at + RIVAL_EVIDENCE;
        self.proven || grew && now < self.last_at + RIVAL_MEMORY
    }

    fn is_recalled(&self, now: Duration) -> bool {
        self.recalled_at.is_some_and(|at| now < at + RIVAL_MEMORY)
    }
}

/// The heartbeats of one hub id that this hub has sent since the current pause began, each because this hub had not
/// accepted a heartbeat of that id. There are at most [`MAX_CONTEST_HEARTBEATS`] such heartbeats.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pause_began: Duration,
    sent: Vec<Answer>,
}

/// The receiver of a heartbeat, the incarnation and process in the heartbeat, and whether its age marks the incarnation
/// as ended.
type Answer = (Hop, (HubIncarnation, u64), bool);
const _: () = assert!(size_of::<Answer>() <= 56);

impl Answers {
    /// Whether a heartbeat may be sent now, and records this heartbeat as sent. In one [`CONTEST_PAUSE`], each receiver
    /// gets at most one heartbeat that marks an incarnation as ended, and one other heartbeat of this incarnation.
    fn admit(&mut self, answer: Answer, now: Duration) -> bool {
        if now >= self.pause_began + CONTEST_PAUSE {
            *self = Self { pause_began: now, sent: Vec::new() };
        }
        let is_admitted = self.sent.len() < MAX_CONTEST_HEARTBEATS && !self.sent.contains(&answer);
        if is_admitted {
            self.sent.push(answer);
        }
        is_admitted
    }
}

impl Relay {
    /// A random number of this process. The number distinguishes this process from another process with the same id.
    pub fn process(&self) -> u64 {
        self.config.keys.hash_one((self.config.hub, "process")).max(1)
    }

    fn life(&self) -> (HubIncarnation, u64) {
        (self.config.incarnation, self.process())
    }

    /// Processes a heartbeat with this hub's own id.
    pub(super) fn heard_of_itself(&mut self, beat: &Heartbeat, now: Now) {
        let life = (beat.incarnation, beat.process);
        if beat.process == self.process() || life == (self.config.incarnation, 0) {
            // Other hubs remember a later incarnation of this process, or more heartbeats than it has sent. So other
            // hubs have accepted forged numbers, and would ignore the real heartbeats.
            if beat.incarnation > self.config.incarnation || beat.number > self.beats {
                self.begin_later_incarnation(beat.incarnation.max(self.config.incarnation), now);
            }
            return;
        }
        let rival = self.rival.take();
        // Other hubs can report different ended incarnations of this id in turn. The latest of these incarnations
        // counts, and a change of the incarnation does not reset `since`.
        let since = rival.as_ref().filter(|rival| rival.recalled_at.is_some()).map_or(now.at, |rival| rival.since);
        let is_kept = |rival: &Rival| {
            rival.life == life || rival.is_alive(now.at) || rival.life > life && rival.is_recalled(now.at)
        };
        let mut rival = rival.filter(is_kept).unwrap_or(Rival {
            life,
            first_at: now.at,
            last_number: beat.number,
            grew: 0,
            last_at: now.at,
            recalled_at: None,
            since,
            proven: false,
            told: false,
        });
        if rival.life == life && beat.number > rival.last_number {
            rival.last_number = beat.number;
            if now.at >= rival.last_at + HEARTBEAT / 2 {
                rival.grew += 1;
                rival.last_at = now.at;
            }
        }
        // A heartbeat of this age does not extend a lease. Another hub sent the heartbeat to report an incarnation that
        // it remembers.
        if rival.life == life && Duration::from_millis(u64::from(beat.age_ms)) >= LEASE {
            rival.recalled_at = Some(now.at);
        }
        self.rival = Some(rival);
        self.judge_rival(now);
    }

    /// Handles a hello of another hub with this hub's id. The hello shows that the other hub is alive.
    pub(super) fn met_namesake(&mut self, incarnation: HubIncarnation, process: u64, now: Now) {
        let life = (incarnation, process);
        if process == self.process() {
            return;
        }
        let (first_at, last_at) = (now.at, now.at);
        self.rival = Some(Rival {
            life,
            first_at,
            grew: 0,
            last_number: 0,
            last_at,
            recalled_at: None,
            since: now.at,
            proven: true,
            told: false,
        });
        self.judge_rival(now);
        if let Some(rival) = &mut self.rival {
            rival.proven = false;
        }
    }

    /// Decides what to do about another incarnation of this hub's id.
    pub(super) fn judge_rival(&mut self, now: Now) {
        let own = self.life();
        let Some(rival) = self.rival.as_mut() else { return };
        let (alive, known_for) = (rival.is_alive(now.at), now.at.saturating_sub(rival.first_at));
        let is_young = now.at < self.started + RIVAL_PATIENCE;
        let (life, proven) = (rival.life, rival.proven);
        let is_recalled = rival.is_recalled(now.at);
        let recalled_for = now.at.saturating_sub(rival.since);
        if alive && !std::mem::replace(&mut rival.told, true) {
            self.event(MeshEvent::SameId);
        }
        if life < own {
            if proven || alive && !is_young {
                self.take_new_id(now);
            } else if known_for > RIVAL_YIELD && !alive {
                self.rival = None;
            }
        } else if alive {
            // The other hub started later, and must take a new id. Hubs before 2.1 do not take a new id. Therefore this
            // hub takes a new id itself if the other hub has not done so after a while.
            if known_for >= RIVAL_YIELD {
                self.take_new_id(now);
            }
        } else if life.0 > own.0 && is_recalled && (is_young || recalled_for >= RIVAL_PATIENCE) {
            self.rival = None;
            self.begin_later_incarnation(life.0, now);
        } else if known_for >= RIVAL_YIELD {
            self.rival = None;
        }
    }

    /// Begins an incarnation that is later than `than`, the ended incarnation that other hubs remember.
    pub(super) fn begin_later_incarnation(&mut self, than: HubIncarnation, now: Now) {
        // Another process with this id may also have begun an incarnation after `than`. The step depends on this
        // process, so that the incarnations of two such processes very probably differ.
        let step = 1 + self.config.keys.hash_one(self.config.hub) % INCARNATION_STEPS;
        let later = than.0.saturating_add(step);
        if later > GREATEST_TIME_FOLLOWED {
            // A hub never begins an incarnation after this maximum, so that other hubs can still accept later
            // incarnations (`GREATEST_TIME`).
            return self.take_new_id(now);
        }
        self.config.incarnation = HubIncarnation(later);
        self.restart_all_counters();
        self.event(MeshEvent::LaterIncarnation);
        self.beat(now);
    }

    fn restart_all_counters(&mut self) {
        let hubs: Vec<HubId> = self.hubs.keys().copied().collect();
        for hub in hubs {
            self.give_up_outbound(hub);
            self.restart_counters(hub);
        }
    }

    /// Replaces this hub's id by a new id. All links except legacy links must be dialed again.
    fn take_new_id(&mut self, now: Now) {
        let before = self.names.outside();
        // After the farewell, other hubs remove the old id at once. Without the farewell, other hubs would wait until
        // the lease of the old id expires.
        self.send_farewell();
        self.renamed += 1;
        self.names.rename((self.config.keys.hash_one((self.config.hub, self.renamed)) >> 2).max(1));
        self.config.incarnation = HubIncarnation(now.wall_ms.min(GREATEST_TIME_FOLLOWED));
        self.rival = None;
        self.stats.ids_given_up += 1;
        self.restart_all_counters();
        self.links.clear();
        self.reach = None;
        for remote in self.hubs.values_mut() {
            remote.paths = Paths::default();
        }
        self.cancel_snapshots(|_| true, now);
        if self.bridge.is_up() {
            self.bridge_down();
        }
        let hub = self.names.outside();
        for shard in (0..self.config.shards).map(crate::id::ShardId) {
            self.post(shard, ToShard::Renamed { hub });
        }
        self.outputs.push_back(RelayOutput::Event(MeshEvent::IdGivenUp(before, hub)));
        self.outputs.push_back(RelayOutput::Renamed { hub });
    }

    /// Whether this hub must ignore the heartbeat of an unknown incarnation, because the known incarnation of the same
    /// id is still alive.
    pub(super) fn is_contested(&self, beat: &Heartbeat, now: Now) -> bool {
        let Some(remote) = self.hubs.get(&beat.hub).filter(|remote| remote.is_live()) else { return false };
        let same_process = remote.beat().process == beat.process && beat.process != 0;
        let heard_lately = now.at.saturating_sub(remote.beat_at()) < LINK_SILENCE || now.at < self.judge_from;
        // When a process ends, its links close. A link that closed after the last heartbeat therefore shows that the
        // process may have ended.
        let link_ended = remote.has_lost_link();
        !same_process && heard_lately && !link_ended
    }

    /// Handles a second live hub with the id of a known hub. This hub continues with the known hub, and sends each of
    /// the two hubs the last heartbeat of the other hub.
    pub(super) fn contest(&mut self, via: Hop, beat: &Heartbeat, now: Now) {
        let Some(remote) = self.hubs.get_mut(&beat.hub) else {
            return bug!(self.bugs, HubMissing, "{:?} is contested", beat.hub);
        };
        let life = (beat.incarnation, beat.process);
        let age_ms = remote.age(now.at).as_millis() as u32;
        let known = Arc::new(Heartbeat { age_ms, ..(**remote.beat()).clone() });
        if remote.note_contest(life, now.at) {
            self.event(MeshEvent::TwoHubs(beat.hub));
        }
        self.answer_beat(via, known, now);
        let links = self.links.iter().filter(|(_, open)| open.hub() == beat.hub).map(|(link, _)| Hop::Link(link));
        let mut others: Vec<Hop> = links.filter(|&link| link != via).collect();
        if others.is_empty() {
            others.extend(self.route(&beat.hub, now).filter(|&next| next != via));
        }
        for other in others {
            self.answer_beat(other, Arc::new(beat.clone()), now);
        }
    }

    /// Handles a heartbeat of an incarnation that is earlier than the known one. The sender of this heartbeat receives
    /// the last heartbeat of the known incarnation. If the known incarnation belongs to another process, that process
    /// receives the sender's heartbeat, too.
    pub(super) fn earlier_incarnation(&mut self, via: Hop, beat: &Heartbeat, now: Now) {
        self.recall(via, beat.hub, now);
        let is_other = self.hubs.get(&beat.hub).is_some_and(|remote| remote.beat().process != beat.process);
        if let Some(next) = self.route(&beat.hub, now).filter(|&next| next != via && is_other) {
            self.answer_beat(next, Arc::new(beat.clone()), now);
        }
    }

    /// Sends the remembered heartbeat of a hub back towards that hub. A heartbeat of that hub has arrived with a lower
    /// incarnation or number than the remembered one, for example because the hub's clock was set back. The hub then
    /// begins an incarnation that is later than the remembered one. The age of the sent heartbeat is [`LEASE`], so that
    /// other hubs do not accept it as a new heartbeat.
    pub(super) fn recall(&mut self, via: Hop, hub: HubId, now: Now) {
        let Some(remote) = self.hubs.get(&hub) else {
            return bug!(self.bugs, HubMissing, "{hub:?} is recalled");
        };
        let beat = Arc::new(Heartbeat { age_ms: LEASE.as_millis() as u32, ..(**remote.beat()).clone() });
        self.answer_beat(via, beat, now);
    }

    /// Sends a heartbeat of a hub, because this hub has not accepted a heartbeat with that hub's id. If [`Answers`]
    /// does not admit the heartbeat, it is not sent. A heartbeat that is not sent does no harm, because a later
    /// heartbeat causes another answer.
    fn answer_beat(&mut self, to: Hop, beat: Arc<Heartbeat>, now: Now) {
        let Some(remote) = self.hubs.get_mut(&beat.hub) else {
            return bug!(self.bugs, HubMissing, "an answer about {:?}", beat.hub);
        };
        let is_ended = Duration::from_millis(u64::from(beat.age_ms)) >= LEASE;
        if remote.answers.admit((to, (beat.incarnation, beat.process), is_ended), now.at) {
            self.send(Destination::from(to), Envelope::Heartbeat(beat));
        }
    }

    pub(super) fn event(&mut self, event: MeshEvent) {
        let name = |hub| self.names.outward(hub);
        let event = match event {
            MeshEvent::HubFound(hub) => MeshEvent::HubFound(name(hub)),
            MeshEvent::HubLost(hub, peers) => MeshEvent::HubLost(name(hub), peers),
            MeshEvent::HubLeft(hub, peers) => MeshEvent::HubLeft(name(hub), peers),
            MeshEvent::Repaired(hub) => MeshEvent::Repaired(name(hub)),
            MeshEvent::LinkSilent(hub) => MeshEvent::LinkSilent(name(hub)),
            MeshEvent::LinkUnheard(hub) => MeshEvent::LinkUnheard(name(hub)),
            MeshEvent::LinkWorks(hub) => MeshEvent::LinkWorks(name(hub)),
            MeshEvent::TwoHubs(hub) => MeshEvent::TwoHubs(name(hub)),
            MeshEvent::SameId | MeshEvent::LaterIncarnation | MeshEvent::IdGivenUp(..) => event,
        };
        self.outputs.push_back(RelayOutput::Event(event));
    }
}
