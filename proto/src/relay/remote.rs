//! What is known of one other hub.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{Change, Heartbeat, Presence, SnapshotPart};
use crate::id::{HubId, HubIncarnation, PeerId, Via};
use crate::limits::{
    DOUBT_BEATS, GAP_PATIENCE, HEARTBEAT, LEASE, MAX_ENDED_LIVES, MAX_MEMBERSHIPS, MAX_PEERS_PER_HUB, MAX_VAIN_REPAIRS,
    ROUTE_PATIENCE, SNAPSHOT_LIMIT, SNAPSHOT_PATIENCE, SNAPSHOT_RATE_BYTES, SNAPSHOT_SLACK,
};
use crate::reason::Outcome;

use super::holding::Holding;
use super::signals::{Inbound, Outbound};

#[derive(Debug)]
pub(super) struct Remote {
    /// What shards call it, in [`Sender::Hub`](crate::Sender::Hub).
    pub(super) number: u32,
    pub(super) incarnation: HubIncarnation,
    pub(super) state: State,
    /// The last.
    pub(super) beat: Arc<Heartbeat>,
    /// When `beat` arrived.
    pub(super) beat_at: Duration,
    /// When the last link to it ended, if that is so.
    pub(super) link_lost_at: Option<Duration>,
    /// Another life of this id, which is not believed as this one goes on; since when; and whether that was told.
    pub(super) contest: Option<((HubIncarnation, u64), Duration, bool)>,
    /// Lives of it that have said farewell, the latest last. At most [`MAX_ENDED_LIVES`].
    ended: VecDeque<HubIncarnation>,
    /// When the lease ends that it gave. Kept instead of the time at which it was said: that may be before this hub's clock began.
    pub(super) lease_ends: Duration,
    pub(super) holding: Holding,
    /// Changes beyond a missing one, or beyond the snapshot that is on its way, each with the number of the last heartbeat before it.
    pub(super) ahead: BTreeMap<u64, (u64, Arc<Change>)>,
    /// The number of a heartbeat that said less than what was known here, and which change was known here then.
    pub(super) mark: Option<(u64, u64)>,
    /// More is known of it here than it has said since. A snapshot that says less is believed, and others are sent none.
    pub(super) doubted: bool,
    /// Snapshots that were received since what is known here last agreed with a heartbeat.
    pub(super) vain_repairs: u32,
    /// The way by which the last of those came.
    pub(super) repaired_by: Option<Via>,
    /// Since when something is known to be missing, if something is.
    pub(super) behind_since: Option<Duration>,
    /// When a snapshot is to be asked for.
    pub(super) ask_at: Option<Duration>,
    pub(super) sync: Option<Sync>,
    /// Neighbours that asked for a snapshot of it while `sync` was under way. They are answered when that has ended.
    pub(super) snapshot_waiters: Vec<Via>,
    /// Who was asked for a snapshot last, in vain.
    pub(super) failed_ask: Option<Via>,
    pub(super) ways: Ways,
    /// The way that signals to it take, and the counter of the last that took another one.
    pub(super) sent_by: Option<(Via, u64)>,
    /// The last counter that was given before it last said what became of a signal.
    pub(super) answered: u64,
    /// A way whose signals went unanswered.
    pub(super) avoided: Option<Avoided>,
    /// Until when it counts as being on the bridge.
    pub(super) bridged_until: Duration,
    pub(super) outbound: Outbound,
    pub(super) inbound: Inbound,
    /// Outcomes that are to go back to it.
    pub(super) outcomes: Vec<(u64, Outcome)>,
    pub(super) outcomes_due: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Its lease runs.
    Live,
    /// Its lease has ended. A newer heartbeat of the same life brings it back.
    Lost,
    /// It has said that it ends. Only a new life brings it back.
    Ended,
}

/// A way that signals do not take while there is another.
#[derive(Debug)]
pub(super) struct Avoided {
    pub(super) via: Via,
    /// The counter before that of the first signal that went unanswered on it.
    pub(super) after: u64,
    /// The counter of the last.
    pub(super) last: u64,
    pub(super) until: Duration,
}

