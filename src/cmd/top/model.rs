//! The state that the screen shows, and how keys change it. This module does not use the terminal or the network.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::PATIENCE;
use super::page::{Page, Span};
use super::sample::{Failure, Fault, Member, Roster, Sample, Spans, View};

/// Number of polls whose figures are stored. With the default interval, sparklines show two minutes.
pub(super) const HISTORY: usize = 60;

/// Number of polls for which the ends of connections are stored. With the default interval, these polls cover ten
/// minutes.
const ENDS: usize = 300;

/// Time for which the end of a connection counts, in seconds (ten minutes).
const ENDS_SECONDS: f64 = 600.0;

/// Minimum time between two samples, in seconds. It bounds the rates.
const SHORTEST_SPAN: f64 = 0.001;

/// Time without an answer after which a hub is no longer slow, but down, in seconds.
const DOWN_AFTER: f64 = 30.0;

/// The figures of a sparkline, the latest last. There is one figure for each poll, and there are at most [`HISTORY`].
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<u64>);

impl History {
    fn push(&mut self, figure: f64) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back(figure.max(0.0).round() as u64);
    }

    /// The last figures, at most `width` of them.
    pub(super) fn last(&self, width: usize) -> Vec<u64> {
        self.0.iter().skip(self.0.len().saturating_sub(width)).copied().collect()
    }
}

/// Time over which floods, closes and long turns are counted, in seconds. A flood has pauses, for example while the
/// flooder connects again, and a count over the last poll would miss it. The live view counts over the same time.
const MINUTE: f64 = 60.0;

/// Time over which the load of threads is judged, in seconds. The live view judges it over the same time.
const LOAD: f64 = 10.0;

/// Time between two stored pages, in seconds.
const STORE_EVERY: f64 = 5.0;

/// Maximum number of stored pages: a page every five seconds of the last minute, the page before it, and two more that
/// wait to be removed.
const STORED: usize = 15;

/// The pages /metrics of the last minute, the oldest first. The oldest page may be older.
#[derive(Debug, Default)]
struct Stored(VecDeque<(f64, Page)>);

impl Stored {
    /// Stores a page, unless the last page is nearly as young.
    fn push(&mut self, at: f64, page: &Page) {
        if self.0.back().is_none_or(|(last, _)| at - last >= STORE_EVERY) {
            if self.0.len() == STORED {
                self.0.pop_front();
            }
            self.0.push_back((at, page.clone()));
        }
        while self.0.get(1).is_some_and(|(second, _)| at - second >= MINUTE) {
            self.0.pop_front();
        }
    }

    /// The youngest page that is at least `seconds` old, or else the oldest page. Its age is at the same time `at`.
    fn since<'a>(&'a self, seconds: f64, at: f64, now: &'a Page) -> Option<Span<'a>> {
        let is_old = |(then, _): &&(f64, Page)| at - then >= seconds;
        let (then, before) = self.0.iter().rev().find(is_old).or_else(|| self.0.front())?;
        Some(Span { before, after: now, seconds: (at - then).max(SHORTEST_SPAN) })
    }
}

/// The counters of ended connections at the time of one poll.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ends {
    /// Time of the poll, in seconds since the first poll.
    at: f64,
    /// Connections that have ended without a close frame.
    vanished: f64,
    /// All connections that have ended.
    all: f64,
}

impl Ends {
    fn of(sample: &Sample, at: f64) -> Self {
        let count = |labels: &str| sample.page.sum_where("peerpigeon_closes_total", labels);
        let vanished = count("reason=\"connection-lost\"") + count("reason=\"dead-peer\"");
        Self { at, vanished, all: count("") }
    }
}

/// A hub.
#[derive(Debug, Default)]
pub(super) struct Hub {
    /// The hub's URL, without the scheme.
    pub(super) name: String,
    /// The error of the last poll, if it failed.
    pub(super) error: Option<Failure>,
    /// The state at the last poll. `None` if the last poll failed, because old figures could mislead.
    pub(super) view: Option<View>,
    /// The last sample.
    pub(super) last: Option<Sample>,
    /// Time for which the polls have failed since the last sample, in seconds.
    failing: f64,
    pub(super) signals: History,
    pub(super) messages: History,
    pub(super) peers: History,
    /// The ends of connections in the last ten minutes, the oldest first.
    ends: VecDeque<Ends>,
    stored: Stored,
    /// Time of the last sample, in seconds since the first poll.
    at: f64,
}

