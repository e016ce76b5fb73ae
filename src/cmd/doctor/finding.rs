//! The findings of the doctor, and their output.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

/// The page that explains each topic.
const PAGE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/troubleshooting.md");

/// How serious a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Grade {
    /// The check found no problem.
    Ok,
    /// The check was not made.
    Skipped,
    /// A fact without consequences for most users.
    Note,
    /// Some clients have a problem, or will have one soon.
    Warning,
    /// Clients cannot use the function that was checked, or cannot use it in a few days.
    Problem,
}

impl Grade {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Note => "note",
            Self::Warning => "WARNING",
            Self::Problem => "PROBLEM",
        }
    }
}

macro_rules! topics {
    ($($name:ident $code:literal $action:literal)*) => {
        /// The kinds of findings. Each kind has a paragraph in docs/troubleshooting.md, whose heading is the code of
        /// the kind.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Topic {
            $($name,)*
        }

        impl Topic {
            /// Every topic.
            #[cfg(test)]
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code in JSON, and the anchor of the paragraph.
            pub(super) fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What to do, in one sentence.
            fn action(self) -> &'static str {
                match self {
                    $(Self::$name => $action,)*
                }
            }
        }
    };
}

topics! {
    NoAddress "no-address" "correct the name, or add an A or AAAA record for it"
    AddressUnreachable "address-unreachable"
        "start the hub or the proxy there, open the firewall, or remove the address from DNS"
    NoIpv6 "no-ipv6" "add an AAAA record, if the hub should be reachable from networks that have only IPv6"
    TlsExpired "tls-expired" "renew the certificate, and let the server load it"
    TlsNotYetValid "tls-not-yet-valid" "correct the clock of this machine, or wait until the certificate becomes valid"
    TlsUnknownIssuer "tls-unknown-issuer"
        "send the intermediate certificates too (fullchain.pem), or give --ca if the authority is private"
    TlsWrongName "tls-wrong-name" "use a name of the certificate, or order a certificate for this name"
    TlsMissing "tls-missing" "use ws://, or configure a certificate at this port"
    TlsWanted "tls-wanted" "use wss://"
    TlsHandshake "tls-handshake" "read the error, and the lines tls_refused in the log of the hub"
    TlsExpiresSoon "tls-expires-soon" "renew the certificate, and find out why it was not renewed automatically"
    TlsOld "tls-old" "enable TLS 1.3 in the proxy"
    NoTls "no-tls" "use wss://: pages of https:// cannot open ws:// URLs, and the network can read the messages"
    PagesElsewhere "pages-elsewhere"
        "forward /livez and /readyz to the hub, or let the balancer ask ADMIN_PORT"
    HubStuck "hub-stuck" "restart the hub, after you have taken a core dump"
    NotReady "not-ready" "wait, add hubs, or end the drain of the hub: the answer says why it is not ready"
    HubDrains "hub-drains" "wait until the new hub is up, or run peerpigeon admin undrain"
    CorsRefused "cors-refused" "add the origin to ALLOWED_ORIGINS or CORS_ORIGIN"
    ClockDiffers "clock-differs" "let NTP set both clocks"
    HeadersLost "headers-lost" "configure the proxy for WebSockets: let it pass Upgrade, Connection and Sec-WebSocket-*"
    QueryLost "query-lost" "let the proxy pass the query of the URL"
    TokenHeaderLost "token-header-lost" "let the proxy pass the header Authorization"
    TokenWanted "token-wanted" "give the hub's AUTH_TOKEN with --token"
    TokenWrong "token-wrong" "give the AUTH_TOKEN that the hub was started with"
    OpenHub "open-hub" "set AUTH_TOKEN or ALLOWED_ORIGINS, if not everyone may use the hub"
    OriginRefused "origin-refused" "add the origin to ALLOWED_ORIGINS"
    AddressLimits "address-limits" "list the proxy in TRUSTED_PROXIES, or raise the limits per address"
    HubFull "hub-full" "raise MAX_CONNECTIONS and the limit on open files, or add hubs"
    Gateway "gateway" "start the hub, or correct the address of the hub in the proxy"
    WrongPath "wrong-path"
        "correct the path of the URL: peers connect at /ws; behind a proxy, at the path that it maps to /ws"
    NotAHub "not-a-hub" "correct the URL: another server answers there"
    NoAnswer "no-answer" "look at the log of the hub and of the proxies"
    Buffered "buffered" "disable response buffering in the proxy"
    Slow "slow"
        "look at the hub's CPU with peerpigeon top or the live view; if the hub is not busy, a proxy or the path delays"
    LinkSlow "link-slow"
        "look at the round trip of the link in peerpigeon top, and for a proxy or a congested path between the hubs"
    Undiscovered "undiscovered" "look at the errors of the hub, and at its log"
    SignalLost "signal-lost" "look at the outcome, and at the log of the hub"
    SignalChanged "signal-changed" "find the proxy that rewrites messages"
    LargeLost "large-lost" "raise the proxy's limit on the size of WebSocket messages"
    NoReceipt "no-receipt" "upgrade the hub: Go hubs send no receipts"
    HubsApart "hubs-apart"
        "look at peerpigeon top, or at /hubstats of both hubs: lastError of the dialed hubs, and redis.lastError"
    IdleCut "idle-cut" "raise the idle timeout of the proxy above 60 s"
    PingsLost "pings-lost" "let the proxy pass WebSocket pings and pongs"
    NoIceServers "no-ice-servers" "set ICE_SERVERS or TURN_URLS on the hub, or configure servers in the pages"
    IceInvalid "ice-invalid" "correct the URL of the server"
    NoTurn "no-turn" "add a TURN server: about one pair of peers in ten cannot connect without one"
    StunDead "stun-dead" "start the server, and open its UDP port (3478)"
    TurnDead "turn-dead" "start the server, and open its port"
    TurnRefused "turn-refused" "use the same secret in TURN_SECRET and in the TURN server (static-auth-secret)"
    TurnFull "turn-full" "raise the quotas of the TURN server, or its range of ports"
}