/// A snapshot that has been asked for.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) via: Via,
    /// When it was asked for.
    pub(super) since: Duration,
    pub(super) deadline: Duration,
    /// What has arrived of it.
    pub(super) bytes: u64,
    pub(super) parts: u32,
    pub(super) seq: u64,
    pub(super) digest: u64,
    pub(super) peers: BTreeMap<PeerId, Arc<Presence>>,
}

impl Sync {
    pub(super) fn new(via: Via, now: Duration) -> Self {
        let peers = BTreeMap::new();
        Self { via, since: now, deadline: now + SNAPSHOT_PATIENCE, bytes: 0, parts: 0, seq: 0, digest: 0, peers }
    }

    /// Takes in the next part, if it is the next one and of the form that every hub sends.
    pub(super) fn take(&mut self, part: SnapshotPart, now: Duration) -> bool {
        if part.part == 0 && self.parts == 0 {
            (self.seq, self.digest) = (part.seq, part.digest);
        }
        let is_next = (part.part, part.seq, part.digest) == (self.parts, self.seq, self.digest);
        let fits = self.peers.len() + part.peers.len() <= MAX_PEERS_PER_HUB;
        let brings_something = part.last || !part.peers.is_empty();
        // So none of what was there before comes again.
        let last = self.peers.last_key_value().map(|(&peer, _)| peer);
        let peers = || last.into_iter().chain(part.peers.iter().map(|presence| presence.peer));
        let ascends = peers().zip(peers().skip(1)).all(|(a, b)| a < b);
        if !(is_next && fits && brings_something && ascends && part.peers.iter().all(|presence| is_sound(presence))) {
            return false;
        }
        self.parts += 1;
        self.bytes += part.peers.iter().map(|presence| presence_bytes(presence)).sum::<u64>();
        let in_time = SNAPSHOT_SLACK + Duration::from_millis(self.bytes * 1000 / SNAPSHOT_RATE_BYTES);
        self.deadline = (now + SNAPSHOT_PATIENCE).min(self.since + in_time.min(SNAPSHOT_LIMIT));
        self.peers.extend(part.peers.into_iter().map(|presence| (presence.peer, presence)));
        true
    }
}

/// Whether a peer's memberships are as few as they may be, and in the order in which they are looked up.
fn is_sound(presence: &Presence) -> bool {
    let memberships = &presence.memberships;
    memberships.len() <= MAX_MEMBERSHIPS && memberships.is_sorted_by(|a, b| a.network < b.network)
}

/// A peer's id and session, in a snapshot.
const ID_BYTES: u64 = 28;

/// About what a peer takes in a snapshot.
fn presence_bytes(presence: &Presence) -> u64 {
    let memberships = presence.memberships.iter().map(|announcement| announcement.discovered.frame_len() as u64);
    ID_BYTES + memberships.sum::<u64>()
}

impl Remote {
    pub(super) fn new(number: u32, beat: Arc<Heartbeat>, lease_ends: Duration, now: Duration) -> Self {
        Self {
            number,
            incarnation: beat.incarnation,
            state: State::Live,
            beat,
            beat_at: now,
            link_lost_at: None,
            contest: None,
            ended: VecDeque::new(),
            lease_ends,
            holding: Holding::default(),
            ahead: BTreeMap::new(),
            mark: None,
            doubted: false,
            vain_repairs: 0,
            repaired_by: None,
            behind_since: None,
            ask_at: None,
            sync: None,
            snapshot_waiters: Vec::new(),
            failed_ask: None,
            ways: Ways::default(),
            sent_by: None,
            answered: 0,
            avoided: None,
            bridged_until: Duration::ZERO,
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            outcomes: Vec::new(),
            outcomes_due: None,
        }
    }

    /// Notes that a life has said farewell. Heartbeats of it that are still under way bring nobody back.
    pub(super) fn note_ended(&mut self, life: HubIncarnation) {
        if !self.has_ended(life) {
            if self.ended.len() == MAX_ENDED_LIVES {
                self.ended.pop_front();
            }
            self.ended.push_back(life);
        }
    }

    /// Whether a life has said farewell.
    pub(super) fn has_ended(&self, life: HubIncarnation) -> bool {
        self.ended.contains(&life)
    }

