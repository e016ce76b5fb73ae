//! Decides which frames are fresh: frames of a live hub, as opposed to recorded frames that are published again.
//!
//! The tag of a frame proves which mesh made it, but not when. An attacker who can write to Redis but does not know
//! MESH_TOKEN could record frames and publish them later. An ended hub would then seem alive. Timestamps in frames
//! would not help, because the clocks of hubs differ. So each hub challenges the others:
//!
//! * Each frame begins with a [`Stamp`]: the session, the frame's number in that session, and a challenge. A session is
//!   a random number for each connection to Redis. A challenge is a random number that changes every
//!   [`BRIDGE_CHALLENGE`].
//! * A frame for one hub also echoes the challenge last received from that hub. A hub that receives a new challenge
//!   answers at once, with an empty frame if it has nothing else to send.
//! * Frames of a session are accepted while that session has answered one of the last [`BRIDGE_CHALLENGES`] challenges.
//!   Frames of each channel are accepted only in ascending order. The first accepted frame of a session is its first
//!   answer. A hub that has reconnected has two sessions for a while. Two sessions that continue to answer are two hubs
//!   with one id.
//!
//! An answer cannot be older than its challenge, so a recorded frame is useless. A hub that received the original frame
//! rejects the recorded frame, because the number of that frame is too low. Any other hub rejects the recorded frame,
//! because the frame's session has not answered a challenge of that hub. An attacker who delays frames, such as Redis
//! itself, can make an ended hub seem alive. Delayed frames are accepted only while answers to the oldest challenge are
//! accepted. An answer also shows that the other hub receives frames of this hub. So frames are accepted only if both
//! hubs receive each other's frames: see [`Fresh::one_way`].
//!
//! The age of an answer is counted in challenges of this hub, not in seconds. A stopped process draws no challenges, so
//! it accepts the frames that arrived in its socket while it was stopped.
//!
//! Hubs of version 2.0 put no stamp on their frames: see [`question`].

use std::collections::{BTreeMap, VecDeque};

use proto::HubId;
use proto::limits::{BRIDGE_CHALLENGE, BRIDGE_CHALLENGES, BRIDGE_PROBE, BRIDGE_SESSIONS, MAX_HUBS};

use super::question::{self, Question};
use super::stamp::{Stamp, random};

/// The verdict about a frame, and the reply to its sender.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgment {
    /// Whether the frame is accepted.
    pub(super) taken: bool,
    /// Whether the frame is not newer than the last accepted frame of its session.
    pub(super) repeated: bool,
    /// Whether the frames of the sender's session are accepted from now on, and were not before.
    pub(super) met: bool,
    /// Whether two live hubs have the sender's id. The field is true for only one frame of the two hubs, so that the
    /// problem is logged once.
    pub(super) twins: bool,
    /// Whether to echo the sender's challenge.
    pub(super) answer: bool,
    /// The question that this hub must ask the sender, if there is one.
    pub(super) ask: Option<Question>,
}

/// The channel of all hubs, and the channel of this hub.
const CHANNELS: usize = 2;
const OWN: usize = 1;

/// Maximum number of replies to one hub's rejected frames between two probes: echoes of its challenges, and questions
/// beyond one per challenge. A new connection needs two.
const SPARE_ANSWERS: u8 = 8;

/// The challenges and answers of one connection to Redis. Challenges show the age of frames.
#[derive(Debug)]
pub(super) struct Fresh {
    session: u64,
    number: u64,
    /// The number of the current round: how many challenges this hub has drawn before the current challenge.
    round: u64,
    /// Number of probes that were due.
    tick: u64,
    /// The latest challenges, the current one last.
    challenges: VecDeque<u64>,
    hubs: BTreeMap<HubId, Known>,
}

/// What this hub knows about another hub: its challenges, answers and sessions.
#[derive(Debug, Default)]
struct Known {
    /// Sessions that have answered one of the latest challenges, in the order of their first answers.
    sessions: Vec<SenderSession>,
    /// The latest challenge of the other hub.
    challenge: u64,
    spare_answers: u8,
    /// Round of the latest question that the other hub answered as a hub of version 2.0.
    plain: Option<u64>,
    questions: VecDeque<(Question, u64)>,
    /// Round in which the latest question was sent to the other hub.
    asked: Option<u64>,
    /// Rounds of the first and the last frame of the other hub since its answers expired. `None` while its frames are
    /// accepted.
    unanswered: Option<(u64, u64)>,
    /// Round in which the latest frame of the other hub arrived.
    heard: u64,
    twins: bool,
}

