//! `peerpigeon health`: asks a hub whether it takes peers, for a container that has no other tool to ask with.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use proto::Redacted;

use crate::config::{self, Place, Refusal};
use crate::pages::FULL;

/// How long a hub may take to answer: shorter than an orchestrator's patience, which is 5 s as a rule.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longest answer that is shown, in bytes. `/metrics` of a hub with 16 shards is 100 KiB, `/hubstats` in a mesh of 100 hubs 50 KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Ask a hub whether it is ready; exits with 0 if it says so
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Page to ask for: /readyz is whether it takes new peers, /livez whether it lives [default: /readyz where HOST and
    /// ADMIN_PORT, or else PORT, say that the hub listens]
    #[arg(long, value_name = "URL", value_parser = url)]
    pub url: Option<Uri>,

    /// Where the hub listens
    #[arg(long, env = "HOST", hide_env_values = true, default_value = "localhost")]
    pub host: String,

    /// At which port
    #[arg(long, env = "PORT", hide_env_values = true, default_value = "8080", value_parser = port)]
    pub port: Port,

    /// At which port operators ask it, if there is one: it still answers there while the hub drains
    #[arg(long, env = "ADMIN_PORT", hide_env_values = true, default_value = "", hide_default_value = true, value_parser = port)]
    pub admin_port: Port,
}

/// A port, if one was said: an empty variable counts as unset here as it does for the hub.
pub type Port = Option<u16>;

fn port(text: &str) -> Result<Port, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "not a port: 0 to 65535".to_owned())
}

fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme_str() == Some("http") && url.host().is_some() {
        Ok(url)
    } else {
        Err("takes http://host[:port]/path".to_owned())
    }
}

impl Args {
    /// What is asked for.
    fn page(&self) -> Result<Uri, String> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        // What listens at every address is asked at this machine's own.
        let host = match self.host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => "localhost".to_owned(),
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            Ok(IpAddr::V4(_)) | Err(_) => self.host.clone(),
        };
        url(&format!("http://{host}:{}/readyz", self.admin_port.or(self.port).unwrap_or(8080)))
    }
}

/// Asks, and says what was answered.
pub async fn run(args: Args) -> ExitCode {
    let asked = match args.page() {
        Ok(page) => tokio::time::timeout(PATIENCE, ask(&page))
            .await
            .unwrap_or_else(|_| Err(format!("{page} has not answered within {} s", PATIENCE.as_secs()))),
        Err(problem) => Err(problem),
    };
    match asked {
        Ok((status, text)) => {
            let _ = writeln!(std::io::stdout(), "{}", text.trim());
            if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "peerpigeon: {}: {problem}", Redacted(&shown));
            ExitCode::FAILURE
        }
    }
}

async fn ask(page: &Uri) -> Result<(StatusCode, String), String> {
    let failed = |what: &dyn std::fmt::Display| format!("{page}: {what}");
    let (host, port) = (page.host().unwrap_or_default(), page.port_u16().unwrap_or(80));
    let stream = mesh::connect(host.trim_matches(['[', ']']), port).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let path = page.path_and_query().map_or("/", |path| path.as_str());
    let authority = page.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| failed(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(host: &str, url: Option<&str>) -> String {
        page_at(host, url, None)
    }

    fn page_at(host: &str, url: Option<&str>, admin_port: Option<u16>) -> String {
        Args { url: url.map(|url| super::url(url).unwrap()), host: host.to_owned(), port: Some(9000), admin_port }
            .page()
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_hub_is_asked_where_it_listens() {
        assert_eq!(page("localhost", None), "http://localhost:9000/readyz");
        assert_eq!(page("0.0.0.0", None), "http://localhost:9000/readyz");
        assert_eq!(page("::", None), "http://localhost:9000/readyz");
        assert_eq!(page("::1", None), "http://[::1]:9000/readyz");
        assert_eq!(page("10.0.0.7", None), "http://10.0.0.7:9000/readyz");
        assert_eq!(page("10.0.0.7", Some("http://hub:1/livez")), "http://hub:1/livez");
        assert_eq!(page_at("::", None, Some(9001)), "http://localhost:9001/readyz");
        assert_eq!((port(""), port("81")), (Ok(None), Ok(Some(81))));
        assert!(port("x").is_err());
        assert!(url("https://hub").is_err() && url("hub").is_err());
    }
}