    pub(super) fn hub(&self) -> HubId {
        self.beat.hub
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// How long ago the last heartbeat was said, as far as is known.
    pub(super) fn age(&self, now: Duration) -> Duration {
        (now + LEASE).saturating_sub(self.lease_ends)
    }

    pub(super) fn is_bridged(&self, now: Duration) -> bool {
        self.bridged_until > now
    }

    /// Notes the way that the next signal takes.
    pub(super) fn note_sent(&mut self, via: Via) {
        if self.sent_by.is_none_or(|(before, _)| before != via) {
            self.sent_by = Some((via, self.outbound.counter()));
        }
    }

    /// It says what became of a signal. If that one went by the way that is avoided, the way carries signals after all.
    pub(super) fn note_answered(&mut self, counter: u64) {
        self.answered = self.outbound.counter();
        self.avoided.take_if(|avoided| avoided.after < counter && counter <= avoided.last);
    }

    /// How many changes it has said beyond what is known here.
    pub(super) fn lag(&self) -> u64 {
        self.beat.seq.saturating_sub(self.holding.seq)
    }

    /// Forgets changes that a heartbeat would have counted, had its hub made them.
    pub(super) fn forget_unconfirmed(&mut self) {
        let (number, seq) = (self.beat.number, self.beat.seq);
        if self.ahead.last_key_value().is_some_and(|(&last, _)| last > seq) {
            self.ahead.retain(|&ahead, (at, _)| ahead <= seq || number < at.saturating_add(DOUBT_BEATS));
        }
    }

    /// Compares its last heartbeat with an earlier one, to see whether more is known here than it has ever said.
    pub(super) fn doubt(&mut self) {
        let (number, seq) = (self.beat.number, self.beat.seq);
        if self.holding.seq <= seq {
            (self.mark, self.doubted) = (None, false);
            return;
        }
        match self.mark {
            Some((at, _)) if number < at.saturating_add(DOUBT_BEATS) => {}
            Some((_, known)) if seq < known => self.doubted = true,
            Some(_) | None => self.mark = Some((number, self.holding.seq)),
        }
    }

    /// The pause before a snapshot is asked for.
    pub(super) fn pause(&self) -> Duration {
        GAP_PATIENCE * (1 << self.vain_repairs.min(MAX_VAIN_REPAIRS))
    }

    /// When the next thing about it is due.
    pub(super) fn due(&self) -> Option<Duration> {
        let lease = self.is_live().then_some(self.lease_ends);
        let sync = self.sync.as_ref().map(|sync| sync.deadline);
        let due = [lease, sync, self.ask_at, self.outcomes_due, self.inbound.due(), self.outbound.due()];
        due.into_iter().flatten().min()
    }
}

/// Over which neighbours a hub's heartbeats come.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The last heartbeat that came each way, newest last.
    heard: Vec<(Via, u64)>,
    best: Option<Via>,
    worse: u8,
}

impl Ways {
    /// Heartbeats by which a way may be behind and still be one.
    const SLACK: u64 = 2 * LEASE.as_secs() / HEARTBEAT.as_secs();

    /// Notes a heartbeat. `first`: it came by no other way before.
    pub(super) fn note(&mut self, via: Via, number: u64, first: bool) {
        self.heard.retain(|(way, last)| *way != via && last + Self::SLACK >= number);
        self.heard.push((via, number));
        if !first {
            return;
        }
        match self.best {
            Some(best) if best == via => self.worse = 0,
            Some(best) if self.heard.iter().any(|(way, _)| *way == best) && self.worse + 1 < ROUTE_PATIENCE => {
                self.worse += 1;
            }
            Some(_) | None => {
                self.best = Some(via);
                self.worse = 0;
            }
        }
    }

    /// The way to take.
    pub(super) fn best(&self) -> Option<Via> {
        self.best
    }

    /// Every way by which heartbeats came lately, the last one first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Via> {
        self.heard.iter().rev().map(|(way, _)| *way)
    }

    /// Another way than this one, if there is one.
    pub(super) fn other_than(&self, via: Via) -> Option<Via> {
        self.heard.iter().rev().map(|(way, _)| *way).find(|way| *way != via)
    }

    /// Forgets ways that are no more.
    pub(super) fn forget(&mut self, gone: impl Fn(Via) -> bool) {
        self.heard.retain(|(way, _)| !gone(*way));
        if self.best.is_some_and(&gone) {
            self.best = self.heard.iter().max_by_key(|(_, number)| *number).map(|(way, _)| *way);
            self.worse = 0;
        }
    }
}
