//! The report at the end of a run, as a table for people or as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use indicatif::{HumanCount, HumanDuration};
use serde::Serialize;

use super::scenario::{Outcome, Storm};
use super::tally::{Check, Counts, Latency, Tally, Violations};

/// All results of a run. `--json` prints the fields with the same names in camel case.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    passed: bool,
    scenario: &'static str,
    hubs: Vec<String>,
    seed: u64,
    peers: usize,
    networks: usize,
    connected: usize,
    failed: u64,
    sessions: u64,
    connect_ms: u64,
    exact_ms: Option<u64>,
    measured_secs: f64,
    discoveries: u64,
    expected_discoveries: Option<u64>,
    leaves: u64,
    relays: u64,
    relays_per_sec: f64,
    signals_sent: u64,
    signals_delivered: u64,
    latency_micros: Option<Latency>,
    storms: Vec<Storm>,
    attacks: BTreeMap<&'static str, u64>,
    pings_answered: u64,
    receipts: Counts,
    errors: Counts,
    closes: Counts,
    dial_failures: Counts,
    violations: BTreeMap<Check, Violations>,
}

/// The arguments of the run that the report repeats.
#[derive(Clone, Debug)]
pub(super) struct ReportedArgs {
    pub(super) scenario: &'static str,
    pub(super) hubs: Vec<String>,
    pub(super) seed: u64,
    pub(super) peers: usize,
    pub(super) networks: usize,
}

impl Report {
    pub(super) fn new(args: ReportedArgs, outcome: Outcome, tally: &Tally) -> Self {
        let ReportedArgs { scenario, hubs, seed, peers, networks } = args;
        let relays_per_sec =
            if outcome.measured_secs > 0.0 { outcome.relays as f64 / outcome.measured_secs } else { 0.0 };
        Self {
            passed: tally.failed == 0 && tally.violations.is_empty(),
            scenario,
            hubs,
            seed,
            peers,
            networks,
            connected: peers - usize::try_from(tally.failed).unwrap_or(peers).min(peers),
            failed: tally.failed,
            sessions: tally.sessions,
            connect_ms: outcome.connect_ms,
            exact_ms: outcome.exact_ms,
            measured_secs: outcome.measured_secs,
            discoveries: tally.discoveries,
            expected_discoveries: outcome.expected_discoveries,
            leaves: tally.leaves,
            relays: outcome.relays,
            relays_per_sec,
            signals_sent: tally.sent,
            signals_delivered: tally.delivered,
            latency_micros: tally.latency_summary(),
            storms: outcome.storms,
            attacks: outcome.attacks.into_iter().collect(),
            pings_answered: tally.pongs,
            receipts: tally.receipts.clone(),
            errors: tally.errors.clone(),
            closes: tally.closes.clone(),
            dial_failures: tally.dial_failures.clone(),
            violations: tally.violations.clone(),
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.passed
    }

    fn connected_in(&self) -> String {
        format!("{} in {}", self.connected, time(self.connect_ms))
    }

    /// The names and values of the table.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let count = |n: u64| HumanCount(n).to_string();
        // After an interrupted run, it is not known when all peers had discovered exactly the members of their
        // networks.
        let interrupted = self.violations.contains_key(&Check::Interrupted);
        let (connected, exact_after) = match (interrupted, self.exact_ms) {
            (true, _) => (self.connected.to_string(), "not known".to_owned()),
            (false, Some(_)) if self.connected == 0 => (self.connected_in(), "never".to_owned()),
            (false, Some(exact_ms)) => (self.connected_in(), time(exact_ms).to_string()),
            (false, None) => (self.connected_in(), "never".to_owned()),
        };
        let mut rows = vec![
            ("scenario", format!("{} on {}", self.scenario, self.hubs.join(", "))),
            ("peers", format!("{} in {}, seed {}", self.peers, networks(self.networks), self.seed)),
            ("connected", connected),
            ("failed", count(self.failed)),
            ("exact after", exact_after),
            (
                "discoveries",
                match (self.scenario, self.expected_discoveries) {
                    ("churn", Some(expected)) => {
                        format!("{}, {} of them by peers that stayed", count(self.discoveries), count(expected))
                    }
                    (_, Some(expected)) => format!("{} of {}", count(self.discoveries), count(expected)),
                    (_, None) => count(self.discoveries),
                },
            ),
            ("leaves", count(self.leaves)),
            ("sessions", count(self.sessions)),
            ("pings answered", count(self.pings_answered)),
        ];
        for storm in &self.storms {
            let exact =
                storm.exact_ms.map_or_else(|| "never exact".to_owned(), |ms| format!("exact after {}", time(ms)));
            rows.push(("storm", format!("by {}: connected after {}, {exact}", storm.cut, time(storm.connected_ms))));
        }
        if !self.attacks.is_empty() {
            let listed: Vec<_> = self.attacks.iter().map(|(name, n)| format!("{name}: {}", count(*n))).collect();
            rows.push(("attacks", listed.join(", ")));
        }
        if self.signals_sent > 0 {
            let per_sec = count(self.relays_per_sec.round() as u64);
            rows.push(("relays", format!("{} of {} sent", count(self.signals_delivered), count(self.signals_sent))));
            rows.push(("relays/s", format!("{per_sec} over {}", HumanDuration(secs(self.measured_secs)))));
        }
        if let Some(latency) = &self.latency_micros {
            for (name, micros) in [
                ("latency p50", latency.p50),
                ("latency p90", latency.p90),
                ("latency p99", latency.p99),
                ("latency p99.9", latency.p999),
                ("latency max", latency.max),
            ] {
                rows.push((name, format!("{:.3} ms", micros as f64 / 1000.0)));
            }
        }
        for (name, counts) in [
            ("receipts", &self.receipts),
            ("errors", &self.errors),
            ("closes", &self.closes),
            ("not connected", &self.dial_failures),
        ] {
            let listed: Vec<_> = counts.0.iter().map(|(name, n)| format!("{name}: {}", count(*n))).collect();
            let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
            rows.push((name, listed));
        }
        rows
    }
}