/// A session of another hub, that is, one of that hub's connections to Redis.
#[derive(Debug)]
struct SenderSession {
    session: u64,
    /// Round of its first answer.
    since: u64,
    /// Round of the latest challenge that this session has answered.
    answered: u64,
    /// Number of the last accepted frame on each channel.
    last: [u64; CHANNELS],
}

impl Known {
    fn is_fresh(&self, round: u64) -> bool {
        self.sessions.iter().any(|session| is_recent(Some(session.answered), round))
    }

    fn is_plain_fresh(&self, round: u64) -> bool {
        is_recent(self.plain, round)
    }
}

fn is_recent(answered: Option<u64>, round: u64) -> bool {
    answered.is_some_and(|answered| answered + BRIDGE_CHALLENGES as u64 > round)
}

impl Fresh {
    /// Makes the state of a new connection. `None` if the system has no random numbers, because no frame could be fresh
    /// then.
    pub(super) fn new() -> Option<Self> {
        Some(Self {
            session: random()?,
            number: 0,
            round: 0,
            tick: 0,
            challenges: VecDeque::from([random()?]),
            hubs: BTreeMap::new(),
        })
    }

    /// Writes the stamp of the next frame, which is for one hub or for all.
    pub(super) fn stamp(&mut self, to: Option<HubId>, frame: &mut [u8]) {
        self.number += 1;
        let echo = to.and_then(|hub| self.hubs.get(&hub)).map_or(0, |known| known.challenge);
        let challenge = self.challenges.back().copied().unwrap_or_default();
        Stamp { session: self.session, number: self.number, challenge, echo }.write(frame);
    }

    /// Whether this connection made the frame with this payload.
    pub(super) fn is_own(&self, payload: &[u8]) -> bool {
        Stamp::read(payload).is_some_and(|stamp| stamp.session == self.session)
    }

    /// Checks a frame made by a hub of this mesh.
    pub(super) fn judge(&mut self, from: HubId, channel: usize, payload: &[u8]) -> Judgment {
        if !self.has_room_for(from) {
            return Judgment::default();
        }
        let round = self.round;
        let oldest = (round + 1).saturating_sub(self.challenges.len() as u64);
        let known = self.hubs.entry(from).or_insert_with(|| Known { spare_answers: SPARE_ANSWERS, ..Known::default() });
        known.heard = round;
        let mut judgment = match Stamp::read(payload) {
            Some(stamp) => {
                let echoed = self.challenges.iter().position(|&own| own == stamp.echo && channel == OWN);
                known.judge(&stamp, channel, echoed.map(|i| oldest + i as u64), round)
            }
            None => known.judge_plain(channel, payload, round),
        };
        let (first, _) = known.unanswered.unwrap_or((round, round));
        let is_answering = known.is_fresh(round) || known.is_plain_fresh(round);
        known.unanswered = (!is_answering).then_some((first, round));
        if let Some(stamp) = Stamp::read(payload)
            && stamp.challenge != known.challenge
            && (judgment.taken || known.spare_answers > 0)
        {
            known.spare_answers -= u8::from(!judgment.taken);
            known.challenge = stamp.challenge;
            judgment.answer = true;
        }
        judgment
    }

    /// Processes an answer that arrived over a link. Hubs send answers over a link if they have one. Returns whether
    /// the hub's frames are accepted from now on, and were not before.
    pub(super) fn answered(&mut self, hub: HubId, question: &Question) -> bool {
        let round = self.round;
        // Hubs that send stamps also answer these questions, but their answers do not count. A frame without a stamp
        // from a hub that sends stamps may be a recorded frame.
        let known = self.hubs.get_mut(&hub).filter(|known| !known.is_fresh(round));
        known.is_some_and(|known| known.answers(question, round))
    }

    /// Counts a due probe, and draws a new challenge once per [`BRIDGE_CHALLENGE`].
    pub(super) fn tick(&mut self) {
        self.tick += 1;
        if self.tick.is_multiple_of(u64::from(ROUND_TICKS))
            && let Some(challenge) = random()
        {
            self.round += 1;
            self.challenges.push_back(challenge);
            if self.challenges.len() > BRIDGE_CHALLENGES {
                self.challenges.pop_front();
            }
        }
        let round = self.round;
        for known in self.hubs.values_mut() {
            known.spare_answers = SPARE_ANSWERS;
            // Forgetting a session is safe: its answers have expired.
            known.sessions.retain(|session| is_recent(Some(session.answered), round));
        }
        self.hubs.retain(|_, known| is_recent(Some(known.heard), round));
    }

