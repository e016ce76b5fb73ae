//! Writes the results as a table and as JSON.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::figures::{Figures, Round, medians};

/// A column of the table: one figure.
#[derive(Debug)]
pub(crate) struct Column {
    /// The name of the figure.
    pub(crate) figure: &'static str,
    /// The heading, with the unit.
    pub(crate) name: &'static str,
    /// Number of decimals.
    pub(crate) decimals: usize,
}

/// The completed rounds of a scenario.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) name: String,
    /// The compared servers. The table compares the middle server with each of the two others.
    pub(crate) servers: &'static [&'static str; 3],
    pub(crate) columns: &'static [Column],
    pub(crate) rounds: Vec<Round>,
}

/// The servers that most scenarios compare.
pub(crate) const SERVERS: [&str; 3] = ["yardstick", "hub", "baseline"];

impl Done {
    fn rounds_of(&self, server: &str) -> Vec<Figures> {
        let of = |round: &Round| round.iter().find(|(name, _)| *name == server).map(|(_, figures)| figures.clone());
        self.rounds.iter().filter_map(of).collect()
    }

    /// The lines of this scenario in the table.
    pub(crate) fn lines(&self) -> String {
        let medians = self.servers.map(|server| medians(&self.rounds_of(server)));
        let mut out = String::new();
        for column in self.columns {
            let [yardstick, hub, baseline] = medians.each_ref().map(|figures| figures.get(column.figure).copied());
            let show =
                |value: Option<f64>| value.map(|value| format!("{value:.*}", column.decimals)).unwrap_or_default();
            let by = |other: Option<f64>| match (hub, other) {
                (Some(hub), Some(other)) if hub > 0.0 && other > 0.0 => format!("{:.2}", hub / other),
                _ => String::new(),
            };
            _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                self.name,
                column.name,
                show(yardstick),
                show(hub),
                show(baseline),
                by(yardstick),
                by(baseline)
            );
        }
        out
    }

    fn json(&self) -> Value {
        let by_server = self.servers.iter().map(|server| (*server, self.rounds_of(server)));
        let servers: serde_json::Map<String, Value> = by_server
            .filter(|(_, runs)| !runs.is_empty())
            .map(|(server, runs)| (server.to_owned(), json!({ "median": medians(&runs), "runs": runs })))
            .collect();
        json!({ "scenario": self.name, "servers": servers })
    }
}

/// The header of a table.
pub(crate) fn head(servers: &[&str; 3]) -> String {
    let [first, hub, last] = servers;
    format!(
        "| scenario | | {first} | {hub} | {last} | {hub} / {first} | {hub} / {last} |\n|---|---|--:|--:|--:|--:|--:|\n"
    )
}

/// All results as JSON.
pub(crate) fn json(machine: &Value, done: &[Done]) -> Value {
    json!({ "machine": machine, "scenarios": done.iter().map(Done::json).collect::<Vec<_>>() })
}

/// A line about the machine.
pub(crate) fn machine_line(machine: &Value) -> String {
    let text = |key: &str| machine[key].as_str().unwrap_or("unknown").to_owned();
    format!("{}, {} cores, Linux {}; commit {}", text("cpu"), machine["cores"], text("kernel"), text("commit"))
}

const BEGIN: &str = "<!-- bench:begin -->\n";
const END: &str = "<!-- bench:end -->";

/// Replaces the text between the two marks of a Markdown file.
pub(crate) fn put_between_marks(page: &Path, text: &str) -> io::Result<()> {
    let old = std::fs::read_to_string(page)?;
    let new = between_marks(&old, text).ok_or_else(|| io::Error::other(format!("{}: no marks", page.display())))?;
    std::fs::write(page, new)
}

fn between_marks(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{text}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_available_medians_and_ratios() {
        const COLUMNS: &[Column] = &[Column { figure: "cpu_us", name: "CPU", decimals: 1 }];
        let round = |yardstick, hub| {
            vec![("yardstick", Figures::from([("cpu_us", yardstick)])), ("hub", Figures::from([("cpu_us", hub)]))]
        };
        let rounds = vec![round(2.0, 3.0), round(4.0, 9.0), round(2.0, 3.5)];
        let done = Done { name: "relay".to_owned(), servers: &SERVERS, columns: COLUMNS, rounds };
        assert_eq!(done.lines(), "| relay | CPU | 2.0 | 3.5 |  | 1.75 |  |\n");
        assert_eq!(done.json()["servers"]["hub"]["median"]["cpu_us"], 3.5);
        assert_eq!(done.json()["servers"]["hub"]["runs"].as_array().unwrap().len(), 3);
        assert!(done.json()["servers"]["baseline"].is_null());
    }

    #[test]
    fn new_results_replace_the_old_results_of_a_page() {
        let page = format!("a\n{BEGIN}old\n{END}\nb\n");
        let new = between_marks(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}new\n{END}\nb\n"));
        assert_eq!(between_marks(&new, "newer\n").unwrap(), format!("a\n{BEGIN}newer\n{END}\nb\n"));
        assert_eq!(between_marks("no marks", "x"), None);
    }
}
