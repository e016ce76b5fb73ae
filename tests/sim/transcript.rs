//! Runs transcripts: files with the messages that each client sends and receives.
//!
//! A file contains scenes. A line `# title` begins a scene with a new hub. Each scene runs with one shard and with
//! eight, under several hash keys, so that its peers are on the same shard in some runs and on different shards in
//! others. The scene must list every message that a peer receives. A message that is not listed makes the test fail.
//!
//! | line | |
//! |---|---|
//! | `a opens` | opens a connection with the id `aaaa…` (40 digits); `a2` is another connection of the same peer |
//! | `a opens without a seat` | the same, at a hub that is full |
//! | `a2 resumes a`, `a2 resumes a without a seat` | opens with the secret of the last `connected` of `a` |
//! | `a opens as the owner` | opens a connection, and has proven that the id is its own |
//! | `a opens with n=join,signal m*=observe` | opens with a token that has these rights, optionally ` for 90 s` |
//! | `the token of a is good with n=join` | the token that `a` sent with `auth` is accepted, and has these rights |
//! | `the token of a is bad` | the token that `a` sent with `auth` is refused |
//! | `a b c connect` | each opens a connection and receives only `connected` |
//! | `a > {"type":…}` | sends this message; `3 x a > …` sends it three times |
//! | `a < {"type":…}` | receives this message next; `3 x a < …` three times |
//! | `a receives nothing` | no message for `a` is left |
//! | `a sends invalid UTF-8` | a binary message that is not UTF-8 |
//! | `a sends an oversized message` | a message above MAX_MESSAGE_BYTES |
//! | `a stops reading` | the socket of `a` accepts no more data |
//! | `a reads again` | the socket of `a` accepts all queued data |
//! | `a is too slow` | the queue of `a` has overflowed, and its connection ends |
//! | `a closes`, `a is lost` | the connection of `a` ends with a close frame, or without a close frame |
//! | `a closes 1001` | the connection of `a` ends with a close frame that has this code |
//! | `a reads a part` | the socket of `a` accepts a part of the bytes before a queued ping |
//! | `a is pinged` | the hub sends a ping, to find out whether `a` is alive |
//! | `a answers`, `a answers wrongly` | sends a pong for the last ping, or a pong with another payload |
//! | `a answers the previous ping` | sends a pong for the last ping but one |
//! | `a is closed 4001 replaced` | the hub closes the connection of `a` with this code and text |
//! | `a is to go in 500 ms and back after 9 ms`, `… to wss://b wss://c` | the hub drains, and sends this `go-away` |
//! | `a is due for new credentials` | the TURN credentials of `a` expire soon |
//! | `a is retired` | the hub drains, and closes `a` now |
//! | `a is kicked`, `a is kicked from n` | an operator removes `a` from the hub, or from a network |
//! | `a is kicked for 60 s`, `a is kicked from n for 60 s` | the same, and `a` is excluded for 60 s |
//! | `network n is closed`, `network n is closed for 60 s` | an operator removes all members; joins fail for 60 s |
//! | `the answer is Hub`, `the answer is 3 members` | the operator receives this answer |
//! | `2 s pass`, `50 ms pass` | the clock advances |
//! | `given 2 networks per peer`, `given 2 peers per network` | configures the hub, before the first connection |
//! | `given 10 messages per second`, `given 1000 bytes per second` | configures the hub |
//! | `given 1000 bytes of events per second`, `given 1 pages per second` | configures the hub |
//! | `given 10 messages per second and network`, `given 1000 bytes of events per second and network` | the same |
//! | `given 1000 bytes per message`, `given 1000 bytes announced` | configures the hub |
//! | `given DISCOVERY closest:1`, `given 2 acquaintances` | configures the hub; it picks no members at random |
//! | `given ICE_SERVERS {"urls":"stun:s"}`, `given 60 seconds of TURN` | configures servers, validity of credentials |
//! | `-- remark` | a comment |
//!
//! In messages, `"a*"` stands for the id of peer `a`, `"A*"` for the same id in upper case, and `<<3 xy>>` for
//! `xyxyxy`. In received messages, any other `*` stands for a number, a word or the inside of a string, and `...` for
//! any text. All other text is compared byte for byte, so the order of keys counts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proto::{
    Acted, Budget, BudgetRates, CloseReason, Frame, Grant, HubId, IceServers, Input, Keys, NetworkName, Now, Order,
    Origin, Output, PeerId, ResumeKeys, Rights, Router, RouterConfig, RouterTuning, Secret, SessionId, ShardId,
    ToShard, Turn,
};