    /// Hubs whose frames still arrive, and have been rejected for two rounds because no challenge was answered. Either
    /// these hubs do not receive this hub's frames, or somebody publishes their recorded frames.
    pub(super) fn one_way(&self) -> impl Iterator<Item = HubId> + '_ {
        let is_one_way = |(first, last)| first + 2 <= self.round && last + 2 > self.round;
        self.hubs.iter().filter(move |(_, known)| known.unanswered.is_some_and(is_one_way)).map(|(&hub, _)| hub)
    }

    /// Whether there is room for a hub. If the list is full, one hub that does not answer is removed from it.
    fn has_room_for(&mut self, from: HubId) -> bool {
        if self.hubs.len() < MAX_HUBS || self.hubs.contains_key(&from) {
            return true;
        }
        let round = self.round;
        let is_spare = |known: &Known| !known.is_fresh(round) && !known.is_plain_fresh(round);
        let spare = self.hubs.iter().find(|(_, known)| is_spare(known)).map(|(&hub, _)| hub);
        spare.is_some_and(|hub| self.hubs.remove(&hub).is_some())
    }
}

/// Number of probes between two challenges.
const ROUND_TICKS: u32 = (BRIDGE_CHALLENGE.as_millis() / BRIDGE_PROBE.as_millis()) as u32;

impl Known {
    /// `echoed` is the round of the challenge that the frame answers, if any.
    fn judge(&mut self, stamp: &Stamp, channel: usize, echoed: Option<u64>, round: u64) -> Judgment {
        let mut judgment = Judgment::default();
        if let Some(echoed) = echoed {
            self.proves(stamp, echoed, round, &mut judgment);
        }
        let is_its =
            |session: &&mut SenderSession| session.session == stamp.session && is_recent(Some(session.answered), round);
        if let Some(session) = self.sessions.iter_mut().find(is_its) {
            judgment.taken = stamp.number > session.last[channel];
            judgment.repeated = !judgment.taken;
            session.last[channel] = session.last[channel].max(stamp.number);
        }
        judgment
    }

    fn proves(&mut self, stamp: &Stamp, echoed: u64, round: u64, judgment: &mut Judgment) {
        if let Some(i) = self.sessions.iter().position(|session| session.session == stamp.session) {
            self.sessions[i].answered = self.sessions[i].answered.max(echoed);
            // A hub that has reconnected no longer answers later challenges in its old session.
            let lives_beside = self.sessions[i + 1..].iter().any(|later| echoed > later.since);
            judgment.twins = lives_beside && !std::mem::replace(&mut self.twins, true);
            return;
        }
        if self.sessions.len() >= BRIDGE_SESSIONS {
            return;
        }
        // Earlier frames of the session may have been recorded, so only this frame and later ones are accepted.
        let last = [stamp.number.saturating_sub(1); CHANNELS];
        self.sessions.push(SenderSession { session: stamp.session, since: round, answered: echoed, last });
        judgment.met = true;
        // The other hub now sends stamps, so a frame without a stamp comes from an earlier process of that hub.
        self.plain = None;
        self.questions.clear();
    }

    fn judge_plain(&mut self, channel: usize, payload: &[u8], round: u64) -> Judgment {
        let mut judgment = Judgment::default();
        if channel == OWN && !self.questions.is_empty() {
            let answers = question::answered_in(payload);
            judgment.met = answers.iter().any(|question| self.answers(question, round));
        }
        judgment.taken = self.is_plain_fresh(round);
        // A hub of version 2.0 is asked once per challenge. While frames of a hub of version 2.0 are rejected, each of
        // its frames causes a question, up to a bound. One question per challenge would not be enough, because the
        // other hub cannot answer before it has discovered this hub.
        let is_due = self.asked != Some(round) && self.plain != Some(round);
        let is_urgent = !judgment.taken && self.spare_answers > 0;
        if (is_due || is_urgent)
            && let Some(question) = question::random()
        {
            self.spare_answers -= u8::from(!is_due);
            self.asked = Some(round);
            self.questions.push_back((question, round));
            if self.questions.len() > BRIDGE_CHALLENGES {
                self.questions.pop_front();
            }
            judgment.ask = Some(question);
        }
        judgment
    }

    /// Returns whether frames without stamps are accepted from now on, and were not before.
    fn answers(&mut self, answer: &Question, round: u64) -> bool {
        let Some(i) = self.questions.iter().position(|(question, _)| question == answer) else { return false };
        let was_fresh = self.is_plain_fresh(round);
        let (_, asked) = self.questions[i];
        self.questions.drain(..=i);
        self.plain = self.plain.max(Some(asked));
        !was_fresh && self.is_plain_fresh(round)
    }
}

#[cfg(test)]
impl Fresh {
    /// Whether frames of a hub are accepted.
    pub(super) fn is_met(&self, hub: HubId) -> bool {
        self.hubs.get(&hub).is_some_and(|known| known.is_fresh(self.round) || known.is_plain_fresh(self.round))
    }
}

#[cfg(test)]
mod tests;
