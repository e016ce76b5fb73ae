//! The start of a link. The dialer sends its hello, the acceptor answers, and the dialer confirms.

use proto::envelope::{Hello, VERSION};
use proto::limits::LINK_SILENCE;
use proto::ws::Opcode;
use proto::{Envelope, HubId, LinkId, Now, RelayInput, bug};
use tracing::info;

use super::Core;
use crate::choice::{self, Choice, Own, Present};
use crate::link::Phase;
use crate::stats::LinkEnd;

impl Core {
    pub(super) fn begin(&mut self, id: LinkId, now: Now) {
        let Some(link) = self.links.get(&id) else { return bug!(self.bugs, LinkMissing, "{id:?} begins") };
        let (dialed, legacy, hub) = (link.dialed(), link.legacy, link.hub);
        match (legacy, hub) {
            (true, Some(hub)) => {
                // If a Go hub has two accepted links, the older one is dead: otherwise the hub would not have dialed
                // again.
                let older = (!dialed).then(|| self.present(hub, id, true)).flatten();
                if let Some(older) = older.filter(|older| !older.dialed) {
                    self.close(older.link, LinkEnd::Double, now);
                }
                self.make_ready(id, hub, now);
            }
            // A legacy link must have an id from the start. The id comes from the Go hub's request, or is made from the
            // dialed URL.
            (true, None) => self.close(id, LinkEnd::WrongHub, now),
            (false, _) if dialed => self.say_hello(id, now),
            (false, _) => {}
        }
    }

    fn own_hello(&self) -> Hello {
        let (version, hub, incarnation) = (VERSION, self.own, self.relay.incarnation());
        let (namespace, process) = (self.namespace.clone(), self.relay.process());
        Hello { version, hub, incarnation, namespace, discovery: self.discovery, process }
    }

    fn say_hello(&mut self, id: LinkId, now: Now) {
        let hello = Envelope::Hello(Box::new(self.own_hello()));
        self.push(id, now, |queue| queue.push(|out| hello.encode(out)));
    }

    /// Processes the other side's first envelope.
    pub(super) fn greeted(&mut self, id: LinkId, envelope: Envelope, now: Now) {
        let Envelope::Hello(hello) = envelope else {
            return self.malformed(id, "the first envelope is not a hello", now);
        };
        let Some(link) = self.links.get_mut(&id) else { return bug!(self.bugs, LinkMissing, "hello on {id:?}") };
        (link.incarnation, link.process) = (hello.incarnation, hello.process);
        let said = link.hub.replace(hello.hub);
        let dialed = link.dialed();
        let (namespace, discovery) = (self.namespace.as_str(), self.discovery);
        let (incarnation, process) = (self.relay.incarnation(), self.relay.process());
        let own = Own { hub: self.own, incarnation, process, namespace, discovery };
        let verdict = choice::greet(own, &hello, said.filter(|_| !dialed));
        if let Some((target, _)) = link.target.as_ref().filter(|_| verdict.is_ok()) {
            self.targets.met(target, hello.hub);
        }
        match verdict {
            Err(end @ (LinkEnd::SelfLink | LinkEnd::SameId)) => {
                let (incarnation, process) = (hello.incarnation, hello.process);
                if dialed {
                    self.close(id, end, now);
                } else {
                    // The acceptor sends its hello before the link ends. From this hello, the dialer notices that it
                    // has dialed itself or another hub with its id.
                    self.say_hello(id, now);
                    self.await_confirmation(id, hello, now);
                }
                if end == LinkEnd::SameId {
                    self.input(RelayInput::Namesake { incarnation, process }, now);
                }
            }
            Err(end) => self.close(id, end, now),
            Ok(()) if dialed => match self.decided(id, &hello) {
                Choice::Refuse(end) => self.close(id, end, now),
                Choice::Take => self.go_on(id, hello.hub, now),
                Choice::Replace(other) => {
                    self.go_on(id, hello.hub, now);
                    self.retire(other, LinkEnd::Double, now);
                }
            },
            Ok(()) => {
                self.say_hello(id, now);
                self.await_confirmation(id, hello, now);
            }
        }
    }

    /// Waits until the dialer confirms.
    fn await_confirmation(&mut self, id: LinkId, hello: Box<Hello>, now: Now) {
        // Expected: the hello may have filled the queue of a socket that accepts nothing, which ends the link.
        let Some(link) = self.links.get_mut(&id) else { return };
        link.advance(Phase::Answered(hello), id, now.at, &mut self.bugs);
    }

    fn go_on(&mut self, id: LinkId, hub: HubId, now: Now) {
        self.push(id, now, |queue| queue.message(Opcode::Binary, &[]));
        self.make_ready(id, hub, now);
    }

    /// Processes the dialer's confirmation.
    pub(super) fn agreed(&mut self, id: LinkId, hello: &Hello, now: Now) {
        match self.decided(id, hello) {
            Choice::Refuse(end) => self.close(id, end, now),
            Choice::Take => self.make_ready(id, hello.hub, now),
            Choice::Replace(other) => {
                self.make_ready(id, hello.hub, now);
                self.retire(other, LinkEnd::Double, now);
            }
        }
    }

    fn decided(&mut self, id: LinkId, hello: &Hello) -> Choice {
        let Some(link) = self.links.get(&id) else {
            bug!(self.bugs, LinkMissing, "a choice about {id:?}");
            return Choice::Refuse(LinkEnd::Lost);
        };
        choice::decide(self.own, hello, link.dialed(), self.present(hello.hub, id, link.legacy))
    }

    /// A link in use to the same hub, other than the link `besides`. `legacy` says whether `besides` is a legacy link.
    /// Only links of the same kind count.
    fn present(&self, hub: HubId, besides: LinkId, legacy: bool) -> Option<Present> {
        let ready = self.links.iter().filter(|(id, link)| **id != besides && link.is_ready() && link.hub == Some(hub));
        // The id of a Go hub proves nothing, since a Go hub may send another hub's id.
        let mut ready = ready.filter(|(_, link)| link.legacy == legacy);
        let now = self.now().at;
        ready.next().map(|(id, link)| Present {
            link: *id,
            dialed: link.dialed(),
            incarnation: link.incarnation,
            process: link.process,
            is_heard: now.saturating_sub(link.last_heard) < LINK_SILENCE,
        })
    }

    fn make_ready(&mut self, id: LinkId, hub: HubId, now: Now) {
        // Expected: the last envelope may have filled the queue, which ends the link.
        let Some(link) = self.links.get_mut(&id) else { return };
        link.advance(Phase::Ready, id, now.at, &mut self.bugs);
        if link.legacy {
            // The first ping is sent at the next tick. When the pong arrives, this hub has read the Go hub's first
            // announcements.
            link.next_ping = now.at;
        }
        let (legacy, dialed, address, incarnation) = (link.legacy, link.dialed(), link.address, link.incarnation);
        let auth = link.auth.label();
        if let Some((target, _)) = &link.target {
            self.targets.met(target, hub);
            self.targets.ready(target);
        }
        self.stats.opened += 1;
        self.complaints.remove(&hub);
        let trace_id = self.links.get(&id).and_then(|link| link.trace).map(|link| tracing::field::display(link.trace));
        info!(%hub, %address, dialed, legacy, auth, trace_id, "link_up");
        self.trace_ready(id, now);
        let up = if legacy {
            RelayInput::LegacyUp { link: id, hub, dialed }
        } else {
            RelayInput::LinkUp { link: id, hub, incarnation }
        };
        self.input(up, now);
    }
}
