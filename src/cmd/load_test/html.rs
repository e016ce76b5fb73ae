//! The report as one self-contained page.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto::RouterStats;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::report::Report;
use super::timeline::Point;

/// The style sheet and the charts of the live view.
const STYLE: &str = concat!(include_str!("../../common.css"), include_str!("../../dashboard/dashboard.css"));
const CHARTS: &str = include_str!("../../dashboard/charts.js");
/// The script that draws the report with the charts of the live view.
const SCRIPT: &str = include_str!("report.js");
const BODY: &str = include_str!("report.html");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    version: &'static str,
    report: &'a Report,
    /// The rows of the table that is also printed on the terminal.
    rows: Vec<(&'static str, String)>,
    latency_bounds: &'static [u64],
    points: &'a [Point],
}

/// Returns the page, which loads no other files. The page's Content-Security-Policy allows only the script and the
/// style in the page, so a browser never runs text from a hub as a script.
pub(super) fn page(report: &Report, points: &[Point]) -> String {
    let rows = report.rows();
    let data = Data {
        version: env!("PEERPIGEON_VERSION"),
        report,
        rows,
        latency_bounds: &RouterStats::LATENCY_BOUNDS,
        points,
    };
    // Structs of numbers and strings always serialize. `<` is escaped, because `</script>` in a string would end the
    // element of the data.
    let data = serde_json::to_string(&data).unwrap_or_default().replace('<', "\\u003c");
    let script = format!("{CHARTS}\n{SCRIPT}");
    let hash = |text: &str| BASE64.encode(Sha256::digest(text));
    let policy =
        format!("default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'", hash(&script), hash(STYLE));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"{policy}\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta \
         name=\"color-scheme\" content=\"light dark\">\n<title>PeerPigeon load test</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n{BODY}<script type=\"application/json\" id=\"data\">{data}</script>\n<script \
         type=\"module\">{script}</script>\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::ReportedArgs;
    use super::super::scenario::Outcome;
    use super::super::tally::{Check, Tally};
    use super::*;

    #[test]
    fn text_from_a_hub_cannot_end_the_element_of_the_data() {
        let mut tally = Tally::new();
        tally.errors.add("</script><script>alert(1)</script>");
        tally.violate(Check::Error, || "<!--<script>".to_owned());
        let hubs = vec!["ws://h/</script>".to_owned()];
        let args = ReportedArgs { scenario: "join", hubs, seed: 7, peers: 4, networks: 2 };
        let page = page(&Report::new(args, Outcome::default(), &tally), &[]);
        assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2));
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["report"]["errors"]["</script><script>alert(1)</script>"], 1);
        assert!(page.contains("default-src 'none'") && !page.contains("unsafe-inline"));
    }
}