impl Hub {
    pub(super) fn new(url: &str) -> Self {
        let name = url.split_once("://").map_or(url, |(_, name)| name).trim_end_matches('/').to_owned();
        Self { name, ..Self::default() }
    }

    /// Handles the result of a poll, `seconds` after the previous poll.
    pub(super) fn polled(&mut self, result: Result<Sample, Failure>, seconds: f64) {
        let now = match result {
            Ok(now) => now,
            Err(error) => {
                self.failing += seconds;
                self.error = Some(error);
                self.view = None;
                return;
            }
        };
        self.error = None;
        // The counters have grown since the last sample, not only since the last poll.
        let seconds = (std::mem::take(&mut self.failing) + seconds).max(SHORTEST_SPAN);
        self.at += seconds;
        let before = self.last.as_ref();
        let uptime = |sample: &Sample| sample.page.sum("peerpigeon_uptime_seconds");
        if before.is_some_and(|before| uptime(before) > uptime(&now)) {
            // The hub has restarted.
            self.stored.0.clear();
        }
        if let Some(history) = &now.history
            && self.stored.0.is_empty()
        {
            self.stored.push(self.at - history.seconds, &history.before(&now.page));
        }
        // At the first poll all rates are 0, because there is no earlier sample.
        let last = Span { before: &before.unwrap_or(&now).page, after: &now.page, seconds };
        let over = |time| self.stored.since(time, self.at, &now.page).unwrap_or(last);
        let mut view = View::of(&now, Spans { last, load: over(LOAD), minute: over(MINUTE) });
        self.stored.push(self.at, &now.page);
        view.faults.extend(self.vanished(&now, seconds));
        self.signals.push(view.signals);
        self.messages.push(view.messages);
        self.peers.push(view.peers);
        self.view = Some(view);
        self.last = Some(now);
    }

    /// Returns a fault if most connections end without a close frame. The usual cause is a proxy that cuts connections.
    fn vanished(&mut self, now: &Sample, seconds: f64) -> Option<Fault> {
        let at = self.ends.back().map_or(0.0, |last| last.at + seconds);
        let ends = Ends::of(now, at);
        if self.ends.back().is_some_and(|last| ends.all < last.all) {
            // The hub has restarted.
            self.ends.clear();
        }
        if self.ends.is_empty() {
            let is_young = now.page.sum("peerpigeon_uptime_seconds") <= ENDS_SECONDS;
            self.ends.push_back(if is_young { Ends { at, ..Ends::default() } } else { ends });
        }
        if self.ends.len() == ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(ends);
        while self.ends.len() > 1 && self.ends.front().is_some_and(|first| first.at < at - ENDS_SECONDS) {
            self.ends.pop_front();
        }
        let first = self.ends.front()?;
        let (vanished, all) = (ends.vanished - first.vanished, ends.all - first.all);
        // The live view (src/dashboard/findings.js) has the same limits.
        (vanished >= 5.0 && vanished > all * 2.0 / 3.0).then(|| {
            let text = format!(
                "{vanished:.0} of the {all:.0} connections that ended in the last ten minutes had no close frame: a proxy \
                 may cut idle connections. Its timeout must exceed 60 s"
            );
            Fault::new("PeerPigeonPeersLost", text)
        })
    }

