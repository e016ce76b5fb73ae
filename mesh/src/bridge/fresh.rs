//! Which frames are fresh: made by a hub that lives, and not recorded and published again.
//!
//! The tag of a frame proves which mesh made it, but not when. Somebody who can write to Redis, without knowing
//! MESH_TOKEN, could record frames and publish them later, so that an ended hub would seem alive. Clocks do not help,
//! since those of hubs differ. So each hub challenges the others:
//!
//! * Each frame begins with a [`Stamp`]: the session (a random number for each connection to Redis), the frame's number
//!   in that session, and a challenge (a random number that changes every [`BRIDGE_CHALLENGE`]).
//! * A frame for one hub also echoes the challenge last received from that hub. A hub that receives a new challenge
//!   answers at once, with an empty frame if it has nothing else to send.
//! * Frames of a session are taken while that session has answered one of the last [`BRIDGE_CHALLENGES`] challenges,
//!   and each channel's frames only in ascending order. The first answer says from which number on. A hub that has
//!   connected anew has two sessions for a while; two sessions that go on answering are two hubs with one id.
//!
//! So an answer cannot have been made before its challenge, and a recorded frame is worth nothing: to a hub that has
//! received the original its number is too low, and to any other hub its session has not answered. Somebody who holds
//! frames back (Redis itself) can delay the end of a hub by the age of the oldest accepted challenge. An answer also
//! shows that the other hub receives this one, so frames are taken only where hubs receive each other: see
//! [`Fresh::one_way`].
//!
//! Age is counted in this hub's own challenges, not in time: a process that was stopped has drawn none, and takes what
//! has waited in its socket.
//!
//! # Hubs of version 2.0
//!
//! They put no stamp on their frames, and skip ours, since it has the form of an envelope of an unknown kind. They are
//! asked a question that they can answer: whether a random id is free (`Takeover`), under a random ticket. Their frames
//! are accepted while they answer. So a rolling upgrade needs no setting, and recorded frames of that version are
//! useless too. Their frames have no numbers, so those of a *living* hub of version 2.0 can be repeated, as between
//! such hubs.

use std::collections::{BTreeMap, VecDeque};

use proto::envelope::{EnvelopeKind, Route, Routed};
use proto::limits::{BRIDGE_CHALLENGE, BRIDGE_CHALLENGES, BRIDGE_PROBE, BRIDGE_SESSIONS, MAX_HUBS};
use proto::{Envelope, HubId, HubIncarnation, PeerId};

use super::frame::{HEADER, STAMP};

/// What a frame says of its own age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The sender's connection to Redis.
    pub(super) session: u64,
    /// The frame's number in that session.
    pub(super) number: u64,
    /// What the sender wants to have echoed.
    pub(super) challenge: u64,
    /// The receiver's challenge; 0 for none.
    pub(super) echo: u64,
}

impl Stamp {
    /// The kind of envelope that a stamp looks like. No real kind has it.
    const KIND: u8 = u8::MAX;
    const BODY: usize = 1 + 4 * size_of::<u64>();

    /// Writes it to where [`Seal::begin`](super::frame::Seal::begin) has left room.
    pub(super) fn write(&self, frame: &mut [u8]) {
        let mut bytes = [0; STAMP];
        bytes[..4].copy_from_slice(&(Self::BODY as u32).to_le_bytes());
        bytes[4] = Self::KIND;
        for (n, to) in [self.session, self.number, self.challenge, self.echo].iter().zip(bytes[5..].chunks_exact_mut(8))
        {
            to.copy_from_slice(&n.to_le_bytes());
        }
        frame[HEADER..HEADER + STAMP].copy_from_slice(&bytes);
    }

    /// How long the stamp at the front of a payload is; 0 where there is none.
    pub(super) fn len(payload: &[u8]) -> usize {
        let stamped = split(payload).filter(|(kind, ..)| *kind == Self::KIND);
        stamped.map_or(0, |(_, _, rest)| payload.len() - rest.len())
    }

    /// The stamp at the front of a payload.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (kind, body, _) = split(payload)?;
        let field = |i: usize| body.get(8 * i..8 * i + 8)?.try_into().ok().map(u64::from_le_bytes);
        if kind != Self::KIND {
            return None;
        }
        Some(Self { session: field(0)?, number: field(1)?, challenge: field(2)?, echo: field(3)? })
    }
}

