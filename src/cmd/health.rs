//! `peerpigeon health`: checks whether a hub accepts peers, for containers without other tools.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use mesh::{ConnectError, MaybeTlsStream, Tls};
use proto::Redacted;

use crate::config::{self, ListenFlags, SettingError};
use crate::pages::FULL;

/// Maximum time for an answer: shorter than the usual timeout of orchestrators, 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Maximum length of a shown answer, in bytes. `/metrics` of a hub with 16 shards has 100 KiB, `/hubstats` in a mesh of
/// 100 hubs 50 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Check whether a hub is ready; exits with 0 if it is ready or full
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Page to request: /readyz (the hub accepts new peers) or /livez (the hub runs) [default: /readyz at HOST and
    /// ADMIN_PORT, or PORT if that is unset]
    #[arg(long, value_name = "URL", value_parser = url)]
    pub url: Option<Uri>,

    /// Address of the hub.
    #[command(flatten)]
    pub place: ListenFlags,
}

/// The request.
#[derive(Debug)]
pub struct Question {
    page: Uri,
    /// By default the hub of this machine, found by its settings.
    is_own: bool,
    /// Whether a full hub counts as healthy: otherwise container runtimes would replace it, and all its peers would
    /// have to leave.
    full_is_well: bool,
}

fn url(text: &str) -> Result<Uri, &'static str> {
    const TAKES: &str = "not an HTTP URL: use http://host[:port]/path or https://host[:port]/path";
    let url: Uri = text.parse().map_err(|_| TAKES)?;
    if matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() { Ok(url) } else { Err(TAKES) }
}

impl Args {
    /// The request for these flags and variables. `env` returns a variable by its name.
    ///
    /// # Errors
    ///
    /// The errors are those of the hub.
    pub fn question(self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Question, Vec<SettingError>> {
        if let Some(page) = self.url {
            return Ok(Question { page, is_own: false, full_is_well: false });
        }
        let (host, port, speaks_tls) = config::place(&self.place, env)?;
        let scheme = if speaks_tls { "https" } else { "http" };
        let page =
            url(&format!("{scheme}://{host}:{port}/readyz")).map_err(|problem| vec![SettingError::of_host(problem)])?;
        Ok(Question { page, is_own: true, full_is_well: true })
    }
}

/// Sends the request, and prints the answer.
pub async fn run(question: Question) -> ExitCode {
    let Question { page, is_own, full_is_well } = question;
    let shown = page.to_string();
    let asked = ask(&page, is_own, PATIENCE).await;
    match asked {
        Ok((status, text)) => {
            let _ = writeln!(std::io::stdout(), "{}", text.trim());
            let well = status.is_success() || full_is_well && text.trim() == FULL;
            if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            let problem = if matches!(problem, ConnectError::Late) {
                format!("no answer within {} s: check that the hub runs and listens there", PATIENCE.as_secs())
            } else {
                problem.to_string()
            };
            let _ = writeln!(std::io::stderr(), "peerpigeon: {}: {problem}", Redacted(&shown));
            ExitCode::FAILURE
        }
    }
}

async fn ask(page: &Uri, is_own: bool, patience: Duration) -> Result<(StatusCode, String), ConnectError> {
    let is_tls = page.scheme_str() == Some("https");
    // The certificate of the hub on this machine is not verified: it is for the name that clients use, and this tool
    // connects to another name.
    let tls = is_tls
        .then(|| if is_own { Tls::without_proof() } else { Tls::new(None) })
        .transpose()
        .map_err(ConnectError::Tls)?;
    let (host, port) = (page.host().unwrap_or_default(), page.port_u16().unwrap_or(if is_tls { 443 } else { 80 }));
    let path = page.path_and_query().map_or("/", |path| path.as_str());
    let authority = page.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new());
    let request = request.map_err(ConnectError::Request)?;
    let host = host.trim_matches(['[', ']']);
    let exchange = async |tcp| {
        let stream = match &tls {
            None => MaybeTlsStream::Plain(tcp),
            Some(tls) => tls.connect(host, tcp).await.map_err(ConnectError::Tls)?,
        };
        exchange(stream, request.clone()).await
    };
    mesh::ask(host, port, patience, exchange).await
}

async fn exchange(
    stream: MaybeTlsStream,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, String), ConnectError> {
    let failed = |error: hyper::Error| ConnectError::Tcp(io::Error::other(error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| ConnectError::Tcp(io::Error::other(error)))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn page(said: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
        let command = <Args as clap::Args>::augment_args(Command::new("health").no_binary_name(true));
        let args = Args::from_arg_matches(&command.try_get_matches_from(said).unwrap()).unwrap();
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        let asked = args.question(&env);
        asked.map(|asked| asked.page.to_string()).map_err(|refusals| refusals[0].to_string())
    }

    #[test]
    fn the_request_goes_to_the_address_of_the_hub() {
        for (env, expected) in [
            (&[][..], "http://localhost:8080/readyz"),
            (&[("PORT", "9000")], "http://localhost:9000/readyz"),
            (&[("PORT", "9000\n"), ("ADMIN_PORT", "  ")], "http://localhost:9000/readyz"),
            (&[("PORT", "\t9000\r"), ("HOST", "127.0.0.1\r\n")], "http://127.0.0.1:9000/readyz"),
            (&[("PORT", "+9000"), ("HOST", "\n")], "http://localhost:9000/readyz"),
            (&[("ADMIN_PORT", "9001\n"), ("HOST", "::")], "http://localhost:9001/readyz"),
            (&[("HOST", "0.0.0.0")], "http://localhost:8080/readyz"),
            (&[("HOST", "::1")], "http://[::1]:8080/readyz"),
            (&[("HOST", "[::1]")], "http://[::1]:8080/readyz"),
            (&[("HOST", "LocalHost")], "http://LocalHost:8080/readyz"),
            (&[("HOST", "10.0.0.7")], "http://10.0.0.7:8080/readyz"),
            (&[("TLS_CERT", "a.pem")], "https://localhost:8080/readyz"),
            (&[("TLS_CERT", " "), ("TLS_PORTS", "PORT")], "http://localhost:8080/readyz"),
            (&[("TLS_CERT", "a.pem"), ("ADMIN_PORT", "9001")], "http://localhost:9001/readyz"),
            (
                &[("TLS_CERT", "a.pem"), ("TLS_PORTS", "admin_port"), ("ADMIN_PORT", "9001")],
                "https://localhost:9001/readyz",
            ),
        ] {
            assert_eq!(page(&[], env), Ok(expected.to_owned()), "{env:?}");
        }
        assert_eq!(page(&["--port", "1", "--host", "::1"], &[("PORT", "2")]), Ok("http://[::1]:1/readyz".to_owned()));
        assert_eq!(page(&["--url", "http://hub:1/livez"], &[("PORT", "x")]), Ok("http://hub:1/livez".to_owned()));
        assert!(url("https://hub").is_ok() && url("ftp://hub").is_err() && url("hub").is_err());
    }

    #[test]
    fn invalid_settings_have_the_same_errors_as_in_the_hub() {
        for (name, value) in
            [("PORT", "x"), ("ADMIN_PORT", "99999"), ("HOST", "http://a"), ("ADMIN_PORT", "tcp://10.0.0.1:1")]
        {
            let refusals = config::Config::from_pairs(&[(name, value)]).unwrap_err();
            assert_eq!(page(&[], &[(name, value)]), Err(refusals[0].to_string()), "{name}={value}");
        }
    }
}