impl Topic {
    fn link(self) -> String {
        format!("{PAGE}#{}", self.code())
    }
}

/// The result of one check.
#[derive(Debug)]
pub(super) struct Finding {
    /// The check, such as `tls`.
    pub(super) check: &'static str,
    pub(super) grade: Grade,
    pub(super) topic: Option<Topic>,
    /// The finding in one sentence.
    pub(super) message: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, topic: None, message: message.into() }
    }

    pub(super) fn skipped(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Skipped, topic: None, message: message.into() }
    }

    pub(super) fn note(check: &'static str, topic: Topic, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Note, topic: Some(topic), message: message.into() }
    }

    pub(super) fn warning(check: &'static str, topic: Topic, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warning, topic: Some(topic), message: message.into() }
    }

    pub(super) fn problem(check: &'static str, topic: Topic, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Problem, topic: Some(topic), message: message.into() }
    }

    /// A finding of this grade.
    pub(super) fn graded(check: &'static str, grade: Grade, topic: Topic, message: impl Into<String>) -> Self {
        Self { check, grade, topic: Some(topic), message: message.into() }
    }

    /// A finding about a measured time. If the time is too long, the message also has the text `beside`.
    pub(super) fn timed(check: &'static str, grade: Grade, topic: Topic, message: String, beside: &str) -> Self {
        if grade == Grade::Ok {
            return Self::ok(check, message);
        }
        Self::graded(check, grade, topic, format!("{message}; {beside}"))
    }

    /// The finding as lines of text. Text from a server must not control the terminal.
    fn lines(&self) -> String {
        let mut lines = self.brief();
        if let Some(topic) = self.topic {
            _ = write!(lines, "\n{:19}> {}", "", topic.link());
        }
        lines
    }

    /// Like [`Self::lines`], without the link.
    fn brief(&self) -> String {
        let shown: String = self.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut lines = format!("{:<8} {:<9} {shown}", self.grade.label(), self.check);
        if let Some(topic) = self.topic {
            _ = write!(lines, "\n{:19}> {}", "", topic.action());
        }
        lines
    }
}

/// A finding in JSON.
#[derive(Serialize)]
struct JsonFinding<'a> {
    check: &'static str,
    grade: Grade,
    code: Option<&'static str>,
    message: &'a str,
    action: Option<&'static str>,
    link: Option<String>,
}

/// The output of `--json`.
#[derive(Serialize)]
struct JsonReport<'a> {
    hub: &'a str,
    result: Grade,
    problems: usize,
    warnings: usize,
    findings: Vec<JsonFinding<'a>>,
}

