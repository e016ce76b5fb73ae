//! Compares the router's outputs with the outputs that the oracle expects.

use std::collections::BTreeMap;

use proto::{CloseReason, Lineage, PeerId, ResumeOutcome, limits};

use super::{Client, Net, Opened, Oracle, Sid, View, Waiting, on_shard};
use crate::heard::Heard;

impl Oracle {
    pub(crate) fn asked(&mut self, sid: Sid, payload: [u8; 8]) {
        if let Some(Opened { sid: newcomer, peer, resume, owner, ref granted, at_once: false, first: true, .. }) =
            self.due.opened
            && self.live.get(&peer) == Some(&sid)
            && !self.waiting.contains_key(&peer)
        {
            let question = Some(payload);
            let (since, granted) = (self.now, granted.clone());
            let waiting = Waiting { sid: newcomer, since, question, answered: false, resume, owner, granted };
            self.waiting.insert(peer, waiting);
        } else {
            self.complain(format!("{sid:?} was pinged without a reason"));
        }
    }

    pub(crate) fn admitted(&mut self, sid: Sid) {
        let waited = self.waiting.iter().find(|(_, waiting)| waiting.sid == sid);
        let waited = waited.map(|(peer, w)| (*peer, w.resume, w.owner, w.granted.clone()));
        let (peer, resume, owner, granted) = match (waited, self.due.opened.clone()) {
            (Some(waited), _) => waited,
            (None, Some(Opened { sid: opened, peer, seat: true, resume, owner, granted, .. })) if opened == sid => {
                self.resumes[ResumeOutcome::Continued as usize] += u64::from(resume.is_some());
                (peer, resume, owner, granted)
            }
            _ => return self.complain(format!("{sid:?} was admitted against the rules")),
        };
        self.waiting.remove(&peer);
        if self.live.insert(peer, sid).is_some() {
            self.complain(format!("{sid:?} was admitted while another session had its id"));
        }
        let client = Client {
            peer,
            began: self.now,
            resume,
            owner,
            granted,
            lineage: None,
            retiring: false,
            connected: false,
            reading: false,
            views: BTreeMap::new(),
        };
        self.sessions.insert(sid, client);
    }

    pub(crate) fn closes(&mut self, sid: Sid, reason: CloseReason) {
        let opened = self.due.opened.clone().filter(|opened| opened.sid == sid);
        let waiting = self.waiting.iter().find(|(_, w)| w.sid == sid);
        let waited = waiting.map(|(peer, w)| (*peer, w.answered));
        let waits = waiting.and_then(|(_, waiting)| waiting.granted.clone());
        let peer = self.sessions.get(&sid).map(|client| client.peer);
        let newcomer = self.due.opened.clone();
        let resumed = |peer: PeerId| newcomer.as_ref().is_some_and(|o| o.peer == peer && o.at_once);
        let outranked = |peer: PeerId| newcomer.as_ref().is_some_and(|o| o.peer == peer && (o.at_once || o.first));
        let at_once = reason == CloseReason::Replaced && peer.is_some_and(resumed);
        let granted = self.sessions.get(&sid).and_then(|client| client.granted.as_ref()).or(waits.as_ref());
        let ends = granted.and_then(|granted| granted.ends);
        let right = match reason {
            CloseReason::TokenExpired => ends.is_some_and(|ends| ends <= self.now),
            CloseReason::IdInUse => match (&opened, waited) {
                (Some(opened), _) => !opened.at_once && !opened.first,
                (None, Some((peer, answered))) => answered || outranked(peer),
                (None, None) => false,
            },
            CloseReason::Replaced if at_once => true,
            CloseReason::Replaced => peer
                .and_then(|peer| self.waiting.get(&peer))
                .is_some_and(|waiting| !waiting.answered && self.now >= waiting.since + limits::TAKEOVER_GRACE),
            CloseReason::MaxConnections => opened.as_ref().is_some_and(|o| !o.seat && !self.live.contains_key(&o.peer)),
            CloseReason::Draining => self.due.retire == Some(sid) && (peer.is_some() || waited.is_some()),
            CloseReason::MessageTooLarge => self.due.too_large && peer.is_some(),
            CloseReason::Kicked => peer.is_some() && self.due.kick == peer,
            CloseReason::RateLimited => self.signals.is_flooder(sid) && peer.is_some(),
            // The router must not close a session for these reasons, because only the I/O code can detect them.
            CloseReason::ClientClosed
            | CloseReason::PageClosed
            | CloseReason::ConnectionLost
            | CloseReason::DeadPeer
            | CloseReason::Internal
            | CloseReason::NotUtf8
            | CloseReason::ProtocolError
            | CloseReason::SlowConsumer
            | CloseReason::TryAgainLater => false,
        };
        if !right {
            self.complain(format!("{sid:?} was closed as {reason:?}"));
        }
        self.takeovers[0] += u64::from(reason == CloseReason::Replaced && !at_once);
        let answered = waited.is_some_and(|(_, answered)| answered);
        self.takeovers[1] += u64::from(reason == CloseReason::IdInUse && answered);
        self.due.opened.take_if(|opened| opened.sid == sid);
        if reason == CloseReason::Draining && peer.is_some() {
            if let Some(client) = self.sessions.get_mut(&sid) {
                client.retiring = true;
                client.views.values_mut().for_each(|view| view.owed.clear());
            }
        } else {
            self.ended(sid, reason);
        }
        if let (true, Some(Opened { sid, peer, resume, owner, granted, .. })) = (at_once, newcomer) {
            let (since, question) = (self.now, None);
            let waiting = Waiting { sid, since, question, answered: false, resume, owner, granted };
            self.waiting.insert(peer, waiting);
        }
    }

