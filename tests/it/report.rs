//! Tests of the page that a load test writes.

use serde_json::Value;

use crate::hub::Hub;

/// The report of a load test is a single page without external resources.
#[test]
fn a_load_test_writes_its_report_as_one_page() {
    // The pairs of peers send as fast as they can. On a fast machine, the pairs would exceed the default budgets.
    let hub =
        Hub::start(&[("MESSAGE_RATE", "1000000"), ("MESSAGE_RATE_BYTES", "1000000000"), ("NETWORK_BUDGETS", "0")]);
    let file = std::env::temp_dir().join(format!("peerpigeon-it-report-{}.html", std::process::id()));
    let url = format!("ws://{}", hub.address);
    let run = |file: &std::path::Path| {
        let args = ["load-test", "--hub", &url, "--peers", "20", "--duration", "1", "--scenario", "relay", "--report"];
        crate::hub::command(&[]).args(args).arg(file).output().unwrap()
    };
    let output = run(&file);
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for outside in [" src=", " href=", "url(", "@import", "fetch(", "import("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["report"]["passed"], true);
    let points = data["points"].as_array().unwrap();
    let last = points.last().unwrap();
    assert!(points.len() >= 4, "{points:?}");
    assert!(points.windows(2).all(|pair| pair[0]["at"].as_u64() <= pair[1]["at"].as_u64()));
    assert_eq!(last["delivered"], data["report"]["signalsDelivered"]);
    let counted: u64 = last["latency"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(Some(counted), last["delivered"].as_u64());
    let nowhere = run(std::path::Path::new("/nowhere/report.html"));
    assert_eq!(nowhere.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("--report: cannot write"), "{nowhere:?}");
}