/// All findings. Text output prints each finding as soon as it is made.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    hub: String,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(hub: String, json: bool) -> Self {
        if !json {
            _ = writeln!(io::stdout(), "peerpigeon doctor {hub}");
        }
        Self { json, hub, findings: Vec::new() }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if !self.json {
            let mut out = io::stdout();
            _ = writeln!(out, "{}", finding.lines()).and_then(|()| out.flush());
        }
        self.findings.push(finding);
    }

    /// The topics of the findings.
    #[cfg(test)]
    pub(super) fn topics(&self) -> Vec<Option<Topic>> {
        self.findings.iter().map(|finding| finding.topic).collect()
    }

    /// Prints the end of the output. Returns `Problem`, `Warning` or, if there is neither, `Ok`.
    pub(super) fn finish(self) -> Grade {
        let count = |grade| self.findings.iter().filter(|finding| finding.grade == grade).count();
        let (problems, warnings) = (count(Grade::Problem), count(Grade::Warning));
        let result = if problems > 0 {
            Grade::Problem
        } else if warnings > 0 {
            Grade::Warning
        } else {
            Grade::Ok
        };
        let text = if self.json {
            let told = self.findings.iter().map(|finding| JsonFinding {
                check: finding.check,
                grade: finding.grade,
                code: finding.topic.map(Topic::code),
                message: &finding.message,
                action: finding.topic.map(Topic::action),
                link: finding.topic.map(Topic::link),
            });
            let whole = JsonReport { hub: &self.hub, result, problems, warnings, findings: told.collect() };
            serde_json::to_string(&whole).unwrap_or_default()
        } else {
            summary(&self.findings)
        };
        // If the reader has closed the pipe, only the exit code shows the result.
        _ = writeln!(io::stdout(), "{text}");
        result
    }
}

/// The last lines of the text output: all problems, then all warnings. So the notes and the checks that found nothing
/// do not hide them.
fn summary(findings: &[Finding]) -> String {
    let mut lines = String::new();
    for (grade, noun) in [(Grade::Problem, "problem"), (Grade::Warning, "warning")] {
        let of_grade: Vec<&Finding> = findings.iter().filter(|finding| finding.grade == grade).collect();
        if of_grade.is_empty() {
            continue;
        }
        _ = write!(lines, "\n{}:\n", counted(of_grade.len(), noun));
        for finding in of_grade {
            _ = writeln!(lines, "{}", finding.brief());
        }
    }
    if lines.is_empty() { "no problems".to_owned() } else { lines.trim_end().to_owned() }
}

/// A number with its noun.
pub(super) fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_topic_has_a_paragraph_in_troubleshooting() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
        let page = std::fs::read_to_string(page).unwrap();
        let paragraphs: Vec<(&str, &str)> =
            page.split("\n### ").skip(1).filter_map(|section| section.split_once('\n')).collect();
        for topic in Topic::ALL {
            let code = topic.code();
            let found: Vec<_> = paragraphs.iter().filter(|(heading, _)| *heading == code).collect();
            assert_eq!(found.len(), 1, "docs/troubleshooting.md needs one heading `### {code}`");
            let text = found[0].1;
            assert!(
                text.contains("**Means**") && text.contains("**Do**"),
                "the paragraph of {code} must contain **Means** and **Do**"
            );
            assert!(topic.link().ends_with(&format!("docs/troubleshooting.md#{code}")));
        }
        let known = |heading: &str| Topic::ALL.iter().any(|topic| topic.code() == heading);
        let of_doctor = page.split("\n## ").find(|section| section.starts_with("What the doctor finds"));
        for heading in of_doctor.unwrap().lines().filter_map(|line| line.strip_prefix("### ")) {
            assert!(known(heading), "the doctor never finds {heading}");
        }
    }

    #[test]
    fn the_end_of_the_text_repeats_problems_and_then_warnings() {
        let findings = [
            Finding::ok("ping", "fast"),
            Finding::warning("tls", Topic::NoTls, "nothing is encrypted"),
            Finding::note("auth", Topic::OpenHub, "everyone may connect"),
            Finding::problem("size", Topic::LargeLost, "lost\u{1b}"),
        ];
        let action = |topic: Topic| format!("{:19}> {}", "", topic.action());
        let expected = [
            "",
            "1 problem:",
            "PROBLEM  size      lost ",
            &action(Topic::LargeLost),
            "",
            "1 warning:",
            "WARNING  tls       nothing is encrypted",
            &action(Topic::NoTls),
        ];
        assert_eq!(summary(&findings).lines().collect::<Vec<_>>(), expected);
        assert_eq!(summary(&findings[..1]), "no problems");
        assert_eq!(summary(&findings[2..3]), "no problems");
    }

    #[test]
    fn text_of_a_server_cannot_control_the_terminal() {
        let finding = Finding::problem("upgrade", Topic::NotAHub, "the answer is \u{1b}[2Jhello\nthere");
        assert!(!finding.lines().replace('\n', "").contains(char::is_control), "{:?}", finding.lines());
        assert_eq!(finding.lines().lines().count(), 3);
    }
}
