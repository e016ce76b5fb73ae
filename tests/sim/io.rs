//! Simulates the environment of the routers: sockets, mailboxes and timers. The events of this environment come in any
//! order that `proto`'s contract allows.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proto::{
    CloseReason, Frame, Input, Lineage, Now, Origin, OutcomeLetter, Output, PeerEvent, PeerId, Router, Sender,
    SessionId, SignalLetter, Template, ToShard, limits,
};

use crate::heard::{self, Heard};
use crate::mailbox::Mailbox;
use crate::oracle::{Fate, Net, Sid};
use crate::saboteur::Fault;
use crate::world::World;

/// One shard: its router and its sockets.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) router: Router,
    pub(crate) slots: Vec<Option<Socket>>,
    /// Inputs that the router gets when all outputs of the current input are done.
    followups: VecDeque<Followup>,
}

#[derive(Debug)]
enum Followup {
    Closed(Sid, CloseReason),
    /// The router has more work than fits into one turn.
    Continue,
    /// The check of a session's new token is complete.
    Checked(Sid),
    Undelivered(Signalled, PeerId, CloseReason),
}

/// Both ends of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) sid: Sid,
    pub(crate) peer: PeerId,
    pub(crate) phase: Phase,
    /// Frames from the hub that the socket has not accepted.
    pub(crate) queue: VecDeque<Queued>,
    /// Messages of the client that the hub has not read.
    pub(crate) uplink: VecDeque<Up>,
    pub(crate) backlog: bool,
    /// Whether the client does not read.
    pub(crate) deaf: bool,
    /// Whether the client answers pings.
    pub(crate) answers: bool,
    pub(crate) linger_until: Option<Duration>,
    pub(crate) sayings: usize,
    pub(crate) forgotten: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Pending,
    Open,
    /// The session drains, but its messages are still read.
    Retiring,
    /// The session has ended, but its queue may still be written.
    Closing(CloseReason),
}

#[derive(Clone, Debug)]
pub(crate) enum Queued {
    Frame { heard: Rc<Heard>, epoch: u64, signal: Option<Signalled> },
    Ping([u8; 8]),
}

/// A signal in a queue: its origin and its number among the signals of the run.
#[derive(Clone, Debug)]
pub(crate) struct Signalled {
    origin: Origin,
    number: usize,
}

/// A message, a pong or a close that a client has sent.
#[derive(Debug)]
pub(crate) enum Up {
    Announce { text: String, net: Net, version: u64, valid: bool },
    Close,
    Goodbye { text: String, only: Option<Option<Net>>, valid: bool },
    NotText,
    Other(String),
    Pong(Vec<u8>),
    Signal { text: String, number: usize },
    TooLarge,
}

/// Letters in flight from one shard to another, each with the event that it reports.
#[derive(Debug, Default)]
pub(crate) struct Post {
    letters: Mailbox<ToShard>,
    news: VecDeque<News>,
}

impl Post {
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

#[derive(Clone, Copy, Debug)]
enum News {
    Joined { net: Net, peer: PeerId, version: u64 },
    Left { net: Net, peer: PeerId, how: Option<CloseReason> },
    Outcome,
    Signal(usize),
}

/// The announcement or signal that an input contains.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cause {
    pub(crate) version: u64,
    pub(crate) signal: usize,
}

impl Shard {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, slots: Vec::new(), followups: VecDeque::new() }
    }
}