/// Kind and body of the first envelope, and the rest.
fn split(payload: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    let (envelope, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let (kind, body) = envelope.split_first()?;
    Some((*kind, body, rest))
}

/// A question to a hub that knows no stamps: whether this random id is free, under this random ticket.
pub(super) type Question = (PeerId, u64);

/// The verdict about a frame, and what to send to its sender.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judgment {
    /// It is fresh.
    pub(super) taken: bool,
    /// It is of a session that is taken, and repeats an earlier frame.
    pub(super) repeated: bool,
    /// From here on the sender's frames are taken, and were not before.
    pub(super) met: bool,
    /// Two live hubs have the sender's id. Said once for each hub.
    pub(super) twins: bool,
    /// Whether to echo the sender's challenge.
    pub(super) answer: bool,
    /// The question to ask the sender.
    pub(super) ask: Option<Question>,
}

/// Everyone's channel, and this hub's own.
const CHANNELS: usize = 2;
const OWN: usize = 1;

/// What is sent to one hub between two probes because of frames that are not taken: answers to their challenges, and
/// questions. A connection that begins needs two.
const SPARE_ANSWERS: u8 = 8;

/// What is known of the age of frames, for one connection to Redis.
#[derive(Debug)]
pub(super) struct Fresh {
    session: u64,
    number: u64,
    /// How many challenges this hub has drawn before the present one.
    round: u64,
    /// How many probes have been due.
    tick: u64,
    /// The present challenge last.
    challenges: VecDeque<u64>,
    hubs: BTreeMap<HubId, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The sessions that have answered one of the last challenges, in the order of their first answers.
    sessions: Vec<Session>,
    /// Its latest challenge.
    challenge: u64,
    spare_answers: u8,
    /// In which round the latest question was asked that it has answered, as a hub of version 2.0.
    plain: Option<u64>,
    questions: VecDeque<(Question, u64)>,
    /// In which round the latest question was asked.
    asked: Option<u64>,
    /// Rounds of its first and last frame since its last answer.
    unanswered: Option<(u64, u64)>,
    /// In which round its last frame came.
    heard: u64,
    twins: bool,
}

#[derive(Debug)]
struct Session {
    session: u64,
    /// In which round it answered first.
    since: u64,
    /// In which round the latest challenge was drawn that it has answered.
    answered: u64,
    /// The number of the last frame that was taken, for each channel.
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
    /// For a new connection. `None` where the system has no random numbers: nothing would be fresh then.
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

    /// Stamps the next frame, for one hub or for everyone.
    pub(super) fn stamp(&mut self, to: Option<HubId>, frame: &mut [u8]) {
        self.number += 1;
        let echo = to.and_then(|hub| self.hubs.get(&hub)).map_or(0, |known| known.challenge);
        let challenge = self.challenges.back().copied().unwrap_or_default();
        Stamp { session: self.session, number: self.number, challenge, echo }.write(frame);
    }

    /// Whether a frame with this payload was made by this connection.
    pub(super) fn is_own(&self, payload: &[u8]) -> bool {
        Stamp::read(payload).is_some_and(|stamp| stamp.session == self.session)
    }

    /// Judges a frame that a hub of this mesh has made.
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

    /// A hub has answered a question over a link, which it prefers. Whether its frames are taken from here on.
    pub(super) fn answered(&mut self, hub: HubId, question: &Question) -> bool {
        let round = self.round;
        // A hub that knows stamps answers such questions as well, and what it published before it did may be recorded.
        let known = self.hubs.get_mut(&hub).filter(|known| !known.is_fresh(round));
        known.is_some_and(|known| known.answers(question, round))
    }

    /// A probe is due.
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

    /// Hubs whose frames arrive but that have not answered for two challenges: they do not receive this hub, or
    /// somebody publishes their recorded frames.
    pub(super) fn one_way(&self) -> impl Iterator<Item = HubId> + '_ {
        let is_one_way = |(first, last)| first + 2 <= self.round && last + 2 > self.round;
        self.hubs.iter().filter(move |(_, known)| known.unanswered.is_some_and(is_one_way)).map(|(&hub, _)| hub)
    }

    /// Makes room by forgetting one that does not answer, if there is no room.
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