    pub(crate) fn backlog(&mut self, sid: Sid, more: bool) {
        self.due.room_answered |= self.due.room == Some(sid);
        if let Some(client) = self.sessions.get_mut(&sid) {
            client.reading = more;
        }
    }

    pub(crate) fn event_announced(&mut self, peer: PeerId, network: &str) {
        let announced = self.due.announced.take();
        if announced.map(|(peer, net)| (peer, self.networks[net])) != Some((peer, network)) {
            self.complain(format!("{peer:?} was reported as announced in {network}; expected {announced:?}"));
        }
    }

    /// Checks a message that the router sends to a session. Returns the epoch of the session's view. The caller must
    /// pass this epoch to `heard` when the message arrives.
    pub(crate) fn said(&mut self, sid: Sid, heard: &Heard) -> u64 {
        let Some(client) = self.sessions.get_mut(&sid) else {
            // A session receives `connected` before it is admitted.
            if !matches!(heard, Heard::Connected { .. }) {
                self.complain(format!("{sid:?} has ended and receives {heard:?}"));
            }
            return 0;
        };
        if client.retiring {
            self.complain(format!("{sid:?} is closing and receives {heard:?}"));
            return 0;
        }
        let shard = usize::from(sid.shard);
        let mut wrong = None;
        let mut epoch = 0;
        let networks = &self.networks;
        let net = |network: &str| networks.iter().position(|&name| name == network).unwrap_or(Net::MAX);
        match heard {
            Heard::Page { .. } => wrong = Some("receives an answer without a request"),
            Heard::Discovered { subject, network, version } => match client.views.get_mut(&net(network)) {
                None => wrong = Some("receives an event of a network that it is not in"),
                Some(view) => {
                    let net = net(network);
                    epoch = view.epoch;
                    self.due.told_to_reader += usize::from(self.due.room == Some(sid));
                    if !view.owed.remove(subject) {
                        wrong = Some("receives a discovery twice, or of an unknown peer");
                    } else if self.rosters[shard].get(&(net, *subject)) != Some(version) {
                        wrong = Some("receives outdated or wrong data");
                    } else if *subject == client.peer {
                        wrong = Some("discovers itself");
                    }
                    view.told.insert(*subject, *version);
                }
            },
            Heard::Left { subject, network, goodbye, reason } => match client.views.get_mut(&net(network)) {
                None => wrong = Some("receives an event of a network that it is not in"),
                Some(view) => {
                    let net = net(network);
                    epoch = view.epoch;
                    let how = self.due.how_left.get(&(net, *subject));
                    if view.told.remove(subject).is_none() {
                        wrong = Some("receives the leave of a peer that it does not know");
                    } else if !how
                        .is_some_and(|how| how.is_none() == *goodbye && how.is_none_or(|how| how.label() == reason))
                    {
                        wrong = Some("receives a leave that did not happen, or a leave with a wrong reason");
                    }
                }
            },
            Heard::Signal { number, text } => {
                let knows = |sender: &PeerId, net| {
                    let view: Option<&View> = client.views.get(&net);
                    view.is_none_or(|view| client.peer == *sender || view.told.contains_key(sender))
                };
                if let Err(what) = self.signals.handed(*number, text, &client.peer, knows) {
                    self.complain(format!("{sid:?} {what}: {text}"));
                }
                return 0;
            }
            Heard::Connected { .. } => wrong = Some("is admitted twice"),
            Heard::Error { code, about, .. } => {
                self.errors += 1;
                self.signals.refused(sid, code, about.as_ref());
            }
            Heard::Receipt { id, outcome } => {
                if let Err(what) = self.signals.receipt(sid, id, outcome, self.now) {
                    self.complain(format!("{sid:?} {what}: receipt {outcome} for {id}"));
                }
                return 0;
            }
            Heard::TokenExpires | Heard::Authorized if client.granted.is_none() => wrong = Some("has no token"),
            Heard::Pong | Heard::GoAway | Heard::TokenExpires | Heard::Authorized => {}
        }
        if let Some(wrong) = wrong {
            self.complain(format!("{sid:?} {wrong}: {heard:?}"));
        }
        epoch
    }