/// Plays every scene of a file.
pub(crate) fn check(file: &str, text: &str) {
    for shards in [1, 8] {
        for key in 0..6 {
            for (title, lines) in scenes(text) {
                let mut stage = Stage::new(shards, Keys(key, 7));
                let told = lines.iter().try_for_each(|&(_, line)| stage.play(line)).and_then(|()| stage.end());
                if let Err(wrong) = told {
                    let at = stage.played.saturating_sub(1).min(lines.len() - 1);
                    let (number, line) = lines[at];
                    panic!("{file}:{number}: {title} ({shards} shards, key {key})\n  {line}\n{wrong}");
                }
            }
        }
    }
}

type Scene<'a> = (&'a str, Vec<(usize, &'a str)>);

fn scenes(text: &str) -> Vec<Scene<'_>> {
    let mut scenes: Vec<Scene<'_>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("# ") {
            scenes.push((title, Vec::new()));
        } else if !line.trim().is_empty() && !line.starts_with("--") {
            scenes.last_mut().expect("a scene begins with `# title`").1.push((number + 1, line));
        }
    }
    assert!(scenes.iter().all(|(_, lines)| !lines.is_empty()), "a scene without lines");
    scenes
}

type Told = Result<(), String>;

/// One hub and its connections. Letters arrive without delay. After each line, the hub runs until it has no work left.
struct Stage {
    config: RouterConfig,
    rates: BudgetRates,
    routers: Vec<Router>,
    conns: BTreeMap<String, Conn>,
    /// The resume secret in the last `connected` of each connection, by the connection's name.
    secrets: BTreeMap<String, String>,
    letters: VecDeque<(ShardId, ToShard)>,
    answers: VecDeque<Acted>,
    written: VecDeque<(ShardId, Origin, PeerId)>,
    now: Duration,
    opened: u32,
    played: usize,
    /// Whether the next session to open is the owner of its id.
    owner: bool,
    /// The rights in the token of the next session to open.
    grant: Option<Box<Grant>>,
    /// Sessions that have sent a token that is not checked yet.
    tokens: Vec<(ShardId, SessionId)>,
}