impl World {
    pub(crate) fn time(&self) -> Now {
        Now { at: self.now, wall_ms: 1_700_000_000_000 + self.now.as_millis() as u64 }
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>10.3} {}", self.now.as_secs_f64(), what());
        }
    }

    pub(crate) fn socket(&mut self, sid: Sid) -> Option<&mut Socket> {
        let slot = self.shards[usize::from(sid.shard)].slots.get_mut(sid.session.slot as usize)?;
        slot.as_mut().filter(|socket| socket.sid == sid)
    }

    /// Gives a router one input, performs its outputs, and gives it the resulting inputs.
    pub(crate) fn input(&mut self, shard: u16, input: Input<'_>, cause: Cause) {
        self.feed(shard, input, cause);
        self.follow_up(shard);
    }

    fn follow_up(&mut self, shard: u16) {
        while let Some(followup) = self.shards[usize::from(shard)].followups.pop_front() {
            match followup {
                Followup::Continue if self.saboteur.strikes(Fault::LosesContinue) => {
                    self.oracle.carried_out(shard, self.plan.config.tuning.roster_chunk);
                }
                Followup::Continue => self.feed(shard, Input::Continue, Cause::default()),
                Followup::Checked(sid) => self.checked(sid),
                Followup::Closed(sid, reason) => {
                    self.oracle.ended(sid, reason);
                    self.feed(shard, Input::Closed { session: sid.session, reason }, Cause::default());
                }
                Followup::Undelivered(Signalled { origin, number }, target, reason) => {
                    self.oracle.signals.settled(number, Fate::Undelivered(reason));
                    self.feed(shard, Input::Undelivered { origin, target, reason }, Cause::default());
                }
            }
        }
    }

    /// Completes the check of a session's new token. The token is refused, or is accepted with other rights.
    fn checked(&mut self, sid: Sid) {
        let rights = (!self.rng.one_in(3)).then(|| self.rights());
        let grant = rights.as_ref().map(|rights| self.grant(rights)).ok_or("the token is bad: send another one");
        if let Some(rights) = rights {
            self.oracle.renews(sid, rights);
        }
        self.feed(sid.shard, Input::Authorized { session: sid.session, grant }, Cause::default());
    }

    fn feed(&mut self, shard: u16, input: Input<'_>, cause: Cause) {
        self.note(|| format!("s{shard} {}", describe(&input)));
        let now = self.time();
        self.shards[usize::from(shard)].router.handle_input(input, now);
        self.carry_out(shard, cause);
    }

    pub(crate) fn timeout(&mut self, shard: u16) {
        self.note(|| format!("s{shard} timeout"));
        let now = self.time();
        self.shards[usize::from(shard)].router.handle_timeout(now);
        self.carry_out(shard, Cause::default());
        self.follow_up(shard);
    }

    fn carry_out(&mut self, shard: u16, cause: Cause) {
        let mut welcomed = Vec::new();
        while let Some(output) = self.shards[usize::from(shard)].router.poll_output() {
            let sid = |session: SessionId| Sid { shard, session };
            match output {
                Output::Send { session, frame, origin, .. } => {
                    self.send(sid(session), &frame, origin, &mut welcomed);
                }
                Output::Ping { session, payload } => {
                    self.note(|| format!("    {session:?} is asked"));
                    self.oracle.asked(sid(session), payload);
                    if let Some(socket) = self.socket(sid(session)) {
                        socket.queue.push_back(Queued::Ping(payload));
                    }
                }
                Output::Admit { session } => {
                    self.note(|| format!("    {session:?} is admitted"));
                    self.oracle.admitted(sid(session));
                    if let Some(socket) = self.socket(sid(session)) {
                        socket.phase = Phase::Open;
                    }
                }
                Output::Backlog { session, more } => {
                    self.oracle.backlog(sid(session), more);
                    if let Some(socket) = self.socket(sid(session)) {
                        socket.backlog = more;
                    }
                }
                Output::Close { session, reason } => self.close(sid(session), reason),
                Output::ToShard { to, letter } => {
                    let news = self.news(&letter, cause);
                    let at = self.mailbox(shard, to.0);
                    self.mail[at].letters.push(letter);
                    self.mail[at].news.push_back(news);
                }
                Output::Authorize { session, .. } => {
                    self.shards[usize::from(shard)].followups.push_back(Followup::Checked(sid(session)));
                }
                Output::ToMesh(_) => self.oracle.complain("a hub without a mesh sends a letter to the mesh".to_owned()),
                Output::Event(PeerEvent::Announced { peer, network, .. }) => {
                    self.oracle.event_announced(peer, network.as_str());
                }
                Output::Acted(_) | Output::Event(PeerEvent::TakeoverAsked { .. }) => {}
                Output::Bug(note) => self.oracle.complain(format!("{note:?}")),
                Output::Unfinished => {
                    // The next slice of the work follows at once. The oracle checks the outputs when no slice is left.
                    self.shards[usize::from(shard)].followups.push_front(Followup::Continue);
                }
            }
        }
        self.shards[usize::from(shard)].router.audit();
        for (sid, peer, lineage) in welcomed {
            self.oracle.welcomed(sid, &peer, lineage);
        }
        if !matches!(self.shards[usize::from(shard)].followups.front(), Some(Followup::Continue)) {
            self.oracle.carried_out(shard, self.plan.config.tuning.roster_chunk);
        }
    }

    fn news(&mut self, letter: &ToShard, cause: Cause) -> News {
        match letter {
            ToShard::Joined(announcement) => News::Joined {
                net: self.net(announcement.network.as_str()),
                peer: announcement.peer,
                version: cause.version,
            },
            ToShard::Left(leave) => {
                let (net, peer) = (self.net(leave.network.as_str()), leave.peer);
                News::Left { net, peer, how: self.oracle.how_left(net, peer) }
            }
            ToShard::Signal(_) => {
                self.oracle.signals.posted(cause.signal);
                News::Signal(cause.signal)
            }
            ToShard::Outcome(_) => News::Outcome,
            ToShard::Challenge { .. }
            | ToShard::Elsewhere { .. }
            | ToShard::Meeting(_)
            | ToShard::Nowhere { .. }
            | ToShard::Renamed { .. }
            | ToShard::TakeoverAnswered { .. } => unreachable!("this hub has no mesh: {letter:?}"),
        }
    }

    fn net(&self, network: &str) -> Net {
        self.plan.networks.iter().position(|&name| name == network).unwrap_or(Net::MAX)
    }

    fn mailbox(&self, from: u16, to: u16) -> usize {
        usize::from(from) * self.shards.len() + usize::from(to)
    }

    /// Delivers the first letter of a mailbox.
    pub(crate) fn deliver(&mut self, mailbox: usize) {
        let Post { letters, news } = &mut self.mail[mailbox];
        let (letter, news) = match (letters.pop(), news.pop_front()) {
            (Some(letter), Some(news)) => (letter, news),
            (None, None) => return,
            (letter, news) => panic!("letters-lost: {letter:?} arrives, and {news:?} was posted"),
        };
        let (from, to) = ((mailbox / self.shards.len()) as u16, (mailbox % self.shards.len()) as u16);
        match news {
            News::Joined { net, peer, version } => self.oracle.joined(to, net, peer, version),
            News::Left { net, peer, how } => self.oracle.left(to, net, peer, how),
            News::Outcome => {}
            News::Signal(number) => self.oracle.signal_judged(number),
        }
        let arrives = self.saboteur.deliver(from, to, letter);
        if arrives.is_empty() {
            self.oracle.carried_out(to, self.plan.config.tuning.roster_chunk);
        }
        for letter in arrives {
            self.input(to, Input::Letter(letter), Cause::default());
        }
    }

    // --- sockets -----------------------------------------------------------------------------------------------

    fn send(
        &mut self,
        sid: Sid,
        frame: &Frame,
        origin: Option<Origin>,
        welcomed: &mut Vec<(Sid, PeerId, Option<Lineage>)>,
    ) {
        let Some(peer) = self.socket(sid).map(|socket| socket.peer) else {
            return self.oracle.complain(format!("{sid:?} has no socket"));
        };
        let heard = match self.read_frame(sid, frame, &peer) {
            Ok(heard) => heard,
            Err(wrong) => return self.oracle.complain(format!("{sid:?} receives {wrong}")),
        };
        self.note(|| format!("    {} < {heard:?}", name(sid)));
        if let Heard::Connected { peer, secret } = &*heard {
            let lineage = self.plan.config.resume_keys.check(peer, secret);
            welcomed.push((sid, *peer, lineage.ok()));
            self.secrets.entry(*peer).or_default().push(secret.clone());
        }
        let epoch = self.oracle.said(sid, &heard);
        let signal = match (&*heard, origin) {
            (Heard::Signal { number, .. }, Some(origin)) => Some(Signalled { origin, number: *number }),
            (Heard::Signal { .. }, None) | (_, Some(_)) => {
                return self
                    .oracle
                    .complain(format!("{sid:?}: a signal has no origin, or another message has one: {heard:?}"));
            }
            (_, None) => None,
        };
        let most = self.plan.queue_frames;
        let Some(socket) = self.socket(sid) else { return };
        if let Phase::Closing(reason) = socket.phase {
            if let Some(signal) = signal {
                self.shards[usize::from(sid.shard)].followups.push_back(Followup::Undelivered(signal, peer, reason));
            }
            return;
        }
        socket.queue.push_back(Queued::Frame { heard, epoch, signal });
        if socket.queue.len() > most {
            self.cut_slow_consumer(sid);
        }
    }

    fn read_frame(&mut self, sid: Sid, frame: &Frame, peer: &PeerId) -> Result<Rc<Heard>, String> {
        let router = &self.shards[usize::from(sid.shard)].router;
        let parse = |bytes: &[u8]| heard::read(crate::transcript::payload(bytes), peer).map(Rc::new);
        match frame {
            Frame::Arena(range) => parse(&router.arena()[range.clone()]),
            Frame::Owned(bytes) => parse(bytes),
            Frame::Template(template) => {
                // Each template is parsed for its first recipient. Of all frames made from templates, one in 16 is
                // parsed again, to check that templates are filled in correctly for each recipient.
                let key = Arc::as_ptr(template) as usize;
                self.templates_sent += 1;
                if let Some((_, heard)) = self.templates.get(&key)
                    && !self.templates_sent.is_multiple_of(16)
                {
                    return Ok(Rc::clone(heard));
                }
                let mut bytes = Vec::with_capacity(template.frame_len());
                Template::write_to(template, &mut bytes, peer, self.time().wall_ms);
                if bytes.len() != template.frame_len() {
                    return Err("a frame with a wrong length".to_owned());
                }
                let heard = parse(&bytes)?;
                self.templates.insert(key, (Arc::clone(template), Rc::clone(&heard)));
                Ok(heard)
            }
        }
    }

    fn cut_slow_consumer(&mut self, sid: Sid) {
        let reason = CloseReason::SlowConsumer;
        let Some(socket) = self.socket(sid) else { return };
        let closing = matches!(socket.phase, Phase::Closing(_));
        socket.phase = Phase::Closing(reason);
        let peer = socket.peer;
        let queue = std::mem::take(&mut socket.queue);
        let followups = &mut self.shards[usize::from(sid.shard)].followups;
        for queued in queue {
            if let Queued::Frame { signal: Some(signal), .. } = queued {
                followups.push_back(Followup::Undelivered(signal, peer, reason));
            }
        }
        if !closing {
            followups.push_back(Followup::Closed(sid, reason));
        }
    }

    /// Closes a session, as the router requested.
    fn close(&mut self, sid: Sid, reason: CloseReason) {
        self.note(|| format!("    {} is closed {reason:?}", name(sid)));
        self.oracle.closes(sid, reason);
        let linger_until = self.now + limits::CLOSE_LINGER;
        let Some(socket) = self.socket(sid) else {
            return self.oracle.complain(format!("{sid:?} is closed, and has no socket"));
        };
        match socket.phase {
            Phase::Closing(_) => {}
            Phase::Pending | Phase::Open | Phase::Retiring if reason.routes_messages_in_flight() => {
                socket.phase = Phase::Retiring;
            }
            Phase::Pending | Phase::Open | Phase::Retiring => {
                socket.phase = Phase::Closing(reason);
                socket.backlog = false;
            }
        }
        socket.linger_until = Some(linger_until);
    }

    /// Ends a connection, and notifies the router.
    pub(crate) fn end(&mut self, sid: Sid, reason: CloseReason) {
        let linger_until = self.now + limits::CLOSE_LINGER;
        let Some(socket) = self.socket(sid) else { return };
        if matches!(socket.phase, Phase::Closing(_)) {
            return;
        }
        socket.phase = Phase::Closing(reason);
        socket.backlog = false;
        socket.linger_until = Some(linger_until);
        if self.saboteur.strikes(Fault::LosesClosed) {
            return self.oracle.ended(sid, reason);
        }
        self.oracle.ended(sid, reason);
        self.input(sid.shard, Input::Closed { session: sid.session, reason }, Cause::default());
    }

    /// Removes a socket. The unwritten signals of the socket return to the router.
    pub(crate) fn remove(&mut self, sid: Sid) {
        let slot = &mut self.shards[usize::from(sid.shard)].slots[sid.session.slot as usize];
        let Some(socket) = slot.take_if(|socket| socket.sid == sid) else { return };
        let Phase::Closing(reason) = socket.phase else { return };
        for queued in socket.queue {
            if let Queued::Frame { signal: Some(Signalled { origin, number }), .. } = queued {
                self.oracle.signals.settled(number, Fate::Undelivered(reason));
                let input = Input::Undelivered { origin, target: socket.peer, reason };
                self.input(sid.shard, input, Cause::default());
            }
        }
    }

    /// Lets the socket accept the next frame. Returns false if there is none.
    pub(crate) fn write(&mut self, sid: Sid) -> bool {
        let loses = self.saboteur.strikes(Fault::LosesFrame);
        let swaps = self.saboteur.strikes(Fault::SwapsFrames);
        let wrong = self.rng.one_in(8);
        let Some(socket) = self.socket(sid) else { return false };
        if swaps && socket.queue.len() > 1 {
            socket.queue.swap(0, 1);
        }
        let Some(queued) = socket.queue.pop_front() else { return false };
        match queued {
            Queued::Ping(payload) => {
                if socket.answers {
                    let mut payload = payload.to_vec();
                    if wrong {
                        payload.pop();
                    }
                    socket.uplink.push_back(Up::Pong(payload));
                }
            }
            Queued::Frame { heard, epoch, signal } => {
                let target = socket.peer;
                if !loses {
                    self.oracle.heard(sid, &heard, epoch);
                }
                if self.saboteur.strikes(Fault::RepeatsFrame) {
                    self.oracle.heard(sid, &heard, epoch);
                }
                if let Some(Signalled { mut origin, number }) = signal {
                    self.oracle.signals.settled(number, Fate::Delivered);
                    if let Sender::Session { ticket: Some(ticket), .. } = &mut origin.sender
                        && self.saboteur.strikes(Fault::MistakesReceipt)
                    {
                        *ticket = ticket.saturating_add(1_000_000);
                    }
                    let again = self.saboteur.strikes(Fault::RepeatsDelivered).then(|| origin.clone());
                    if !self.saboteur.strikes(Fault::SwallowsDelivered) {
                        self.input(sid.shard, Input::Delivered { origin, target }, Cause::default());
                    }
                    if let Some(origin) = again {
                        self.input(sid.shard, Input::Delivered { origin, target }, Cause::default());
                    }
                }
            }
        }
        true
    }

    /// Notifies the router that a session's queue has room for more of the roster.
    pub(crate) fn room(&mut self, sid: Sid) {
        let forgets = self.saboteur.strikes(Fault::ForgetsRoom);
        if let Some(socket) = self.socket(sid) {
            socket.forgotten |= forgets;
            if !socket.forgotten {
                self.oracle.has_room(sid);
                self.input(sid.shard, Input::Room { session: sid.session }, Cause::default());
            }
        }
    }

    /// Lets the hub read the client's next item. Returns false if there is none.
    pub(crate) fn read(&mut self, sid: Sid) -> bool {
        let Some(socket) = self.socket(sid) else { return false };
        let retiring = socket.phase == Phase::Retiring;
        let Some(up) = socket.uplink.pop_front() else { return false };
        let (shard, session) = (sid.shard, sid.session);
        match up {
            Up::Announce { text, net, version, valid } => {
                if valid {
                    self.oracle.announces(sid, net, version);
                }
                self.input(shard, Input::Message { session, text: &text }, Cause { version, ..Cause::default() });
            }
            Up::Close => self.end(sid, if retiring { CloseReason::Draining } else { CloseReason::ClientClosed }),
            Up::Goodbye { text, only, valid } => {
                if valid {
                    self.oracle.says_goodbye(sid, only);
                }
                self.input(shard, Input::Message { session, text: &text }, Cause::default());
            }
            Up::NotText => self.input(shard, Input::NotText { session }, Cause::default()),
            Up::Other(text) => self.input(shard, Input::Message { session, text: &text }, Cause::default()),
            Up::Pong(payload) => {
                self.oracle.ponged(sid, &payload);
                self.input(shard, Input::Pong { session, payload: &payload }, Cause::default());
            }
            Up::Signal { text, number } => {
                let wall_ms = self.time().wall_ms;
                let travels = self.oracle.signal_read(number, sid, wall_ms);
                if travels && self.home(&self.oracle.signals.target(number)) == shard {
                    self.oracle.signal_judged(number);
                }
                let cause = Cause { signal: number, ..Cause::default() };
                self.input(shard, Input::Message { session, text: &text }, cause);
            }
            Up::TooLarge => {
                self.oracle.says_too_much();
                self.input(shard, Input::TooLarge { session }, Cause::default());
            }
        }
        true
    }
}

