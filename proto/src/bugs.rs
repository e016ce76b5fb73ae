//! Impossible states: states that the rules exclude. This module records an impossible state if the code finds one
//! anyway.
//!
//! Code that finds such a state continues as well as it can, because the hub serves thousands of other peers. An
//! impossible state is never ignored silently. In builds with debug assertions (tests, simulators, fuzz targets),
//! [`bug!`](crate::bug) panics. In release builds, [`bug!`](crate::bug) counts the [`BugSite`] and keeps one
//! [`BugNote`] per site for the log.
//!
//! A state that clients or other hubs can cause is not a bug. Stale handles, late letters and wrong data of other hubs
//! are expected. The code that receives unexpected data ignores the data or answers with an error.

use std::fmt;

macro_rules! sites {
    ($($id:ident $label:literal $means:literal)*) => {
        /// The places in the code that can find one impossible state. The name of a site is a value of the label `site`
        /// of `peerpigeon_bugs_total`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum BugSite {
            $(#[doc = $means] $id,)*
        }

        impl BugSite {
            /// Every site, in the order of its discriminant.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// The name in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$id => $label,)*
                }
            }

            /// A description of the impossible state.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$id => $means,)*
                }
            }
        }
    };
}

sites! {
    OutputsLeft "outputs-left" "The outputs of an input were not all taken before the next input."
    OutputsLost "outputs-lost" "Outputs were removed without being taken."
    LettersLost "letters-lost" "Letters were removed from an outbox without being taken, or were counted wrongly."
    LetterToNobody "letter-to-nobody" "A letter is addressed to a shard or a mesh that the hub does not have."
    MessageSession "message-session" "The session of a message ended while the message was processed."
    SpeakerReplaced "speaker-replaced" "An admitted session ended, but another session was recorded for its peer."
    SessionLife "session-life" "A session entered a phase that cannot follow its last phase."
    PeerSession "peer-session" "A connected peer was recorded with a session that did not exist."
    MembershipNetwork "membership-network" "A session was in a network that did not exist."
    PendingSession "pending-session" "A takeover ended, and the session that waited for it did not exist."
    AskedSession "asked-session" "A takeover ended, and the challenged session did not exist."
    LeaveNetwork "leave-network" "A session left a network that did not exist."
    LeaveLocal "leave-local" "A session left a network, and its place in the list of sessions belonged to another \
        session."
    RosterEntryStays "roster-entry-stays" "A member left, and its entry in the roster remained."
    EnterNetwork "enter-network" "A member entered a network that did not exist."
    TellNetwork "tell-network" "An event was for the members of a network that did not exist."
    TellSession "tell-session" "A network listed a session that did not exist, or that was not in the network."
    JoinState "join-state" "A peer announced itself, and its session or the network did not exist, or the \
        session was not in the network."
    RosterCursor "roster-cursor" "A session was reading the roster of a network that did not exist."
    CircleSession "circle-session" "A session that should meet or replace members did not exist, or was not in the \
        network."
    CircleNetwork "circle-network" "Peers met in a network that did not exist."
    CircleMember "circle-member" "A session knew, or should meet, a peer that was not in the roster."
    KnowerSession "knower-session" "A session was recorded as knowing a member, but did not exist or did not know \
        this member."
    ResidentSession "resident-session" "The roster had a member of this shard that had no session on this shard."
    SignalFrame "signal-frame" "A signal had a shared frame, which only presence messages have."
    Hello "relay-hello" "The relay received a hello. Only the code of links may receive a hello."
    HubMissing "hub-missing" "The relay processed an event of a hub that it did not know."
    HubNumber "hub-number" "The number that shards use for a hub belonged to another hub."
    HubLink "hub-link" "The link recorded for a hub did not exist."
    SnapshotState "snapshot-state" "A snapshot that was being received did not exist."
    OutcomeSender "outcome-sender" "The outcome of a signal of this hub was addressed to another hub."
    SignalsHeld "signals-held" "The relay held a signal of a hub although it had no room for one more."
    SignalsLost "signals-lost" "The counters of signals to a hub started again while signals waited for outcomes."
    LegacyLink "legacy-link" "The relay processed an event of a legacy link that did not exist."
    QueueMissing "queue-missing" "A session with bytes to write had no send queue."
    Counter "counter" "A counter would have fallen below zero."
    DrainMissing "drain-missing" "A shard announced a drain that it does not have."
    RenewalMissing "renewal-missing" "A shard that renews no credentials for TURN had a timer for new ones."
    LinkDoor "link-door" "A shard that accepts no links admitted a hub."
    OrderAnswer "order-answer" "A shard answered an operator's order that it had not received."
    LinkMissing "link-missing" "The mesh processed an event of a link that did not exist."
    LinkLife "link-life" "A link entered a phase that cannot follow its last phase."
    BridgeMissing "bridge-missing" "The relay sent an envelope to a Redis bridge that the hub does not have."
    Audit "audit" "Two records of one fact contradict each other. Only simulators check this."
}

/// Number of impossible states found at each site since the process started.
#[derive(Clone, Debug)]
pub struct BugCounts([u64; BugSite::ALL.len()]);

