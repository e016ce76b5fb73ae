//! The last minute of a hub, from the history of its live view. With it, the first poll already finds faults.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::page::Page;

/// The event after the history.
pub(super) const END: &str = "event: state\n";

/// Length of the history that is used before the first poll, in seconds.
const MINUTE: f64 = 60.0;

/// The growth of counters before a poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    /// Time of the growth, in seconds.
    pub(super) seconds: f64,
    exceeded: BTreeMap<String, f64>,
    closes: BTreeMap<String, f64>,
    /// Time for which each shard was awake, in seconds.
    busy: Vec<f64>,
    mesh_busy: f64,
    cpu: f64,
}

/// The parts of a sample that are read: the growth of counters in a second.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Second {
    /// Length of the time in milliseconds.
    over: f64,
    exceeded: BTreeMap<String, f64>,
    closes: BTreeMap<String, f64>,
    /// Thousandths of a core, like the next two figures.
    busy: Vec<f64>,
    mesh_busy: f64,
    cpu: f64,
}

impl History {
    /// Reads a stream of events. Events that are no samples are skipped.
    pub(super) fn parse(events: &str) -> Self {
        let data =
            |event: &str| event.split_once("event: sample\n")?.1.split_once("data: ").map(|(_, data)| data.to_owned());
        let seconds =
            events.rsplit("\n\n").filter_map(data).filter_map(|data| serde_json::from_str::<Second>(&data).ok());
        let mut history = Self::default();
        for second in seconds {
            let over = second.over / 1000.0;
            if !(0.0..=MINUTE).contains(&(history.seconds + over)) {
                break;
            }
            history.seconds += over;
            for (sums, counts) in [(&mut history.exceeded, second.exceeded), (&mut history.closes, second.closes)] {
                counts.into_iter().for_each(|(label, count)| *sums.entry(label).or_insert(0.0) += count);
            }
            history.busy.resize(history.busy.len().max(second.busy.len()), 0.0);
            history.busy.iter_mut().zip(second.busy).for_each(|(sum, part)| *sum += part / 1000.0 * over);
            history.mesh_busy += second.mesh_busy / 1000.0 * over;
            history.cpu += second.cpu / 1000.0 * over;
        }
        history
    }

    /// The page /metrics at the beginning of the history, as far as the history contains its counters.
    pub(super) fn before(&self, page: &Page) -> Page {
        let mut page = page.clone();
        for (budget, count) in &self.exceeded {
            page.set_back("peerpigeon_rate_limited_total", &format!("budget=\"{budget}\""), *count);
        }
        for (reason, count) in &self.closes {
            page.set_back("peerpigeon_closes_total", &format!("reason=\"{reason}\""), *count);
        }
        for (shard, busy) in self.busy.iter().enumerate() {
            page.set_back("peerpigeon_shard_busy_seconds_total", &format!("shard=\"{shard}\""), *busy);
        }
        page.set_back("peerpigeon_mesh_busy_seconds_total", "", self.mesh_busy);
        page.set_back("process_cpu_seconds_total", "", self.cpu);
        page
    }
}