/// Probes between two challenges.
const ROUND_TICKS: u32 = (BRIDGE_CHALLENGE.as_millis() / BRIDGE_PROBE.as_millis()) as u32;

impl Known {
    /// `echoed`: the round of the challenge that the frame answers, if it answers one.
    fn judge(&mut self, stamp: &Stamp, channel: usize, echoed: Option<u64>, round: u64) -> Judgment {
        let mut judgment = Judgment::default();
        if let Some(echoed) = echoed {
            self.proves(stamp, echoed, round, &mut judgment);
        }
        let is_its =
            |session: &&mut Session| session.session == stamp.session && is_recent(Some(session.answered), round);
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
            // A hub that has reconnected no longer answers later challenges in the old session.
            let lives_beside = self.sessions[i + 1..].iter().any(|later| echoed > later.since);
            judgment.twins = lives_beside && !std::mem::replace(&mut self.twins, true);
            return;
        }
        if self.sessions.len() >= BRIDGE_SESSIONS {
            return;
        }
        // What it has sent before may have been recorded.
        let last = [stamp.number.saturating_sub(1); CHANNELS];
        self.sessions.push(Session { session: stamp.session, since: round, answered: echoed, last });
        judgment.met = true;
        // It knows stamps: what it has sent without one is of an earlier life.
        self.plain = None;
        self.questions.clear();
    }

    fn judge_plain(&mut self, channel: usize, payload: &[u8], round: u64) -> Judgment {
        let mut judgment = Judgment::default();
        if channel == OWN && !self.questions.is_empty() {
            let answers = questions_answered(payload);
            judgment.met = answers.iter().any(|question| self.answers(question, round));
        }
        judgment.taken = self.is_plain_fresh(round);
        // Once for each challenge, and as long as it is not taken with each of its frames, up to a bound: it cannot
        // answer before it has taken this hub in.
        let is_due = self.asked != Some(round) && self.plain != Some(round);
        let is_urgent = !judgment.taken && self.spare_answers > 0;
        if (is_due || is_urgent)
            && let Some(question) = random_question()
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

    /// Whether frames without stamps are taken from here on, and were not before.
    fn answers(&mut self, answer: &Question, round: u64) -> bool {
        let Some(i) = self.questions.iter().position(|(question, _)| question == answer) else { return false };
        let was_fresh = self.is_plain_fresh(round);
        let (_, asked) = self.questions[i];
        self.questions.drain(..=i);
        self.plain = self.plain.max(Some(asked));
        !was_fresh && self.is_plain_fresh(round)
    }
}

/// Questions that are answered in a payload.
fn questions_answered(mut payload: &[u8]) -> Vec<Question> {
    let mut answers = Vec::new();
    while let Some((kind, _, rest)) = split(payload) {
        let mut envelope = &payload[..payload.len() - rest.len()];
        if kind == EnvelopeKind::TakeoverAnswer as u8
            && let Ok(Some(Envelope::Routed(_, routed))) = Envelope::decode(&mut envelope)
            && let Routed::TakeoverAnswer { peer, ticket, .. } = *routed
        {
            answers.push((peer, ticket));
        }
        payload = rest;
    }
    answers
}

/// A question as it goes to a hub of version 2.0. It is for no life of that hub, so that it is answered without any
/// consequence.
pub(super) fn ask((peer, ticket): Question, to: HubId, from: HubId) -> Envelope {
    let nobody = HubIncarnation(0);
    let route = Route { to, to_incarnation: nobody, from, from_incarnation: nobody, hops: 0 };
    Envelope::Routed(route, Box::new(Routed::Takeover { peer, ticket, resume: None }))
}

/// Not 0. `None`: the system has none.
fn random() -> Option<u64> {
    getrandom::u64().ok().map(|n| n.max(1))
}

fn random_question() -> Option<Question> {
    let mut peer = [0; 20];
    getrandom::fill(&mut peer).ok()?;
    Some((PeerId::from_bytes(peer), random()?))
}