    /// The faults for the operator. A hub that did not answer the last poll has only this fault.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let Some(error) = &self.error else {
            return self.view.iter().flat_map(|view| view.faults.iter().cloned()).collect();
        };
        let ago = match &self.last {
            Some(_) => format!(" (last answer {:.0} s ago)", self.failing),
            None => String::new(),
        };
        let silent = self.failing.max(PATIENCE.as_secs_f64());
        vec![match error {
            Failure::Slow if self.is_slow() => Fault::new(
                "PeerPigeonTurnsLong",
                format!(
                    "slow: no answer for {silent:.0} s: it has too little CPU, or the network to it is slow. After \
                     {DOWN_AFTER:.0} s it counts as down"
                ),
            ),
            Failure::Slow => Fault::new("PeerPigeonHubDown", format!("down: no answer for {silent:.0} s")),
            Failure::Refused(text) => Fault::new("", format!("answers, but refuses to be watched: {text}{ago}")),
            Failure::Down(text) if text.contains("certificate expired") => {
                Fault::new("PeerPigeonCertificateExpiresNow", format!("not reached: {text}{ago}"))
            }
            Failure::Down(text) => Fault::new("PeerPigeonHubDown", format!("not reached: {text}{ago}")),
        }]
    }

    /// Whether the hub has not answered in time, but may still answer.
    fn is_slow(&self) -> bool {
        self.error == Some(Failure::Slow) && self.failing < DOWN_AFTER
    }

    /// The state of the hub in a word.
    pub(super) fn state(&self) -> &'static str {
        match (&self.error, &self.view) {
            (Some(Failure::Slow), _) if self.is_slow() => "slow",
            (Some(Failure::Refused(_)), _) => "refused",
            (Some(Failure::Slow | Failure::Down(_)), _) => "down",
            (None, Some(view)) if view.is_ready => "ready",
            (None, Some(_)) => "drains",
            (None, None) => "…",
        }
    }

    /// The sample of the last poll. `None` if the last poll failed.
    pub(super) fn current(&self) -> Option<&Sample> {
        self.last.as_ref().filter(|_| self.error.is_none())
    }
}

/// The order of hubs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// By the order of the command line
    #[default]
    Given,
    /// By connected peers, most first
    Peers,
    /// By signals per second
    Signals,
    /// By messages of peers per second
    Messages,
    /// By cores in use
    Cpu,
    /// By the 99th percentile of the time that signals take
    Latency,
    /// By the number of faults
    Faults,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Given => Self::Peers,
            Self::Peers => Self::Signals,
            Self::Signals => Self::Messages,
            Self::Messages => Self::Cpu,
            Self::Cpu => Self::Latency,
            Self::Latency => Self::Faults,
            Self::Faults => Self::Given,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Peers => "peers",
            Self::Signals => "signals",
            Self::Messages => "messages",
            Self::Cpu => "cpu",
            Self::Latency => "latency",
            Self::Faults => "faults",
        }
    }

    fn figure(self, hub: &Hub) -> f64 {
        let Some(view) = &hub.view else {
            // A hub that is not reached comes first.
            return if self == Self::Given { 0.0 } else { f64::INFINITY };
        };
        match self {
            Self::Given => 0.0,
            Self::Peers => view.peers,
            Self::Signals => view.signals,
            Self::Messages => view.messages,
            Self::Cpu => view.cpu,
            Self::Latency => view.latency.unwrap_or_default(),
            Self::Faults => hub.faults().len() as f64,
        }
    }
}

/// The page on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Screen {
    /// All hubs.
    #[default]
    Hubs,
    /// One hub, by its index.
    Hub(usize),
    /// All networks.
    Networks,
    /// One network.
    Network(String),
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Network {
    pub(super) name: String,
    /// The greatest number of members that a hub knows. Every hub of a mesh knows all members.
    pub(super) members: u64,
}

/// The state of the whole screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) hubs: Vec<Hub>,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) screen: Screen,
    /// The selected line.
    pub(super) selected: usize,
    pub(super) networks: Vec<Network>,
    members: BTreeMap<String, History>,
    /// The members of the network on the screen, and the index of the hub that was asked for them.
    pub(super) roster: Option<(usize, Result<Roster, String>)>,
    pub(super) has_help: bool,
}

/// What the user requests with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Poll all hubs now.
    Poll,
}

