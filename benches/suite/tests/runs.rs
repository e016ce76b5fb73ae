//! Tests of the generator with the yardstick and the baseline.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::process::Command;

fn bench(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_relay_has_a_rate_and_a_cost() {
    for server in ["yardstick", "baseline"] {
        let args = ["relay", "--server", server, "--pairs", "3", "--in-flight", "4", "--secs", "0.3"];
        let (ok, out, err) = bench(&args);
        assert!(ok, "{server}: {err}");
        let run: serde_json::Value = serde_json::from_str(&out).unwrap();
        for figure in ["cpu_us", "rate", "p50_us", "p99_us", "busy"] {
            assert!(run[figure].as_f64().unwrap() > 0.0, "{server}: {out}");
        }
        assert!(run["p50_us"].as_f64() <= run["p99_us"].as_f64(), "{server}: {out}");
    }
}

#[test]
fn a_missing_hub_program_is_an_error() {
    let (ok, _, err) = bench(&["relay", "--hub", "/nowhere/peerpigeon", "--secs", "0.1"]);
    assert!(!ok);
    assert!(err.contains("/nowhere/peerpigeon"), "{err}");
}
