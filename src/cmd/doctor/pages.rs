//! Checks the pages that need no token, and the hub's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::Request;
use hyper::Uri;
use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, DATE, ORIGIN};
use hyper::http::response::Parts;
use mesh::{ConnectError, Tls};

use super::finding::{Finding, Report, Topic};
use crate::client::HubUrl;
use crate::cmd::http;

/// Maximum time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum difference of the clocks. A larger difference of the clocks causes a warning, because tokens and TURN
/// credentials would expire at the wrong time.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// The pages of the hub at the URL's host.
pub(super) struct Pages<'a> {
    pub(super) url: &'a HubUrl,
    pub(super) tls: Option<&'a Tls>,
}

impl Pages<'_> {
    async fn get(&self, path: &str, origin: Option<&str>) -> Result<(Parts, String), ConnectError> {
        let scheme = if self.url.is_tls() { "https" } else { "http" };
        let page: Uri = format!("{scheme}://{}{path}", self.url.authority())
            .parse()
            .map_err(|error| ConnectError::Request(hyper::http::Error::from(error)))?;
        let mut request = Request::get(path);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let tls = || self.tls.cloned().map_or_else(|| Tls::new(None), Ok);
        Box::pin(http::ask_whole(&page, request, Bytes::new(), tls, &[], PATIENCE)).await
    }

    /// Whether the port answers a request without TLS. A hub with TLS answers 400 with a hint.
    pub(super) async fn are_plain(&self) -> bool {
        let answer = self.get("/livez", None).await;
        answer.is_ok_and(|(head, body)| head.status.as_u16() != 400 || !body.contains("TLS"))
    }

    /// Examines /livez and /readyz, and whether web pages of `origin` may read /livez. Returns the difference of the
    /// clocks, if the answer to /livez has a date.
    pub(super) async fn examine(&self, origin: Option<&str>, report: &mut Report) -> Option<Duration> {
        const CHECK: &str = "pages";
        let asked = SystemTime::now();
        let (head, body) = match self.get("/livez", origin).await {
            Ok(answer) => answer,
            Err(ConnectError::Late) => {
                let message = format!("/livez: no answer within {} s", PATIENCE.as_secs());
                report.add(Finding::problem(CHECK, Topic::NoAnswer, message));
                return None;
            }
            Err(error) => {
                report.add(Finding::warning(CHECK, Topic::PagesElsewhere, format!("/livez: {error}")));
                return None;
            }
        };
        let answered = SystemTime::now();
        let body = body.trim();
        match head.status.as_u16() {
            200 if body == "ok" => self.readiness(report).await,
            503 if body.starts_with("stuck") => {
                report.add(Finding::problem(CHECK, Topic::HubStuck, format!("/livez: {body}")))
            }
            502..=504 => {
                let message = format!("/livez answers {} {body:.200}", head.status);
                report.add(Finding::problem(CHECK, Topic::Gateway, message));
            }
            _ => {
                let message = format!("/livez answers {}, which is not the answer of a hub", head.status);
                report.add(Finding::note(CHECK, Topic::PagesElsewhere, message));
                return None;
            }
        }
        if let Some(origin) = origin {
            report.add(cors(origin, &head));
        }
        let date = head.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        date.map(|date| difference(date, asked, answered))
    }

    async fn readiness(&self, report: &mut Report) {
        const CHECK: &str = "pages";
        report.add(match self.get("/readyz", None).await {
            Ok((head, _)) if head.status.is_success() => {
                Finding::ok(CHECK, "/livez and /readyz say that the hub runs and is ready")
            }
            Ok((head, body)) => {
                let (status, body) = (head.status.as_u16(), body.trim());
                let topic = if body == "draining" { Topic::HubDrains } else { Topic::NotReady };
                Finding::problem(CHECK, topic, format!("/readyz answers {status} {body:.200}"))
            }
            Err(error) => Finding::warning(CHECK, Topic::PagesElsewhere, format!("/readyz: {error}")),
        });
    }
}

