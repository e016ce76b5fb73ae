//! Collects the largest networks and the members of a network, for the operators' pages.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::limits::{LIVE_NAMES, MAX_LISTED_NETWORKS, NETWORKS_CHUNK, NETWORKS_TIMEOUT};
use proto::{ListedMember, NetworkName};
use tokio::sync::{Notify, watch};

/// The list of a hub's largest networks. One shard collects this list on request, one part per turn.
#[derive(Debug, Default)]
pub struct NetworkList {
    asked: Notify,
    collected: watch::Sender<Collected>,
    question: watch::Sender<Question>,
    answer: watch::Sender<(Question, Members)>,
}

/// A request for the members of one network, with its number.
#[derive(Clone, Debug, Default)]
struct Question {
    number: u64,
    network: Option<NetworkName>,
}

/// Members of a network.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// The first [`LIVE_NAMES`] members in ascending order of ids.
    pub listed: Arc<[ListedMember]>,
    /// Number of all members.
    pub count: usize,
}

#[derive(Debug, Default)]
struct Collected {
    /// Time at which the collection began.
    begun: Option<Instant>,
    networks: Arc<[(NetworkName, usize)]>,
}

impl NetworkList {
    /// Collects the [`MAX_LISTED_NETWORKS`] networks with the most members, in no particular order. Returns the
    /// previous list if the shard does not answer within [`NETWORKS_TIMEOUT`].
    pub async fn largest(&self) -> Arc<[(NetworkName, usize)]> {
        self.largest_within(NETWORKS_TIMEOUT).await
    }

    async fn largest_within(&self, timeout: Duration) -> Arc<[(NetworkName, usize)]> {
        let now = Instant::now();
        let mut collected = self.collected.subscribe();
        self.asked.notify_one();
        let fresh = collected.wait_for(|collected| collected.begun.is_some_and(|begun| begun >= now));
        if let Ok(Ok(fresh)) = tokio::time::timeout(timeout, fresh).await {
            return Arc::clone(&fresh.networks);
        }
        Arc::clone(&self.collected.borrow().networks)
    }

    /// The members of a network. `None` if the shard does not answer within [`NETWORKS_TIMEOUT`].
    pub async fn members(&self, network: &NetworkName) -> Option<Members> {
        let asked = async {
            let mut answers = self.answer.subscribe();
            loop {
                let mut mine = 0;
                self.question.send_modify(|question| {
                    mine = question.number + 1;
                    *question = Question { number: mine, network: Some(network.clone()) };
                });
                let answer = answers.wait_for(|(question, _)| question.number >= mine).await.ok()?;
                // The answer may belong to a later question, which has replaced this question.
                if answer.0.network.as_ref() == Some(network) {
                    return Some(answer.1.clone());
                }
            }
        };
        tokio::time::timeout(NETWORKS_TIMEOUT, asked).await.ok()?
    }

    /// Answers questions for members. `members` returns at most as many members as its second argument says, and the
    /// number of all members.
    pub async fn answer(&self, members: impl Fn(&NetworkName, usize) -> (Vec<ListedMember>, usize)) {
        let mut questions = self.question.subscribe();
        // A question may have been asked before this task subscribed.
        questions.mark_changed();
        while questions.changed().await.is_ok() {
            let question = questions.borrow_and_update().clone();
            let Some(network) = &question.network else { continue };
            let (listed, count) = members(network, LIVE_NAMES);
            self.answer.send_replace((question, Members { listed: listed.into(), count }));
            tokio::task::yield_now().await;
        }
    }

    /// Collects the list on each request. `part` offers the networks in a range of slots, and returns false after the
    /// last slot.
    pub async fn collect(&self, mut part: impl FnMut(Range<usize>, &mut Largest) -> bool) {
        loop {
            self.asked.notified().await;
            let begun = Some(Instant::now());
            let mut largest = Largest::default();
            let mut slot = 0;
            while part(slot..slot + NETWORKS_CHUNK, &mut largest) {
                slot += NETWORKS_CHUNK;
                tokio::task::yield_now().await;
            }
            let networks = largest.finish();
            self.collected.send_replace(Collected { begun, networks });
        }
    }
}