struct Conn {
    peer: PeerId,
    shard: ShardId,
    session: SessionId,
    heard: VecDeque<String>,
    unread: VecDeque<(String, Option<Origin>)>,
    reads: bool,
    admitted: bool,
    backlog: bool,
    questions: Vec<[u8; 8]>,
    unseen_questions: usize,
    closed: Option<CloseReason>,
    close_seen: bool,
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl Stage {
    fn new(shards: u16, keys: Keys) -> Self {
        let hub = HubId(PeerId::from_bytes([0x77; 20]));
        let config = RouterConfig {
            shards,
            events: true,
            tuning: RouterTuning { random_picks: 0, ..RouterTuning::default() },
            ..RouterConfig::single(hub, keys, ResumeKeys::new("mesh", b"key", None))
        };
        Self {
            config,
            rates: BudgetRates::default(),
            routers: Vec::new(),
            conns: BTreeMap::new(),
            secrets: BTreeMap::new(),
            letters: VecDeque::new(),
            answers: VecDeque::new(),
            written: VecDeque::new(),
            now: Duration::from_secs(1000),
            opened: 0,
            played: 0,
            owner: false,
            grant: None,
            tokens: Vec::new(),
        }
    }

    /// Sets one rate of the sessions' budget.
    fn budget(&mut self, rate: impl Fn(&mut BudgetRates) -> &mut u64, value: u64) {
        *rate(&mut self.rates) = value;
        self.config.budget = Budget::of_session(&self.rates, self.config.max_message_bytes);
    }

    fn play(&mut self, line: &str) -> Told {
        self.played += 1;
        let repeated = line.split_once(" x ").and_then(|(times, rest)| Some((times.parse::<usize>().ok()?, rest)));
        let (times, line) = repeated.unwrap_or((1, line));
        (0..times).try_for_each(|_| self.act(line))
    }

    fn act(&mut self, line: &str) -> Told {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["given", n, "networks", "per", "peer"] => self.config.max_networks_per_peer = number(n)?,
            ["given", n, "peers", "per", "network"] => self.config.max_peers_per_network = number(n)?,
            ["given", n, "bytes", "announced"] => self.config.announce_budget_bytes = number(n)?,
            ["given", n, "messages", "per", "second"] => {
                self.budget(|rates| &mut rates.messages, number(n)?);
            }
            ["given", n, "bytes", "per", "second"] => self.budget(|rates| &mut rates.bytes, number(n)?),
            ["given", n, "bytes", "of", "events", "per", "second"] => {
                self.budget(|rates| &mut rates.events, number(n)?);
            }
            ["given", n, "pages", "per", "second"] => self.budget(|rates| &mut rates.pages, number(n)?),
            ["given", n, "messages", "per", "second", "and", "network"] => {
                let rates = BudgetRates { messages: number(n)?, ..self.rates };
                self.config.network_budget = Budget::of_network(&rates, 1);
            }
            ["given", n, "bytes", "of", "events", "per", "second", "and", "network"] => {
                let rates = BudgetRates { events: number(n)?, ..self.rates };
                self.config.network_budget = Budget::of_network(&rates, 1);
            }
            ["given", n, "bytes", "per", "message"] => {
                self.config.max_message_bytes = number(n)?;
                self.config.budget = Budget::of_session(&self.rates, self.config.max_message_bytes);
            }
            ["given", "DISCOVERY", mode] => self.config.discovery = mode.parse()?,
            ["given", "ICE_SERVERS", json] => self.config.ice = Some(Arc::new(IceServers::new(json, None))),
            ["given", n, "seconds", "of", "TURN"] => {
                let ttl = Duration::from_secs(number(n)?);
                let turn = Turn { urls: "[\"turn:t\"]".into(), secrets: vec!["secret".into()], ttl };
                self.config.ice = Some(Arc::new(IceServers::new("", Some(turn))));
            }
            ["given", n, "acquaintances"] => self.config.tuning.max_acquaintances = number(n)?,
            [n, "s", "pass"] => self.pass(Duration::from_secs(number(n)?)),
            [n, "ms", "pass"] => self.pass(Duration::from_millis(number(n)?)),
            [who, "opens"] => self.open(who, true, None)?,
            [who, "opens", "without", "a", "seat"] => self.open(who, false, None)?,
            [who, "opens", "as", "the", "owner"] => {
                self.owner = true;
                self.open(who, true, None)?;
            }
            [who, "opens", "as", "the", "owner", "without", "a", "seat"] => {
                self.owner = true;
                self.open(who, false, None)?;
            }
            [who, "opens", "with", ref rules @ ..] => {
                self.grant = Some(Box::new(self.grant_of(rules)?));
                self.open(who, true, None)?;
            }
            ["the", "token", "of", who, "is", "bad"] => {
                self.authorize(who, Err("the token is bad: send another one"))?
            }
            ["the", "token", "of", who, "is", "good", "with", ref rules @ ..] => {
                let grant = Box::new(self.grant_of(rules)?);
                self.authorize(who, Ok(grant))?;
            }
            [who, "resumes", of] => self.open(who, true, Some(of))?,
            [who, "resumes", of, "without", "a", "seat"] => self.open(who, false, Some(of))?,
            [ref names @ .., "connect" | "connects"] => {
                for who in names {
                    self.open(who, true, None)?;
                    let heard = self.conn(who)?.heard.pop_front();
                    if !heard.is_some_and(|text| text.starts_with("{\"type\":\"connected\",")) {
                        return Err(format!("  {who} was not admitted"));
                    }
                }
            }
            [who, ">", ..] => {
                let text = expand(&line[who.len() + 3..]);
                if !self.conn(who)?.admitted {
                    return Err(format!("  {who} is not admitted yet"));
                }
                self.tell(who, |session| Input::Message { session, text: &text })?;
            }
            [who, "<", ..] => {
                let pattern = expand(&line[who.len() + 3..]);
                let heard = self.conn(who)?.heard.pop_front();
                match heard {
                    Some(text) if glob(pattern.as_bytes(), text.as_bytes()) => {}
                    Some(text) => return Err(format!("  {who} received\n  {text}\n{}", self.leftovers())),
                    None => return Err(format!("  {who} received nothing\n{}", self.leftovers())),
                }
            }
            [who, "receives", "nothing"] => {
                if !self.conn(who)?.heard.is_empty() {
                    return Err(self.leftovers());
                }
            }
            [who, "sends", "invalid", "UTF-8"] => self.tell(who, |session| Input::NotText { session })?,
            [who, "sends", "an", "oversized", "message"] => self.tell(who, |session| Input::TooLarge { session })?,
            [who, "stops", "reading"] => self.conn(who)?.reads = false,
            [who, "reads", "again"] => {
                self.conn(who)?.reads = true;
                self.read(who);
                self.settle();
            }
            [who, "reads", "a", "part"] => self.tell(who, |session| Input::AskedOn { session })?,
            [who, "is", "too", "slow"] => self.finish(who, CloseReason::SlowConsumer)?,
            [who, "is", "lost"] => self.finish(who, CloseReason::ConnectionLost)?,
            [who, "closes"] => self.finish(who, CloseReason::ClientClosed)?,
            [who, "closes", code] => self.finish(who, CloseReason::of_client(Some(number(code)?)))?,
            [who, "is", "pinged"] => {
                let conn = self.conn(who)?;
                if conn.unseen_questions == 0 {
                    return Err(format!("  {who} was not pinged"));
                }
                conn.unseen_questions -= 1;
            }
            [who, "answers"] => self.pong(who, 0, 0)?,
            [who, "answers", "wrongly"] => self.pong(who, 0, 1)?,
            [who, "answers", "the", "previous", "ping"] => self.pong(who, 1, 0)?,
            [who, "is", "closed", code, ref text @ ..] => {
                let conn = self.conn(who)?;
                let Some((sent, says)) = conn.closed.and_then(CloseReason::close_frame) else {
                    return Err(format!("  {who} was not closed: {:?}", conn.closed));
                };
                conn.close_seen = true;
                let text = text.join(" ");
                if number::<u16>(code)? != sent || (!text.is_empty() && text != says) {
                    return Err(format!("  {who} was closed {sent} {says}"));
                }
            }
            [who, "is", "to", "go", "in", close, "ms", "and", "back", "after", back, "ms", ref rest @ ..] => {
                let hubs: Vec<String> = rest.iter().skip(1).map(ToString::to_string).collect();
                let (close_in, reconnect_in) =
                    (Duration::from_millis(number(close)?), Duration::from_millis(number(back)?));
                self.tell(who, |session| Input::GoAway { session, close_in, reconnect_in, hubs: &hubs })?;
            }
            [who, "is", "kicked", ref rest @ ..] => self.kick(who, rest)?,
            ["network", name, "is", "closed", ref rest @ ..] => {
                let network = NetworkName::new(name);
                let out_for = time_out(rest)?;
                for shard in (0..self.config.shards).map(ShardId) {
                    self.feed(shard, Input::Order(Order::CloseNetwork { network: network.clone(), out_for }));
                }
                self.settle();
            }
            ["the", "answer", "is", ref words @ ..] => {
                let answers: Vec<_> = self.answers.drain(..).collect();
                let mut members = 0;
                let kicked = answers.iter().filter_map(|acted| match *acted {
                    Acted::Kicked { from, excluded } => {
                        Some(format!("{from:?}{}", if excluded { "" } else { " not kept out" }))
                    }
                    Acted::Closed { members: here, .. } => {
                        members += here;
                        None
                    }
                });
                let said = kicked.last().unwrap_or_else(|| format!("{members} members"));
                if answers.is_empty() || said != words.join(" ") {
                    return Err(format!("  the answer is {said} ({answers:?})"));
                }
            }
            [who, "is", "due", "for", "new", "credentials"] => self.tell(who, |session| Input::RenewIce { session })?,
            [who, "is", "retired"] => self.tell(who, |session| Input::Retire { session })?,
            _ => return Err("  this is not a line of a transcript".to_owned()),
        }
        Ok(())
    }