fn cors(origin: &str, head: &Parts) -> Finding {
    const CHECK: &str = "cors";
    let allowed = head.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).and_then(|value| value.to_str().ok());
    match allowed {
        Some(allowed) if allowed == "*" || allowed == origin => {
            Finding::ok(CHECK, format!("pages of {origin} may read the hub's pages"))
        }
        Some(other) => {
            let message = format!("pages of {origin} may not read the hub's pages: only those of {other} may");
            Finding::warning(CHECK, Topic::CorsRefused, message)
        }
        None => {
            let message = format!("pages of {origin} may not read the hub's pages, such as /client.js");
            Finding::warning(CHECK, Topic::CorsRefused, message)
        }
    }
}

/// The minimum difference between the clock of another machine and the clock of this machine. The other clock showed
/// `theirs` at some time between `before` and `after` of this machine's clock. `Date` has whole seconds.
fn difference(theirs: SystemTime, before: SystemTime, after: SystemTime) -> Duration {
    let early = before.duration_since(theirs + Duration::from_secs(1)).unwrap_or_default();
    early.max(theirs.duration_since(after).unwrap_or_default())
}

/// The finding about the clocks. `clock_ms` is the hub's time in its first message.
pub(super) fn clock(by_pages: Option<Duration>, clock_ms: u64) -> Option<Finding> {
    const CHECK: &str = "clock";
    let now = SystemTime::now();
    let theirs = UNIX_EPOCH + Duration::from_millis(clock_ms);
    // The hub may have sent the message at any time within the last [`PATIENCE`].
    let by_message = (clock_ms > 0).then(|| difference(theirs, now - PATIENCE, now));
    let difference = by_message.into_iter().chain(by_pages).max()?;
    let shown = difference.as_secs_f64();
    Some(if difference > MAX_CLOCK_DIFFERENCE {
        let message = format!("the clocks of the hub and of this machine differ by {shown:.0} s");
        Finding::warning(CHECK, Topic::ClockDiffers, message)
    } else {
        Finding::ok(CHECK, "the clocks of the hub and of this machine differ by a few seconds at most")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_clocks_counts_only_beyond_the_time_of_the_request() {
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        let secs = Duration::from_secs;
        assert_eq!(difference(at(100), at(100), at(101)), secs(0));
        assert_eq!(difference(at(99), at(100), at(101)), secs(0));
        assert_eq!(difference(at(90), at(100), at(101)), secs(9));
        assert_eq!(difference(at(111), at(100), at(101)), secs(10));
    }

    #[test]
    fn clocks_that_differ_by_more_than_five_seconds_are_a_warning() {
        let secs = Duration::from_secs;
        let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let topic = |by_pages, clock_ms| clock(by_pages, clock_ms).and_then(|finding| finding.topic);
        assert!(clock(None, 0).is_none(), "without a time of the hub there is no finding");
        assert_eq!(topic(Some(secs(5)), 0), None);
        assert_eq!(topic(Some(secs(6)), 0), Some(Topic::ClockDiffers));
        let now = SystemTime::now();
        // The hub's message may be up to 5 s old. If the time in the message is 9 s in the past, the clocks may differ
        // by only 4 s.
        assert_eq!(topic(None, unix(now - secs(9))), None);
        assert_eq!(topic(None, unix(now - secs(12))), Some(Topic::ClockDiffers));
        assert_eq!(topic(None, unix(now + secs(9))), Some(Topic::ClockDiffers));
        assert_eq!(topic(Some(secs(7)), unix(now)), Some(Topic::ClockDiffers));
    }

    #[test]
    fn pages_of_an_allowed_origin_may_read_the_pages_of_the_hub() {
        let topic = |header: Option<&str>| {
            let response = hyper::Response::builder();
            let response = header
                .into_iter()
                .fold(response, |response, header| response.header(ACCESS_CONTROL_ALLOW_ORIGIN, header));
            cors("https://a", &response.body(()).unwrap().into_parts().0).topic
        };
        assert_eq!((topic(Some("*")), topic(Some("https://a"))), (None, None));
        assert_eq!((topic(Some("https://b")), topic(None)), (Some(Topic::CorsRefused), Some(Topic::CorsRefused)));
    }
}