impl Model {
    pub(super) fn new<'a>(urls: impl IntoIterator<Item = &'a str>, sort: Sort) -> Self {
        Self { hubs: urls.into_iter().map(Hub::new).collect(), sort, ..Self::default() }
    }

    /// Merges the networks of all hubs after a poll, and extends their histories.
    pub(super) fn polled(&mut self) {
        let mut members = BTreeMap::<&str, u64>::new();
        for (name, count) in self.hubs.iter().filter_map(Hub::current).flat_map(|last| &last.networks) {
            let most = members.entry(name).or_default();
            *most = (*most).max(*count);
        }
        let mut networks: Vec<Network> =
            members.iter().map(|(name, &members)| Network { name: (*name).to_owned(), members }).collect();
        networks.sort_by(|a, b| b.members.cmp(&a.members).then_with(|| a.name.cmp(&b.name)));
        // Networks that are no longer among the largest have no history.
        self.members.retain(|name, _| members.contains_key(name.as_str()));
        for network in &networks {
            self.members.entry(network.name.clone()).or_default().push(network.members as f64);
        }
        self.networks = networks;
        self.selected = self.selected.min(self.lines().saturating_sub(1));
    }

    /// The members of a network over time.
    pub(super) fn members(&self, network: &str) -> Option<&History> {
        self.members.get(network)
    }

    /// The network on the screen, and the hub that knows most of its members.
    pub(super) fn wanted_roster(&self) -> Option<(usize, String)> {
        let Screen::Network(name) = &self.screen else { return None };
        let known = |hub: &Hub| hub.current().and_then(|last| last.networks.get(name)).copied();
        let asked = (0..self.hubs.len()).max_by_key(|&index| (known(&self.hubs[index]), usize::MAX - index))?;
        Some((asked, name.clone()))
    }

    /// The hubs in the order of the screen, by their indices.
    pub(super) fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.hubs.len()).collect();
        let figure = |index: usize| self.sort.figure(&self.hubs[index]);
        // The sort is stable, so hubs with equal figures stay in their order.
        order.sort_by(|&a, &b| figure(b).total_cmp(&figure(a)));
        if self.is_reversed {
            order.reverse();
        }
        order
    }

    /// The faults of all hubs in the order of the screen. A fault of a link that both hubs report is listed once.
    pub(super) fn faults(&self) -> Vec<(&Hub, Fault)> {
        let hubs = self.order().into_iter().map(|index| &self.hubs[index]);
        let all: Vec<_> = hubs.flat_map(|hub| hub.faults().into_iter().map(move |fault| (hub, fault))).collect();
        let links: Vec<&Fault> = all.iter().map(|(_, fault)| fault).filter(|fault| fault.link.is_some()).collect();
        let is_new =
            |(_, fault): &&(&Hub, Fault)| fault.link.is_none() || !links.iter().any(|other| fault.repeats(other));
        all.iter().filter(is_new).map(|(hub, fault)| (*hub, fault.clone())).collect()
    }

    fn lines(&self) -> usize {
        match self.screen {
            Screen::Hubs => self.hubs.len(),
            Screen::Networks => self.networks.len(),
            Screen::Network(_) => self.listed().len(),
            Screen::Hub(_) => 0,
        }
    }

    /// The listed members of the network on the screen.
    pub(super) fn listed(&self) -> &[Member] {
        match &self.roster {
            Some((_, Ok(roster))) => &roster.members,
            Some((_, Err(_))) | None => &[],
        }
    }

    /// Handles a pressed key.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys mean nothing here")]
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        if self.has_help {
            self.has_help = false;
            return Wish::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char(' ') => return Wish::Poll,
            KeyCode::Char('?' | 'h') => self.has_help = true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('n') => self.show(Screen::Networks),
            KeyCode::Char('j') | KeyCode::Down => {
                self.selected = (self.selected + 1).min(self.lines().saturating_sub(1));
            }
            KeyCode::Char('k') | KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Enter => match self.screen {
                Screen::Hubs => {
                    if let Some(&hub) = self.order().get(self.selected) {
                        self.show(Screen::Hub(hub));
                    }
                }
                Screen::Networks => {
                    if let Some(network) = self.networks.get(self.selected) {
                        self.show(Screen::Network(network.name.clone()));
                        // The members are read in a poll, so the next poll begins as soon as no other poll runs.
                        return Wish::Poll;
                    }
                }
                Screen::Hub(_) | Screen::Network(_) => {}
            },
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => match self.screen {
                Screen::Hubs => {}
                Screen::Hub(_) | Screen::Networks => self.show(Screen::Hubs),
                Screen::Network(_) => self.show(Screen::Networks),
            },
            _ => {}
        }
        Wish::Nothing
    }

    fn show(&mut self, screen: Screen) {
        self.screen = screen;
        self.selected = 0;
        self.roster = None;
    }
}