    /// Checks the end of a scene. The hub may not have sent a message, ping or close that the scene does not mention.
    fn end(&mut self) -> Told {
        let silent = self.conns.values().all(|c| c.heard.is_empty() && c.unseen_questions == 0);
        let closes_seen = self.conns.values().all(|c| c.closed.is_none() || c.close_seen);
        if silent && closes_seen { Ok(()) } else { Err(self.leftovers()) }
    }

    fn leftovers(&self) -> String {
        let mut text = String::from("  left over:\n");
        for (name, conn) in &self.conns {
            for heard in &conn.heard {
                let _ = writeln!(text, "  {name} < {heard}");
            }
            if let (Some(reason), false) = (conn.closed, conn.close_seen) {
                let _ = writeln!(text, "  {name} is closed {reason:?}");
            }
            if conn.unseen_questions > 0 {
                let _ = writeln!(text, "  {name} is pinged");
            }
        }
        text
    }

    fn conn(&mut self, who: &str) -> Result<&mut Conn, String> {
        self.conns.get_mut(who).ok_or_else(|| format!("  there is no connection {who}"))
    }

    fn open(&mut self, who: &str, seat: bool, secret_of: Option<&str>) -> Told {
        self.start();
        let peer: PeerId = who[..1].repeat(40).parse().map_err(|_| format!("  {who} is not a name of a connection"))?;
        let shard = ShardId::home(&peer, self.config.shards, self.config.keys);
        let session = SessionId { slot: self.opened % 3, generation: self.opened };
        // As in a shard, a later session uses a free slot again. A router must not confuse two sessions of the same
        // slot.
        let taken =
            |slot| self.conns.values().any(|c| c.shard == shard && c.session.slot == slot && c.closed.is_none());
        let slot = (0..).find(|&slot| !taken(slot)).unwrap_or_default();
        let session = SessionId { slot, ..session };
        self.opened += 1;
        let secret = match secret_of.map(|of| self.secrets.get(of).ok_or_else(|| format!("  {of} has no secret"))) {
            Some(secret) => Some(secret?),
            None => None,
        };
        // A hub treats a client with an invalid secret like a client without a secret.
        let resume = secret.and_then(|secret| self.config.resume_keys.check(&peer, secret).ok());
        let conn = Conn {
            peer,
            shard,
            session,
            heard: VecDeque::new(),
            unread: VecDeque::new(),
            reads: true,
            admitted: false,
            backlog: false,
            questions: Vec::new(),
            unseen_questions: 0,
            closed: None,
            close_seen: false,
        };
        if self.conns.insert(who.to_owned(), conn).is_some_and(|before| before.closed.is_none()) {
            return Err(format!("  {who} is open already"));
        }
        let (owner, grant) = (std::mem::take(&mut self.owner), self.grant.take());
        self.feed(shard, Input::Opened { session, peer, seat, resume, owner, grant });
        self.settle();
        Ok(())
    }

