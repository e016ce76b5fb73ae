//! Simulates links between hubs. A link has a pipe for each direction. A link can open, transfer frames, stall and be
//! cut.

use std::collections::VecDeque;
use std::time::Duration;

use proto::envelope::{Envelope, EnvelopeKind, Heartbeat, Routed};
use proto::limits::LEASE;
use proto::{Destination, Hop, LinkId, MeetingKind, RelayInput, Transport};

use super::agenda::Event;
use super::describe::describe_envelope;
use super::trouble::Trouble;
use super::world::World;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) edge: (usize, usize),
    pub(crate) ends: [End; 2],
    /// The pipe from the first end to the second, and the pipe back.
    pub(crate) pipes: [Pipe; 2],
    pub(crate) cut: bool,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) hub: usize,
    pub(crate) life: usize,
    pub(crate) told: Told,
    /// Whether the relay knows that the pipe is full.
    full: bool,
    /// Whether the relay has more envelopes to send.
    backlog: bool,
}

/// The state of a link as a hub's relay knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Nothing,
    Up,
    Down,
}

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) frames: VecDeque<Box<[u8]>>,
    last: Duration,
    /// Time until which the other side does not read.
    pub(crate) stalled_until: Duration,
    /// Whether the pipe silently drops all data.
    pub(crate) swallows: bool,
    /// Maximum transit time of a frame, in microseconds.
    delay_us: usize,
}

impl World {
    /// The open link between two hubs, if there is one.
    pub(crate) fn link_between(&self, edge: (usize, usize)) -> Option<usize> {
        self.links.iter().rposition(|link| link.edge == edge && !link.cut)
    }

    pub(crate) fn dial(&mut self, a: usize, b: usize) {
        let both = self.hubs[a].is_up() && self.hubs[b].is_up();
        // If one of the hubs is down, it dials when it starts again.
        if !both || !self.plan.edges.contains(&(a, b)) || self.link_between((a, b)).is_some() {
            return;
        }
        match self.blocked.get(&(a, b)) {
            Some(&until) if until > self.now => {
                let at = until + self.ms(10, 1_000);
                self.agenda.put(at, Event::Dial { a, b });
            }
            _ => self.link((a, b)),
        }
    }

    /// Opens a link.
    pub(crate) fn link(&mut self, edge: (usize, usize)) {
        let end = |hub: usize| End { hub, life: self.hubs[hub].life, told: Told::Nothing, full: false, backlog: false };
        let ends = [end(edge.0), end(edge.1)];
        let pipe = |delay_us| Pipe { delay_us, ..Pipe::default() };
        let pipes = [(); 2].map(|()| pipe(self.rng.between(10, self.plan.link_us)));
        let link = self.links.len();
        self.links.push(Link { edge, ends, pipes, cut: false });
        for side in 0..2 {
            let at = self.now + self.ms(1, 60);
            self.agenda.put(at, Event::EndUp { link, side });
        }
    }

    /// The hub at this end, if the process that opened the link still runs.
    fn end(&self, link: usize, side: usize) -> Option<usize> {
        let End { hub, life, .. } = self.links[link].ends[side];
        (self.hubs[hub].life == life && self.hubs[hub].lives()).then_some(hub)
    }

    pub(crate) fn end_up(&mut self, link: usize, side: usize) {
        let Some(hub) = self.end(link, side) else { return };
        let other = &self.links[link].ends[1 - side];
        if self.links[link].cut || self.links[link].ends[side].told != Told::Nothing {
            return;
        }
        // The relay has received the hello of the other hub.
        let id = if self.hubs[other.hub].life == other.life { self.hubs[other.hub].id } else { return };
        let incarnation = self.hubs[other.hub].relay.incarnation();
        self.links[link].ends[side].told = Told::Up;
        self.tell_relay(hub, RelayInput::LinkUp { link: Self::link_id(link, side), hub: id, incarnation });
    }

    pub(crate) fn end_down(&mut self, link: usize, side: usize) {
        let Some(hub) = self.end(link, side) else { return };
        let told = std::mem::replace(&mut self.links[link].ends[side].told, Told::Down);
        self.links[link].pipes[1 - side].frames.clear();
        // The relay ignores the end of an unknown link.
        if told != Told::Down {
            self.tell_relay(hub, RelayInput::LinkDown { link: Self::link_id(link, side) });
        }
    }