#[cfg(test)]
impl Fresh {
    /// Whether frames of a hub are taken.
    pub(super) fn is_met(&self, hub: HubId) -> bool {
        self.hubs.get(&hub).is_some_and(|known| known.is_fresh(self.round) || known.is_plain_fresh(self.round))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::PREFIX;
    use super::*;

    /// A hub on the bridge, and what it has published: for whom, and the payload.
    struct Hub {
        id: HubId,
        fresh: Fresh,
        published: Vec<(Option<HubId>, Vec<u8>)>,
    }

    fn id(n: u16) -> HubId {
        let mut bytes = [0; 20];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        HubId(PeerId::from_bytes(bytes))
    }

    impl Hub {
        fn new(n: u16) -> Self {
            Self { id: id(n), fresh: Fresh::new().unwrap(), published: Vec::new() }
        }

        fn publish(&mut self, to: Option<HubId>) -> (Option<HubId>, Vec<u8>) {
            let mut frame = vec![0; PREFIX];
            self.fresh.stamp(to, &mut frame);
            let published = (to, frame.split_off(HEADER));
            self.published.push(published.clone());
            published
        }

        fn receives(&mut self, from: HubId, (to, payload): &(Option<HubId>, Vec<u8>)) -> Judgment {
            self.fresh.judge(from, to.map_or(0, |_| OWN), payload)
        }

        fn rounds(&mut self, n: usize) {
            (0..n as u32 * ROUND_TICKS).for_each(|_| self.fresh.tick());
        }

        fn one_way(&self) -> Vec<HubId> {
            self.fresh.one_way().collect()
        }
    }

    /// One publishes to everyone, and the two answer until nobody has to.
    fn say(a: &mut Hub, b: &mut Hub) -> Judgment {
        let mut frame = a.publish(None);
        let judgment = b.receives(a.id, &frame);
        let (mut from, mut to) = (a, b);
        let mut answer = judgment.answer;
        while answer {
            std::mem::swap(&mut from, &mut to);
            frame = from.publish(Some(to.id));
            answer = to.receives(from.id, &frame).answer;
        }
        judgment
    }

    /// Two hubs that take each other's frames.
    fn two() -> (Hub, Hub) {
        let (mut a, mut b) = (Hub::new(1), Hub::new(2));
        assert!(!say(&mut a, &mut b).taken);
        assert!(say(&mut a, &mut b).taken && say(&mut b, &mut a).taken);
        (a, b)
    }

    /// Everything that a hub has published is published again, and nothing of it is taken.
    fn nothing_is_taken(recorded: &Hub, by: &mut Hub) {
        for _ in 0..2 {
            for frame in &recorded.published {
                let judgment = by.receives(recorded.id, frame);
                assert!(!judgment.taken && !judgment.met && !judgment.twins, "{judgment:?}");
            }
        }
    }

    #[test]
    fn a_stamp_reads_as_it_was_written_and_is_skipped_as_an_envelope() {
        let stamp = Stamp { session: 1, number: u64::MAX, challenge: 3, echo: 4 };
        let mut frame = vec![0; PREFIX];
        stamp.write(&mut frame);
        let payload = &frame[HEADER..];
        assert_eq!((Stamp::read(payload), Stamp::len(payload)), (Some(stamp), STAMP));
        assert!(matches!(Envelope::decode(&mut &payload[..]), Ok(None)));
        assert!(EnvelopeKind::ALL.len() < usize::from(Stamp::KIND));
        for cut in 0..payload.len() {
            assert_eq!((Stamp::read(&payload[..cut]), Stamp::len(&payload[..cut])), (None, 0));
        }
        // Of another kind, or too short inside.
        assert_eq!(Stamp::read(&[1, 0, 0, 0, 7]), None);
        assert_eq!(Stamp::read(&[1, 0, 0, 0, Stamp::KIND]), None);
    }

    #[test]
    fn frames_are_taken_once_and_in_order_when_their_hub_has_answered() {
        let (mut a, mut b) = two();
        let early = a.publish(None);
        let late = a.publish(None);
        let own = a.publish(Some(b.id));
        assert!(b.receives(a.id, &late).taken);
        for old in [&early, &late] {
            assert_eq!(b.receives(a.id, old), Judgment { repeated: true, ..Judgment::default() });
        }
        assert!(b.receives(a.id, &own).taken, "channels are counted apart");
        assert!(b.receives(a.id, &own).repeated);
    }

    #[test]
    fn a_recorded_hub_is_taken_by_nobody() {
        let (a, mut b) = two();
        nothing_is_taken(&a, &mut b);
        // Nor by a hub that begins, or by one that has connected anew or has forgotten it.
        nothing_is_taken(&a, &mut Hub::new(3));
        nothing_is_taken(&a, &mut Hub::new(2));
        b.rounds(20);
        assert!(!b.fresh.hubs.contains_key(&a.id));
        nothing_is_taken(&a, &mut b);
    }

    #[test]
    fn frames_from_before_the_first_answer_are_not_taken_after_it() {
        let mut a = Hub::new(1);
        let old = a.publish(None);
        let mut b = Hub::new(2);
        say(&mut a, &mut b);
        assert!(b.receives(a.id, &old).repeated);
        assert!(say(&mut a, &mut b).taken);
    }

    #[test]
    fn a_session_that_has_ended_is_not_taken_again() {
        let (first, mut b) = two();
        let mut second = Hub::new(1);
        say(&mut second, &mut b);
        assert!(say(&mut second, &mut b).taken);
        nothing_is_taken(&first, &mut b);
        assert!(say(&mut second, &mut b).taken);
        b.rounds(BRIDGE_CHALLENGES);
        nothing_is_taken(&first, &mut b);
    }

    #[test]
    fn two_live_hubs_with_one_id_are_noticed_once() {
        let (mut first, mut b) = two();
        let mut second = Hub::new(1);
        say(&mut second, &mut b);
        let mut noticed = 0;
        for _ in 0..5 {
            b.rounds(1);
            say(&mut b, &mut second);
            let frame = b.publish(None);
            first.receives(b.id, &frame);
            let answer = first.publish(Some(b.id));
            let judgment = b.receives(first.id, &answer);
            noticed += u32::from(judgment.twins);
            assert!(judgment.taken && say(&mut second, &mut b).taken, "which of them is right is judged by others");
        }
        assert_eq!(noticed, 1);
    }

    #[test]
    fn a_hub_that_does_not_answer_any_more_is_one_way_and_not_taken() {
        let (mut a, mut b) = two();
        let mut taken = 0;
        for _ in 0..BRIDGE_CHALLENGES + 3 {
            b.rounds(1);
            let frame = a.publish(None);
            taken += usize::from(b.receives(a.id, &frame).taken);
        }
        assert_eq!(taken, BRIDGE_CHALLENGES - 1);
        assert_eq!(b.one_way(), [a.id]);
        // It receives again.
        say(&mut b, &mut a);
        assert!(say(&mut a, &mut b).taken);
        assert!(b.one_way().is_empty());
        // A hub that has fallen silent is not one-way.
        b.rounds(20);
        assert!(b.one_way().is_empty());
    }

    #[test]
    fn hubs_that_talk_go_on_and_a_process_that_was_stopped_takes_what_has_waited() {
        let (mut a, mut b) = two();
        for _ in 0..20 {
            a.rounds(1);
            b.rounds(1);
            assert!(say(&mut a, &mut b).taken && say(&mut b, &mut a).taken);
        }
        // Of a, which goes on while b is stopped.
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                a.rounds(1);
                a.publish(None)
            })
            .collect();
        for frame in &waiting {
            assert!(b.receives(a.id, frame).taken);
        }
    }

    /// What a hub of version 2.0 publishes.
    fn plain(to: Option<HubId>, envelopes: &[Envelope]) -> (Option<HubId>, Vec<u8>) {
        let mut payload = Vec::new();
        envelopes.iter().for_each(|envelope| envelope.encode(&mut payload));
        (to, payload)
    }

    fn beat() -> Envelope {
        Envelope::Farewell(id(1), HubIncarnation(7))
    }

    /// How a hub of version 2.0 answers: it has no such life, and says so at once.
    fn answer(question: Question) -> Envelope {
        let Envelope::Routed(route, routed) = ask(question, id(1), id(2)) else { unreachable!() };
        let Routed::Takeover { peer, ticket, .. } = *routed else { unreachable!() };
        let back = Route { to: route.from, from: route.to, hops: 1, ..route };
        Envelope::Routed(back, Box::new(Routed::TakeoverAnswer { peer, ticket, in_use: false }))
    }

    #[test]
    fn a_hub_of_version_2_0_is_taken_while_it_answers_questions() {
        let (old, mut b) = (id(1), Hub::new(2));
        let everyone = plain(None, &[beat()]);
        let judgment = b.receives(old, &everyone);
        let question = judgment.ask.unwrap();
        assert!(!judgment.taken);
        let asked = (0..100).filter(|_| b.receives(old, &everyone).ask.is_some()).count();
        assert_eq!(asked, usize::from(SPARE_ANSWERS));
        b.fresh.tick();
        let question = b.receives(old, &everyone).ask.unwrap_or(question);
        let reply = plain(Some(b.id), &[beat(), answer(question)]);
        let judgment = b.receives(old, &reply);
        assert!(judgment.taken && judgment.met);
        assert!(b.receives(old, &everyone).taken);
        // It is asked again with each challenge, and taken while it answers one of the last.
        let mut taken = 0;
        for _ in 0..BRIDGE_CHALLENGES + 3 {
            b.rounds(1);
            let judgment = b.receives(old, &everyone);
            assert!(judgment.ask.is_some());
            taken += usize::from(judgment.taken);
        }
        assert_eq!(taken, BRIDGE_CHALLENGES - 1);
        assert_eq!(b.one_way(), [old]);
        // What it has answered before is no answer to what is asked now.
        let judgment = b.receives(old, &reply);
        assert!(!judgment.taken && !judgment.met);
        assert!(!Hub::new(3).receives(old, &reply).taken);
    }

    #[test]
    fn a_hub_of_version_2_0_may_answer_over_a_link() {
        let (old, mut b) = (id(1), Hub::new(2));
        let question = b.receives(old, &plain(None, &[beat()])).ask.unwrap();
        assert!(!b.fresh.answered(old, &(question.0, question.1 ^ 1)));
        assert!(!b.fresh.answered(id(3), &question));
        assert!(b.fresh.answered(old, &question));
        assert!(b.receives(old, &plain(None, &[beat()])).taken);
    }

    #[test]
    fn frames_without_stamps_are_refused_once_a_hub_sends_stamps() {
        let (old, mut b) = (id(1), Hub::new(2));
        let frame = plain(None, &[beat()]);
        let question = b.receives(old, &frame).ask.unwrap();
        let reply = plain(Some(b.id), &[answer(question)]);
        assert!(b.receives(old, &reply).taken);
        let mut new = Hub::new(1);
        say(&mut new, &mut b);
        let judgment = b.receives(old, &frame);
        assert!(!judgment.taken);
        assert!(!b.receives(old, &reply).taken);
        // It answers such questions over links, as every hub does.
        b.fresh.tick();
        let question = b.receives(old, &frame).ask.unwrap();
        assert!(!b.fresh.answered(old, &question));
        assert!(!b.receives(old, &frame).taken && say(&mut new, &mut b).taken);
    }

    #[test]
    fn state_that_other_hubs_can_grow_is_bounded() {
        let mut b = Hub::new(0);
        let mut last = Hub::new(1);
        for n in 1..=MAX_HUBS as u16 + 5 {
            last = Hub::new(n);
            let frame = last.publish(None);
            b.receives(last.id, &frame);
        }
        assert_eq!(b.fresh.hubs.len(), MAX_HUBS);
        // The answer to that challenge was lost: there is another one soon.
        last.rounds(1);
        say(&mut last, &mut b);
        assert!(say(&mut last, &mut b).taken);

        // Recorded frames of many sessions are answered a few times, and those of the present one always.
        b.fresh.tick();
        let mut answers = 0;
        for _ in 0..100 {
            let other = Hub { id: last.id, ..Hub::new(1) }.publish(None);
            answers += u8::from(b.receives(last.id, &other).answer);
        }
        assert_eq!(answers, SPARE_ANSWERS);
        last.rounds(1);
        assert!(say(&mut last, &mut b).answer);

        b.fresh.tick();
        let mut lives = 1;
        for _ in 0..2 * BRIDGE_SESSIONS {
            let mut next = Hub { id: last.id, ..Hub::new(1) };
            say(&mut next, &mut b);
            lives += usize::from(say(&mut next, &mut b).taken);
            b.fresh.hubs.get_mut(&last.id).unwrap().spare_answers = SPARE_ANSWERS;
        }
        assert_eq!((lives, b.fresh.hubs[&last.id].sessions.len()), (BRIDGE_SESSIONS, BRIDGE_SESSIONS));
        b.rounds(BRIDGE_CHALLENGES + 1);
        say(&mut last, &mut b);
        assert!(say(&mut last, &mut b).taken);
    }
}