    /// Parses rights and their validity, such as `n=join,signal m*=observe for 90 s`.
    fn grant_of(&self, words: &[&str]) -> Result<Grant, String> {
        let (rules, end) = match words {
            [rules @ .., "for", n, "s"] => (rules, Some(Duration::from_secs(number(n)?))),
            rules => (rules, None),
        };
        let mut grant = Grant::nowhere();
        for rule in rules {
            let (pattern, rights) = rule.split_once('=').ok_or("  a rule is network=right,right")?;
            let rights = Rights::from_names(rights.split(',')).ok_or("  there is no such right")?;
            grant.allow(pattern, rights).map_err(|_| "  too many rules")?;
        }
        let ends = end.map(|end| self.time().wall_ms + end.as_millis() as u64);
        Ok(match ends {
            Some(ends) => grant.until(ends),
            None => grant,
        })
    }

    /// Completes the check of the token that a connection has sent.
    fn authorize(&mut self, who: &str, grant: Result<Box<Grant>, &'static str>) -> Told {
        let conn = self.conn(who)?;
        let (shard, session) = (conn.shard, conn.session);
        let Some(at) = self.tokens.iter().position(|&token| token == (shard, session)) else {
            return Err(format!("  {who} has sent no token"));
        };
        self.tokens.swap_remove(at);
        self.feed(shard, Input::Authorized { session, grant });
        self.settle();
        Ok(())
    }