fn networks(n: usize) -> String {
    if n == 1 { "one network".to_owned() } else { format!("{n} networks") }
}

fn time(ms: u64) -> impl fmt::Display {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.2} s", ms as f64 / 1000.0) }
}

fn secs(secs: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(secs).unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "{name:<15} {value}")?;
        }
        for (check, Violations { count, examples }) in &self.violations {
            writeln!(f, "{:<15} {}", "VIOLATED", format_args!("{}: {}", check.label(), HumanCount(*count)))?;
            for example in examples {
                writeln!(f, "{:<15}   {}", "", example.replace(char::is_control, "\u{fffd}"))?;
            }
        }
        for (name, hint) in [
            ("http 401", "(the hub asks for a token: --token, or AUTH_TOKEN)"),
            ("1008", "(the hub is full: MAX_CONNECTIONS)"),
            (
                "http 503",
                "(the hub limits the connections of an address: for a load test, set MAX_CONNECTIONS_PER_ADDRESS, \
                 MAX_UNFINISHED_PER_ADDRESS, CONNECT_RATE_PER_ADDRESS and CONNECT_RATE to 0)",
            ),
        ] {
            if self.dial_failures.0.contains_key(name) {
                writeln!(f, "{hint}")?;
            }
        }
        if self.errors.0.contains_key("rate-limited") {
            writeln!(
                f,
                "(the hub limits the rate of each peer: spread the load over more peers, or, for a load test, raise MESSAGE_RATE \
                 and MESSAGE_RATE_BYTES and set NETWORK_BUDGETS to 0)"
            )?;
        }
        writeln!(f, "{}", if self.passed { "PASSED" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ReportedArgs {
        ReportedArgs { scenario: "relay", hubs: vec!["ws://h/".to_owned()], seed: 7, peers: 4, networks: 2 }
    }

    fn outcome() -> Outcome {
        Outcome {
            connect_ms: 12,
            exact_ms: Some(1500),
            expected_discoveries: Some(4),
            measured_secs: 2.0,
            relays: 3000,
            attacks: Vec::new(),
            storms: vec![Storm { cut: "reset", connected_ms: 5, exact_ms: None }],
        }
    }

    #[test]
    fn a_successful_run_is_shown_as_a_table() {
        let mut tally = Tally::new();
        (tally.discoveries, tally.sent, tally.delivered) = (4, 3000, 3000);
        tally.latency(1_500_000);
        let report = Report::new(args(), outcome(), &tally);
        assert!(report.passed());
        let table = report.to_string();
        for line in [
            "scenario        relay on ws://h/",
            "connected       4 in 12 ms",
            "exact after     1.50 s",
            "discoveries     4 of 4",
            "relays          3,000 of 3,000 sent",
            "relays/s        1,500 over 2 seconds",
            "latency p99.9   1.500 ms",
            "storm           by reset: connected after 5 ms, never exact",
            "errors          none",
            "PASSED",
        ] {
            assert!(table.lines().any(|l| l == line), "no {line:?} in\n{table}");
        }
    }

    #[test]
    fn violations_are_listed_and_fail_the_run() {
        let mut tally = Tally::new();
        tally.failed = 1;
        tally.errors.add("rate-limited");
        tally.closes.add("4003");
        tally.violate(Check::Duplicate, || "peer 1 heard\u{1b}".to_owned());
        let report = Report::new(args(), outcome(), &tally);
        assert!(!report.passed());
        let table = report.to_string();
        for part in
            ["connected       3 in", "duplicate: 1", "peer 1 heard\u{fffd}", "rate-limited: 1", "4003: 1", "FAILED"]
        {
            assert!(table.contains(part), "no {part:?} in\n{table}");
        }
    }

    #[test]
    fn the_json_form_has_the_same_values() {
        let mut tally = Tally::new();
        tally.latency(2_000_000);
        tally.violate(Check::SignalLost, || "x".to_owned());
        let json = serde_json::to_value(Report::new(args(), outcome(), &tally)).unwrap();
        assert_eq!(json["passed"], false);
        assert_eq!(json["latencyMicros"]["p50"], 2000);
        assert_eq!(json["relaysPerSec"], 1500.0);
        assert_eq!(json["violations"]["signal-lost"]["count"], 1);
        assert_eq!(json["storms"][0]["cut"], "reset");
    }
}