    pub(crate) fn welcomed(&mut self, sid: Sid, peer: &PeerId, lineage: Option<Lineage>) {
        let before = lineage.and_then(|lineage| self.latest.insert(*peer, lineage.session.0));
        let client = self.sessions.get_mut(&sid);
        let resume = client.as_ref().and_then(|client| client.resume);
        // The session must continue the lineage of its secret, or begin a new lineage if it has no secret. The number
        // of the session must be greater than all earlier numbers.
        let right = lineage.is_some_and(|lineage| {
            lineage.root == resume.map_or(lineage.session, |resume| resume.root) && before < Some(lineage.session.0)
        });
        if let Some(client) = client {
            client.lineage = lineage;
        }
        if !right {
            self.complain(format!("{sid:?} resumed with {resume:?} and received {lineage:?} after {before:?}"));
        }
        match self.sessions.get_mut(&sid) {
            Some(client) if client.peer == *peer && !client.connected => client.connected = true,
            _ => self.complain(format!("{sid:?} received connected with the id {peer}")),
        }
    }

    /// Checks that the router has produced all outputs that the last input requires.
    pub(crate) fn carried_out(&mut self, shard: u16, roster_chunk: usize) {
        let due = std::mem::take(&mut self.due);
        let mut wrong = Vec::new();
        if let Some(announced) = due.announced {
            wrong.push(format!("an announcement had no effect: {announced:?}"));
        }
        if let Some(Opened { sid, peer, .. }) = due.opened
            && !self.sessions.contains_key(&sid)
            && self.waiting.get(&peer).is_none_or(|waiting| waiting.sid != sid)
        {
            wrong.push(format!("{sid:?} was opened, but the router neither admitted it nor closed it"));
        }
        for (peer, waiting) in &self.waiting {
            if !self.live.contains_key(peer) {
                wrong.push(format!("{:?} waits for an id that no session has", waiting.sid));
            }
        }
        if let Some(sid) = due.retire {
            let goes = self.sessions.get(&sid).is_none_or(|client| client.retiring);
            if !goes || self.waiting.values().any(|waiting| waiting.sid == sid) {
                wrong.push(format!("{sid:?} was retired, but stays open"));
            }
        }
        if let Some((peer, session)) = due.kick.map(|peer| (peer, due.kicked))
            && session.is_some_and(|sid| self.live.get(&peer) == Some(&sid))
        {
            wrong.push(format!("{peer:?} was kicked, but is still connected"));
        }
        if let Some(sid) = due.room
            && !due.room_answered
            && self.sessions.get(&sid).is_some_and(|client| client.reading)
        {
            wrong.push(format!("{sid:?} has room, but the router has not sent it more of the roster"));
        }
        if due.told_to_reader > roster_chunk {
            wrong.push(format!("{} members of the roster were sent in one turn", due.told_to_reader));
        }
        for (sid, client) in on_shard(&mut self.sessions, shard) {
            for (net, view) in &client.views {
                if let (Some(peer), false) = (view.owed.first(), client.reading) {
                    wrong.push(format!("{sid:?} did not discover {peer:?} in {}", self.networks[*net]));
                }
                if let Some((_, peer)) = due.leaves.iter().find(|(n, p)| n == net && view.told.contains_key(p))
                    && !client.retiring
                    && !self.rosters[usize::from(shard)].contains_key(&(*net, *peer))
                {
                    wrong.push(format!("{sid:?} did not receive the leave of {peer:?} from {}", self.networks[*net]));
                }
            }
            let ends = client.granted.as_ref().and_then(|granted| granted.ends);
            if ends.is_some_and(|ends| ends + 3 * limits::TICK < self.now) && !client.retiring {
                wrong.push(format!("{sid:?} is still open after its token has expired"));
            }
            if !client.connected {
                wrong.push(format!("{sid:?} was admitted without a `connected` message"));
            }
        }
        if let Some(number) = self.signals.carried_out() {
            wrong.push(format!("signal {number} was not forwarded"));
        }
        self.complaints.append(&mut wrong);
    }
}