    /// Gives the router of `who` an input about its session.
    fn tell<'a>(&mut self, who: &str, input: impl FnOnce(SessionId) -> Input<'a>) -> Told {
        let conn = self.conn(who)?;
        let (shard, session) = (conn.shard, conn.session);
        self.feed(shard, input(session));
        self.settle();
        Ok(())
    }

    /// Executes a line `… is kicked`, with the rest of the line.
    fn kick(&mut self, who: &str, rest: &[&str]) -> Told {
        let (network, rest) = match rest {
            ["from", name, rest @ ..] => (Some(NetworkName::new(name)), rest),
            rest => (None, rest),
        };
        let out_for = time_out(rest)?;
        let peer: PeerId = who[..1].repeat(40).parse().map_err(|_| format!("  {who} is not a name of a connection"))?;
        self.start();
        let home = ShardId::home(&peer, self.config.shards, self.config.keys);
        self.feed(home, Input::Order(Order::Kick { peer, network, out_for }));
        self.settle();
        Ok(())
    }

    fn start(&mut self) {
        if self.routers.is_empty() {
            let router = |shard| Router::new(RouterConfig { shard: ShardId(shard), ..self.config.clone() });
            self.routers = (0..self.config.shards).map(router).collect();
        }
    }

    fn pong(&mut self, who: &str, back: usize, wrong: u8) -> Told {
        let conn = self.conn(who)?;
        let Some(mut payload) = conn.questions.iter().rev().nth(back).copied() else {
            return Err(format!("  {who} was not pinged"));
        };
        payload[7] ^= wrong;
        let (shard, session) = (conn.shard, conn.session);
        self.feed(shard, Input::Pong { session, payload: &payload });
        self.settle();
        Ok(())
    }

    /// Ends a connection. The unwritten signals of the connection return to the router.
    fn finish(&mut self, who: &str, reason: CloseReason) -> Told {
        let conn = self.conn(who)?;
        conn.closed = Some(conn.closed.unwrap_or(reason));
        conn.close_seen = true;
        let (shard, session, target) = (conn.shard, conn.session, conn.peer);
        let unread = std::mem::take(&mut conn.unread);
        for origin in unread.into_iter().filter_map(|(_, origin)| origin) {
            self.feed(shard, Input::Undelivered { origin, target, reason });
        }
        self.feed(shard, Input::Closed { session, reason });
        self.settle();
        Ok(())
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let due = self.routers.iter().filter_map(Router::poll_timeout).min().filter(|&at| at <= until);
            self.now = due.unwrap_or(until).max(self.now);
            let now = self.time();
            for shard in 0..self.routers.len() {
                if self.routers[shard].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.routers[shard].handle_timeout(now);
                    self.drain(shard);
                }
            }
            self.settle();
            if due.is_none() {
                return;
            }
        }
    }

    fn time(&self) -> Now {
        Now { at: self.now, wall_ms: EPOCH_MS + self.now.as_millis() as u64 }
    }

    fn feed(&mut self, shard: ShardId, input: Input<'_>) {
        let now = self.time();
        self.routers[usize::from(shard.0)].handle_input(input, now);
        self.drain(usize::from(shard.0));
    }

    /// Runs the routers until all letters have arrived and all deliveries are reported. When the method returns,
    /// clients that read have received their whole rosters.
    fn settle(&mut self) {
        loop {
            if let Some((to, letter)) = self.letters.pop_front() {
                self.feed(to, Input::Letter(letter));
            } else if let Some((shard, origin, target)) = self.written.pop_front() {
                self.feed(shard, Input::Delivered { origin, target });
            } else {
                let short = |c: &&mut Conn| c.backlog && c.reads && c.closed.is_none();
                let Some(conn) = self.conns.values_mut().find(short) else { return };
                conn.backlog = false;
                let (shard, session) = (conn.shard, conn.session);
                self.feed(shard, Input::Room { session });
            }
        }
    }

    fn read(&mut self, who: &str) {
        let Some(conn) = self.conns.get_mut(who) else { return };
        while let Some((text, origin)) = conn.unread.pop_front() {
            conn.heard.push_back(text);
            if let Some(origin) = origin {
                self.written.push_back((conn.shard, origin, conn.peer));
            }
        }
    }

    fn drain(&mut self, shard: usize) {
        let wall_ms = self.time().wall_ms;
        while let Some(output) = self.routers[shard].poll_output() {
            let conn = |conns: &mut BTreeMap<String, Conn>, session: SessionId| {
                let here = |c: &Conn| usize::from(c.shard.0) == shard && c.session == session;
                conns
                    .iter()
                    .find(|(_, c)| here(c))
                    .map(|(name, _)| name.clone())
                    .expect("an output for an unknown session")
            };
            match output {
                Output::Send { session, frame, origin, .. } => {
                    let name = conn(&mut self.conns, session);
                    let conn = self.conns.get_mut(&name).expect("found");
                    assert!(conn.closed.is_none(), "{name} receives something after its close");
                    let mut bytes = Vec::new();
                    match frame {
                        Frame::Arena(range) => bytes.extend_from_slice(&self.routers[shard].arena()[range]),
                        Frame::Owned(frame) => bytes.extend_from_slice(&frame),
                        Frame::Template(template) => template.write_to(&mut bytes, &conn.peer, wall_ms),
                    }
                    let text = payload(&bytes).to_owned();
                    if let Some((_, secret)) = text.split_once(r#""resume":""#) {
                        self.secrets.insert(name.clone(), secret[..Secret::HEX_LEN].to_owned());
                    }
                    conn.unread.push_back((text, origin));
                    if conn.reads {
                        self.read(&name);
                    }
                }
                Output::Ping { session, payload } => {
                    let name = conn(&mut self.conns, session);
                    let conn = self.conns.get_mut(&name).expect("found");
                    conn.questions.push(payload);
                    conn.unseen_questions += 1;
                }
                Output::Admit { session } => {
                    let name = conn(&mut self.conns, session);
                    self.conns.get_mut(&name).expect("found").admitted = true;
                }
                Output::Backlog { session, more } => {
                    let name = conn(&mut self.conns, session);
                    self.conns.get_mut(&name).expect("found").backlog = more;
                }
                Output::Close { session, reason } => {
                    let name = conn(&mut self.conns, session);
                    self.conns.get_mut(&name).expect("found").closed = Some(reason);
                }
                Output::Authorize { session, .. } => self.tokens.push((ShardId(shard as u16), session)),
                Output::ToShard { to, letter } => self.letters.push_back((to, letter)),
                Output::Acted(acted) => self.answers.push_back(acted),
                Output::Unfinished => panic!("no transcript causes work for more than one turn"),
                Output::ToMesh(_) | Output::Event(_) => {}
                Output::Bug(note) => panic!("{note:?}"),
            }
        }
    }
}