impl BugCounts {
    /// The number for one site.
    pub fn of(&self, site: BugSite) -> u64 {
        self.0[site as usize]
    }
}

impl Default for BugCounts {
    fn default() -> Self {
        Self([0; BugSite::ALL.len()])
    }
}

/// The first impossible state that a site found, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BugNote {
    /// The site.
    pub site: BugSite,
    /// File and line.
    pub place: String,
    /// Ids and numbers that describe the state, without contents of messages.
    pub context: String,
}

/// Counts impossible states, and keeps one [`BugNote`] per site until it is taken.
#[derive(Debug, Default)]
pub struct Bugs {
    counts: BugCounts,
    notes: Vec<BugNote>,
}

impl Bugs {
    /// Records an impossible state. Use the macro [`bug!`](crate::bug) instead of this function.
    ///
    /// # Panics
    ///
    /// Always, in builds with debug assertions.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub fn found(&mut self, site: BugSite, context: fmt::Arguments<'_>) {
        self.count(site, context);
        debug_assert!(false, "impossible state {}: {context}", site.label());
    }

    #[track_caller]
    fn count(&mut self, site: BugSite, context: fmt::Arguments<'_>) {
        let count = &mut self.counts.0[site as usize];
        *count += 1;
        if *count == 1 {
            let place = std::panic::Location::caller().to_string();
            self.notes.push(BugNote { site, place, context: context.to_string() });
        }
    }

    /// Number of impossible states found at each site.
    pub fn counts(&self) -> &BugCounts {
        &self.counts
    }

    /// Removes and returns the next note.
    pub fn take_note(&mut self) -> Option<BugNote> {
        self.notes.pop()
    }
}

/// Returns an error with a description if `holds` is false.
pub(crate) fn ensure(holds: bool, else_what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_what()) }
}

/// Reports an impossible state: `bug!(self.bugs, LeaveNetwork, "{peer:?} leaves {ix:?}")`. The first argument is a
/// variable or field of type [`Bugs`]. The second argument is a variant of [`BugSite`].
///
/// # Panics
///
/// Always, in builds with debug assertions.
#[macro_export]
macro_rules! bug {
    ($bugs:expr, $site:ident, $($context:tt)+) => {
        $bugs.found($crate::BugSite::$site, ::std::format_args!($($context)+))
    };
}

/// Subtracts from a counter: `lower!(self.bugs, self.leavers, 1)`. If the counter is too low, reports the impossible
/// state [`BugSite::Counter`], and sets the counter to 0. Without this, the counter would wrap to a huge number.
///
/// # Panics
///
/// If the counter is too low, in builds with debug assertions.
#[macro_export]
macro_rules! lower {
    ($bugs:expr, $counter:expr, $by:expr) => {
        match ($counter.checked_sub($by), $by) {
            (Some(left), _) => $counter = left,
            (None, by) => {
                $crate::bug!($bugs, Counter, "{} is {}, and falls by {by}", ::std::stringify!($counter), $counter);
                $counter = 0;
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_impossible_state_is_counted_and_the_first_of_each_site_is_noted() {
        let mut bugs = Bugs::default();
        for n in 0..3 {
            bugs.count(BugSite::LeaveNetwork, format_args!("the {n}th"));
        }
        bugs.count(BugSite::HubMissing, format_args!("x"));
        assert_eq!(bugs.counts().of(BugSite::LeaveNetwork), 3);
        assert_eq!(bugs.counts().of(BugSite::HubMissing), 1);
        assert_eq!(bugs.counts().of(BugSite::HubNumber), 0);
        let mut notes = [bugs.take_note().unwrap(), bugs.take_note().unwrap()];
        notes.sort_by_key(|note| note.site as usize);
        assert_eq!((notes[0].site, notes[0].context.as_str()), (BugSite::LeaveNetwork, "the 0th"));
        assert!(notes[0].place.contains("bugs.rs:"), "{}", notes[0].place);
        assert_eq!((notes[1].site, bugs.take_note()), (BugSite::HubMissing, None));
    }

    #[test]
    fn a_counter_is_lowered() {
        let mut count = 5_u32;
        lower!(Bugs::default(), count, 2);
        assert_eq!(count, 3);
    }

    #[test]
    #[should_panic(expected = "impossible state counter: count is 1, and falls by 2")]
    fn a_counter_that_is_too_low_is_reported() {
        let mut count = 1_u32;
        lower!(Bugs::default(), count, 2);
        unreachable!("{count}");
    }

    #[test]
    #[should_panic(expected = "impossible state leave-network: peer 7")]
    fn an_impossible_state_panics_with_debug_assertions() {
        bug!(Bugs::default(), LeaveNetwork, "peer {}", 7);
    }

    #[test]
    fn labels_are_distinct_and_fit_for_metrics() {
        let labels: BTreeSet<_> = BugSite::ALL.iter().map(|site| site.label()).collect();
        assert_eq!(labels.len(), BugSite::ALL.len());
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')), "{labels:?}");
    }
}
