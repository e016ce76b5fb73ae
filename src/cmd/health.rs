//! The command `peerpigeon health` checks whether a hub is ready, for containers without other tools. Without `--url`,
//! a full hub counts as healthy, too.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Uri};
use ipnet::IpNet;
use mesh::{ConnectError, Tls};
use proto::Redacted;

use super::http::{ask, url};
use crate::config::{self, ListenFlags, Place, SettingError};
use crate::pages::FULL;

/// Maximum time for an answer. The health check in the Dockerfile has a longer timeout, 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Check whether a hub is ready; exits with 0 if it is ready or, without --url, full
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Page to request: /readyz (the hub accepts new peers) or /livez (the hub runs) [default: /readyz at
    /// ADMIN_HOST and ADMIN_PORT, or HOST and PORT if those are unset]
    #[arg(long, value_name = "URL", value_parser = url)]
    pub url: Option<Uri>,

    /// Address of the hub.
    #[command(flatten)]
    pub place: ListenFlags,
}

/// The page to request, and how to request it.
#[derive(Debug)]
pub struct Question {
    page: Uri,
    /// Whether the request goes to the hub on this machine, whose address comes from its settings.
    is_own: bool,
    /// Whether a full hub counts as healthy. A container runtime replaces an unhealthy hub, and all peers of the hub
    /// would lose their connections.
    full_is_well: bool,
    /// Addresses from which the hub expects the header of the PROXY protocol.
    proxies: Vec<IpNet>,
}

impl Args {
    /// The request for these flags and variables. `env` returns a variable by its name.
    ///
    /// # Errors
    ///
    /// The same errors that a hub reports for these settings.
    pub fn question(self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Question, Vec<SettingError>> {
        if let Some(page) = self.url {
            return Ok(Question { page, is_own: false, full_is_well: false, proxies: Vec::new() });
        }
        let Place { host, port, speaks_tls, proxies } = config::place(&self.place, env)?;
        let scheme = if speaks_tls { "https" } else { "http" };
        let page =
            url(&format!("{scheme}://{host}:{port}/readyz")).map_err(|problem| vec![SettingError::of_host(problem)])?;
        Ok(Question { page, is_own: true, full_is_well: true, proxies })
    }
}

/// Sends the request, and prints the answer.
pub async fn run(question: Question) -> ExitCode {
    let Question { page, is_own, full_is_well, proxies } = question;
    let shown = page.to_string();
    // The certificate of the hub on this machine is not verified, because the certificate is for the name that clients
    // use, and not for `localhost`.
    let tls = || if is_own { Tls::without_proof() } else { Tls::new(None) };
    let path = page.path_and_query().map_or("/", |path| path.as_str());
    let asked = ask(&page, Request::get(path), Bytes::new(), tls, &proxies, PATIENCE).await;
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
            (&[("ADMIN_HOST", "10.0.0.8"), ("ADMIN_PORT", "9001")], "http://10.0.0.8:9001/readyz"),
            (&[("ADMIN_HOST", "10.0.0.8")], "http://localhost:8080/readyz"),
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
