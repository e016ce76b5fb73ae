//! Tests that the dashboard, the alert rules and the runbook name only existing metrics, and agree with each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::catalog::{self, MetricType};

const RULES: &str = "deploy/prometheus/rules.yml";
const RUNBOOK: &str = "docs/runbook.md";

fn text(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if path.exists() {
        found.push(path.to_owned());
    }
}

/// The names of metrics in a text, each with the text after it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for prefix in ["peerpigeon_", "process_"] {
        for (start, _) in text.match_indices(prefix) {
            if !text[..start].ends_with(is_part) {
                let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |length| start + length);
                found.push((&text[start..end], &text[end..]));
            }
        }
    }
    found
}

/// The values of labels, by metric and label, from docs/metrics.md.
fn values() -> BTreeMap<(String, String), Vec<String>> {
    let docs = text("docs/metrics.md");
    let (_, table) = docs.split_once("| Metric | Label | Values |").unwrap();
    let (table, _) = table.split_once("<!-- metrics:end -->").unwrap();
    let mut found = BTreeMap::new();
    for row in table.lines() {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        if let [_, metric, label, values, _] = cells[..] {
            let values = values.split(", ").map(|value| value.trim_matches('`').to_owned()).collect();
            found.insert((metric.to_owned(), label.to_owned()), values);
        }
    }
    found
}

#[test]
fn every_named_metric_exists() {
    let values = values();
    let mut paths = Vec::new();
    for path in ["deploy", "k8s", "docs", "README.md", "README.zh-CN.md", "PRODUCTION.md"] {
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path), &mut paths);
    }
    let mut seen = 0;
    let reads = ["md", "json", "yml", "yaml"];
    for path in paths.iter().filter(|path| path.extension().is_some_and(|kind| reads.iter().any(|read| kind == *read)))
    {
        // Unescapes strings in JSON and cells of Markdown tables.
        let text = text(path).replace("\\\"", "\"").replace("\\|", "|");
        for (name, after) in named(&text) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            let found = catalog::ALL
                .iter()
                .find(|metric| metric.name == name || (metric.name == base && metric.kind == MetricType::Histogram));
            let metric = found.unwrap_or_else(|| panic!("{} names {name}, which is not a metric", path.display()));
            seen += 1;
            let Some((within, _)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) else { continue };
            for label in metric.labels {
                let Some((_, said)) =
                    within.split_once(&format!("{label}=")).or_else(|| within.split_once(&format!("{label}!")))
                else {
                    continue;
                };
                let said = said.split('"').nth(1).unwrap_or_default();
                let Some(values) = values.get(&(metric.name.to_owned(), (*label).to_owned())) else { continue };
                for pattern in said.split('|') {
                    let is_there = |value: &String| {
                        pattern.strip_suffix(".*").map_or(value == pattern, |prefix| value.starts_with(prefix))
                    };
                    let place = path.display();
                    assert!(values.iter().any(is_there), "{place}: {name} has no {label} {pattern:?}");
                }
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn the_dashboard_shows_most_metrics() {
    let dashboard = text("deploy/grafana/dashboards/peerpigeon.json");
    let asked = named(&dashboard);
    let left_out: Vec<_> = catalog::ALL
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !asked.iter().any(|(asked, _)| asked.starts_with(name)))
        .collect();
    assert!(left_out.len() < catalog::ALL.len() / 4, "{left_out:?}");
}

fn alerts() -> Vec<String> {
    text(RULES).lines().filter_map(|line| Some(line.trim_start().strip_prefix("- alert: ")?.to_owned())).collect()
}

#[test]
fn each_alert_has_a_severity_and_a_runbook_paragraph() {
    let (rules, runbook) = (text(RULES), text(RUNBOOK));
    let alerts = alerts();
    let headings: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(headings, alerts, "{RUNBOOK} and {RULES}");
    for (alert, rule) in alerts.iter().zip(rules.split("- alert: ").skip(1)) {
        let severity =
            ["critical", "warning", "info"].iter().find(|severity| rule.contains(&format!("severity: {severity} }}")));
        assert!(severity.is_some(), "{alert} has no severity");
        assert!(rule.contains("summary: "), "{alert} has no summary");
        let place = format!("{RUNBOOK}#{}\n", alert.to_lowercase());
        assert!(rule.contains(&place), "{alert} has no {place}");
    }
    for (heading, paragraph) in headings.iter().zip(runbook.split("\n### ").skip(1)) {
        for part in ["**Means** ", "**Look** ", "**Do** "] {
            assert!(paragraph.contains(part), "{heading} has no {part}");
        }
    }
    for (_, anchor) in runbook.match_indices("](#").map(|(at, _)| ((), &runbook[at + 3..])) {
        let anchor = anchor.split(')').next().unwrap_or_default();
        assert!(alerts.iter().any(|alert| alert.to_lowercase() == anchor), "{RUNBOOK}: there is no {anchor}");
    }
}

/// promtool runs the cases in rules_test.yml. The test checks that each alert has a case in which it fires, and a case
/// in which it does not fire.
#[test]
fn each_alert_has_tests() {
    let tests = text("deploy/prometheus/rules_test.yml");
    for alert in alerts() {
        let asked = format!("alertname=\"{alert}\",alertstate=\"firing\"");
        let tried: Vec<_> = tests.lines().filter(|line| line.contains(&asked)).collect();
        assert!(
            tried.iter().any(|line| line.contains("exp_samples: []")),
            "rules_test.yml has no case in which {alert} does not fire"
        );
        assert!(
            tried.iter().any(|line| line.contains("value: 1")),
            "rules_test.yml has no case in which {alert} fires"
        );
    }
}

/// The PrometheusRule for Kubernetes must have the same rules as Prometheus's file. With `BLESS=1`, this test writes
/// the PrometheusRule.
#[test]
fn kubernetes_has_the_same_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/components/monitoring/prometheusrule.yaml");
    let mut expected =
        "# Made from deploy/prometheus/rules.yml: BLESS=1 cargo test --lib\napiVersion: monitoring.coreos.com/v1\n\
                        kind: PrometheusRule\nmetadata:\n  name: peerpigeon\nspec:\n"
            .to_owned();
    for line in text(RULES).lines().skip_while(|line| *line != "groups:") {
        let _ = if line.is_empty() { writeln!(expected) } else { writeln!(expected, "  {line}") };
    }
    if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(
            std::fs::read_to_string(&path).unwrap() == expected,
            "{}: run the tests once with BLESS=1",
            path.display()
        );
    }
}