    /// Makes a link drop all data from these sides while the link stays open.
    pub(crate) fn swallow(&mut self, link: usize, sides: [bool; 2]) {
        self.note(|| format!("link {link} drops everything sent by {sides:?}"));
        for (pipe, swallows) in self.links[link].pipes.iter_mut().zip(sides) {
            pipe.swallows |= swallows;
            if swallows {
                pipe.frames.clear();
            }
        }
    }

    /// Ends a link. Frames in flight are lost, and each side notices the end after a delay.
    pub(crate) fn cut(&mut self, link: usize) {
        if std::mem::replace(&mut self.links[link].cut, true) {
            return;
        }
        self.note(|| format!("link {link} is cut"));
        let slow = self.rng.one_in(6);
        for side in 0..2 {
            self.links[link].pipes[side].frames.clear();
            let at = self.now + if slow { self.ms(0, 9_000) } else { self.ms(0, 300) };
            self.agenda.put(at, Event::EndDown { link, side });
        }
        let (a, b) = self.links[link].edge;
        let at = self.now + if self.rng.one_in(2) { self.ms(0, 200) } else { self.ms(200, 4_000) };
        self.agenda.put(at, Event::Dial { a, b });
    }

    // --- outgoing envelopes ------------------------------------------------------------------------------------

    /// Whether the hub handles resume secrets as hubs of version 2.0.0 do.
    pub(crate) fn is_of_2_0_0(&self, hub: usize) -> bool {
        self.plan.old[self.hubs[hub].place]
    }

    /// Handles an envelope that a relay outputs.
    pub(crate) fn put_out(&mut self, hub: usize, to: Destination, envelope: Envelope) {
        self.note(|| format!("    h{hub} > {to:?} {}", describe_envelope(&envelope)));
        if envelope.kind() == EnvelopeKind::Hello {
            self.complain(format!("h{hub} sends an envelope that only links send"));
        }
        let envelope = if self.is_of_2_0_0(hub) { as_of_2_0_0(envelope) } else { envelope };
        for envelope in self.saboteur.envelope(envelope) {
            self.sent[envelope.kind() as usize] += 1;
            if let Envelope::Routed(_, routed) = &envelope
                && let Routed::Meeting(meeting) = &**routed
            {
                self.asked += u64::from(meeting.kind != MeetingKind::Agreed);
            }
            if let Envelope::Heartbeat(beat) = &envelope {
                self.is_as_old_as_it_says(hub, beat);
            }
            let mut bytes = Vec::new();
            envelope.encode(&mut bytes);
            match to {
                Destination::Link(id) => self.put_on_link(hub, id, envelope.kind(), bytes.into()),
                Destination::Bridged(_) | Destination::Everyone => self.publish(hub, to, envelope.kind(), &bytes),
            }
        }
    }

    /// Checks that a forwarded heartbeat does not claim to be younger than it is.
    fn is_as_old_as_it_says(&mut self, hub: usize, beat: &Heartbeat) {
        let said = *self.beats.entry((beat.hub, beat.incarnation, beat.number)).or_insert(self.now);
        let unknown = self.transit() + Duration::from_millis(300);
        let age = Duration::from_millis(u64::from(beat.age_ms));
        // Hubs cannot know how long a frame was in a stalled pipe. The age of a heartbeat that is older than a lease is
        // not checked, because such a heartbeat has no effect.
        let known = !self.plan.has(Trouble::Stall) && !self.plan.has(Trouble::Stop);
        if known && age < LEASE && age + unknown < self.now - said {
            let old = self.now - said;
            self.complain(format!("h{hub} forwards a heartbeat of age {old:?} with the age {age:?}: {beat:?}"));
        }
    }

    fn side_of(&self, hub: usize, LinkId(id): LinkId) -> Option<(usize, usize)> {
        let (link, side) = ((id / 2) as usize, (id % 2) as usize);
        let end = &self.links.get(link)?.ends[side];
        (end.hub == hub && end.life == self.hubs[hub].life && end.told == Told::Up).then_some((link, side))
    }