/// The largest of the offered networks.
#[derive(Debug, Default)]
pub struct Largest {
    /// The candidates for the list. There are at most twice as many candidates as the list will have networks.
    networks: Vec<(NetworkName, usize)>,
    /// Number of members of the smallest network after the last cut of the candidates. Networks with fewer members
    /// cannot be among the largest.
    floor: usize,
}

impl Largest {
    /// Adds a network to the candidates if it can be among the largest.
    pub fn offer(&mut self, name: &NetworkName, members: usize) {
        if members < self.floor {
            return;
        }
        self.networks.push((name.clone(), members));
        if self.networks.len() == 2 * MAX_LISTED_NETWORKS {
            self.cut();
        }
    }

    fn cut(&mut self) {
        // Networks of equal size are ordered by name, so that the list is stable.
        self.networks.select_nth_unstable_by(MAX_LISTED_NETWORKS - 1, |a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        self.networks.truncate(MAX_LISTED_NETWORKS);
        self.floor = self.networks.last().map_or(0, |(_, members)| *members);
    }

    fn finish(mut self) -> Arc<[(NetworkName, usize)]> {
        if self.networks.len() > MAX_LISTED_NETWORKS {
            self.cut();
        }
        self.networks.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_networks_are_kept_and_networks_of_equal_size_are_ordered_by_name() {
        let names: Vec<_> = (0..5 * MAX_LISTED_NETWORKS).map(|n| NetworkName::new(&format!("n{n:05}"))).collect();
        for reversed in [false, true] {
            let mut largest = Largest::default();
            let offer = |n: usize| largest.offer(&names[n], 1 + usize::from(n + 10 > names.len()));
            if reversed {
                (0..names.len()).rev().for_each(offer)
            } else {
                (0..names.len()).for_each(offer)
            }
            let mut listed: Vec<_> = largest.finish().iter().map(|(name, _)| name.clone()).collect();
            listed.sort();
            let (first, last) = (&names[..MAX_LISTED_NETWORKS - 9], &names[names.len() - 9..]);
            assert_eq!(listed, [first, last].concat(), "{reversed}");
        }
    }

    #[test]
    fn each_question_for_members_gets_its_own_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let list = NetworkList::default();
            let names = ["a", "bb", "ccc"].map(NetworkName::new);
            let answers = list.answer(|name, most| (Vec::new(), most + name.as_str().len()));
            let [a, b, c] = names.each_ref().map(|name| list.members(name));
            let asked = async { tokio::join!(a, b, c) };
            let (a, b, c) = tokio::select! {
                () = answers => panic!("the task that answers must not end"),
                asked = asked => asked,
            };
            let counts = [a, b, c].map(|members| members.unwrap().count - LIVE_NAMES);
            assert_eq!(counts, [1, 2, 3]);
        });
    }

    #[test]
    fn a_list_is_current_but_while_the_shard_hangs_the_previous_list_is_returned() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let list = NetworkList::default();
            let name = NetworkName::new("n");
            let sizes = async |timeout| {
                list.largest_within(timeout).await.iter().map(|(_, members)| *members).collect::<Vec<_>>()
            };
            assert!(sizes(Duration::ZERO).await.is_empty());
            let mut members = 0;
            let collect = list.collect(|slots, largest| {
                members += 1;
                largest.offer(&name, members);
                slots.start == 0
            });
            let asked = async { (sizes(Duration::MAX).await, sizes(Duration::MAX).await) };
            let (first, second) = tokio::select! {
                () = collect => unreachable!(),
                lists = asked => lists,
            };
            assert!(first.len() == 2 && second[0] > first[1], "{first:?} {second:?}");
            assert_eq!(sizes(Duration::ZERO).await, second);
        });
    }
}