fn describe(input: &Input<'_>) -> String {
    match input {
        Input::Delivered { origin, target } => format!("Delivered {target:?} {:?}", origin.sender),
        Input::Undelivered { origin, target, reason } => {
            format!("Undelivered {target:?} {:?} {reason:?}", origin.sender)
        }
        Input::Letter(ToShard::Joined(a)) => format!("Joined {:?} {}", a.peer, a.network),
        Input::Letter(ToShard::Left(f)) => format!("Left {:?} {} {:?}", f.peer, f.network, f.kind),
        Input::Letter(ToShard::Signal(SignalLetter { from, target, .. })) => format!("Signal {from:?} to {target:?}"),
        Input::Letter(ToShard::Outcome(OutcomeLetter { origin, outcome, .. })) => {
            format!("Outcome {:?} {outcome:?}", origin.sender)
        }
        Input::Letter(letter) => format!("{letter:?}"),
        Input::Authorized { .. }
        | Input::Closed { .. }
        | Input::Continue
        | Input::GoAway { .. }
        | Input::Message { .. }
        | Input::NotText { .. }
        | Input::Opened { .. }
        | Input::Order(_)
        | Input::AskedOn { .. }
        | Input::Pong { .. }
        | Input::RenewIce { .. }
        | Input::Retire { .. }
        | Input::Room { .. }
        | Input::TooLarge { .. } => format!("{input:?}"),
    }
}

fn name(sid: Sid) -> String {
    format!("{}:{}.{}", sid.shard, sid.session.slot, sid.session.generation)
}