    fn put_on_link(&mut self, hub: usize, id: LinkId, kind: EnvelopeKind, frame: Box<[u8]>) {
        let Some((link, side)) = self.side_of(hub, id) else {
            return self.complain(format!("h{hub} sends {} on {id:?}, which is not up", kind.label()));
        };
        if self.links[link].ends[side].full && is_bulk(kind) {
            return self.complain(format!("h{hub} sends {} on {id:?}, which is full", kind.label()));
        }
        if self.links[link].cut || self.end(link, 1 - side).is_none() || self.links[link].pipes[side].swallows {
            return;
        }
        let delay = self.up_to(self.links[link].pipes[side].delay_us);
        let pipe = &mut self.links[link].pipes[side];
        pipe.last = pipe.last.max(self.now + delay);
        pipe.frames.push_back(frame);
        let (at, full) = (pipe.last, pipe.frames.len() > self.plan.high);
        self.agenda.put(at, Event::Frame { link, side: 1 - side });
        if full && !self.links[link].ends[side].full {
            self.agenda.put(self.now, Event::Pressure { link, side });
        }
    }

    pub(crate) fn link_backlog(&mut self, hub: usize, id: LinkId) {
        let Some((link, side)) = self.side_of(hub, id) else {
            return self.complain(format!("h{hub} has a backlog for {id:?}, which is not up"));
        };
        self.links[link].ends[side].backlog = true;
        let at = self.now + self.up_to(5_000);
        self.agenda.put(at, Event::Pressure { link, side });
    }

    pub(crate) fn pressure(&mut self, link: usize, side: usize) {
        let Some(hub) = self.end(link, side) else { return };
        let waiting = self.links[link].pipes[side].frames.len();
        let (high, low) = (self.plan.high, self.plan.low);
        let end = &mut self.links[link].ends[side];
        let transport = Transport::Link(Self::link_id(link, side));
        if end.told != Told::Up {
            return;
        }
        if waiting > high && !end.full {
            end.full = true;
            self.tell_relay(hub, RelayInput::Saturated { transport });
        } else if waiting <= low && (end.full || end.backlog) {
            (end.full, end.backlog) = (false, false);
            self.tell_relay(hub, RelayInput::Room { transport });
        }
    }

    // --- incoming envelopes ------------------------------------------------------------------------------------

    pub(crate) fn frame(&mut self, link: usize, side: usize) {
        let Some(hub) = self.end(link, side) else { return };
        let pipe = &mut self.links[link].pipes[1 - side];
        if pipe.stalled_until > self.now {
            let at = pipe.stalled_until;
            return self.agenda.put(at, Event::Frame { link, side });
        }
        if pipe.frames.is_empty() {
            return;
        }
        match self.links[link].ends[side].told {
            Told::Down => return,
            Told::Nothing if self.links[link].cut => return,
            Told::Nothing => {
                let at = self.now + Duration::from_millis(5);
                return self.agenda.put(at, Event::Frame { link, side });
            }
            Told::Up => {}
        }
        let Some(frame) = self.links[link].pipes[1 - side].frames.pop_front() else { return };
        if self.links[link].pipes[1 - side].frames.len() == self.plan.low {
            let at = self.now + self.up_to(2_000);
            self.agenda.put(at, Event::Pressure { link, side: 1 - side });
        }
        self.receive(hub, Hop::Link(Self::link_id(link, side)), &frame);
    }

    pub(crate) fn receive(&mut self, hub: usize, via: Hop, frame: &[u8]) {
        let mut rest = frame;
        loop {
            match Envelope::decode(&mut rest) {
                Ok(Some(envelope)) => {
                    let envelope = if self.is_of_2_0_0(hub) { as_of_2_0_0(envelope) } else { envelope };
                    self.tell_relay(hub, RelayInput::Received { via, envelope });
                }
                Ok(None) => return,
                Err(malformed) => {
                    return self.complain(format!("h{hub} cannot decode an envelope from {via:?}: {malformed}"));
                }
            }
        }
    }
}

/// Removes the fields that hubs of version 2.0.0 do not know. A hub of version 2.0.0 does not send, read or forward
/// these fields.
fn as_of_2_0_0(mut envelope: Envelope) -> Envelope {
    if let Envelope::Routed(_, routed) = &mut envelope
        && let Routed::Takeover { resume, owner, .. } = &mut **routed
    {
        (*resume, *owner) = (None, false);
    }
    envelope
}

/// Whether an envelope of this kind must not be sent over a full link or bridge.
pub(crate) fn is_bulk(kind: EnvelopeKind) -> bool {
    use EnvelopeKind::{Change, Meeting, Signal, Snapshot};
    matches!(kind, Change | Meeting | Signal | Snapshot)
}