/// Parses the end of a line: `for 60 s`, or no words.
fn time_out(words: &[&str]) -> Result<Option<Duration>, String> {
    match words {
        [] => Ok(None),
        ["for", n, "s"] => Ok(Some(Duration::from_secs(number(n)?))),
        _ => Err("  this is not a line of a transcript".to_owned()),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("  {word} is not a number"))
}

/// The text in a frame. Asserts that the frame is a whole, unmasked text frame with a correct length.
pub(crate) fn payload(frame: &[u8]) -> &str {
    assert_eq!(frame[0], 0x81, "one whole text frame");
    let (header, len) = match frame[1] {
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, frame[2..10].iter().fold(0, |len, &byte| len << 8 | usize::from(byte))),
        len => (2, usize::from(len)),
    };
    assert_eq!(frame.len(), header + len, "the length in the header is wrong");
    std::str::from_utf8(&frame[header..]).expect("a text frame is UTF-8")
}

/// Expands `"a*"`, `"A*"` and `<<3 xy>>`.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("<<") {
        let end = rest[at..].find(">>").map_or(rest.len(), |end| at + end);
        let (count, what) = rest[at + 2..end].split_once(' ').expect("<<count text>>");
        out.push_str(&rest[..at]);
        out.push_str(&what.repeat(count.parse().expect("<<count text>>")));
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    for digit in "0123456789abcdefABCDEF".chars() {
        out = out.replace(&format!("\"{digit}*\""), &format!("\"{}\"", digit.to_string().repeat(40)));
    }
    out
}

/// Whether `text` matches `pattern`. In a pattern, `*` stands for any characters except JSON's punctuation, and `...`
/// for any characters.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'.', b'.', b'.', rest @ ..] => (0..=text.len()).any(|n| glob(rest, &text[n..])),
        [b'*', rest @ ..] => {
            let run = text.iter().take_while(|c| !br#"",{}[]"#.contains(c)).count();
            (0..=run).any(|n| glob(rest, &text[n..]))
        }
        [first, rest @ ..] => text.first() == Some(first) && glob(rest, &text[1..]),
    }
}
