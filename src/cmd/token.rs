//! The command `peerpigeon token` makes tokens (JWT) for peers, and checks them as a hub would.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::builder::NonEmptyStringValueParser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh::Tls;
use proto::limits::MAX_TOKEN_BYTES;
use proto::{PeerId, Rights};
use serde_json::{Map, Value, json};
use shard::Tokens;

use super::duration;
use crate::config::{SettingError, TokenSettings};
use crate::token_keys;

/// Make tokens (JWT) for peers, or check them
#[derive(clap::Subcommand, Debug)]
pub enum Asked {
    /// Make a token, signed with the first secret of JWT_SECRET or with a private key, and print it
    Mint(Box<Mint>),
    /// Check a token with the keys of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS, as a hub would; exits with 0 if it is
    /// valid
    Check(Check),
}

/// Make a token, signed with the first secret of JWT_SECRET or with a private key, and print it
#[derive(clap::Args, Debug)]
pub struct Mint {
    /// Id of the peer (sub): the only id that it may use; its newest connection replaces an older one at once
    #[arg(long, value_name = "ID")]
    pub peer: Option<PeerId>,

    /// Name of the user (sub), any text: the hub makes the id of the peer from it
    #[arg(long, value_name = "TEXT", conflicts_with = "peer", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,

    /// Network that the peer may join, or `prefix*`; `=` and a list of join, observe and signal limit its rights there;
    /// can be given several times [default: every network]
    #[arg(long = "network", value_name = "NAME[=RIGHTS]", value_parser = rule)]
    pub networks: Vec<Value>,

    /// Time until the token expires, such as 10m or 12h; 0 means never
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    pub expires_in: Duration,

    /// Time after which the token becomes valid
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub valid_in: Option<Duration>,

    /// Quota class
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,

    /// Audience (aud) [default: the first of JWT_AUDIENCE]
    #[arg(long, value_name = "NAME")]
    pub audience: Option<String>,

    /// Issuer (iss) [default: the first of JWT_ISSUER]
    #[arg(long, value_name = "NAME")]
    pub issuer: Option<String>,

    /// File with a private key (PEM): RSA for RS256, P-256 for ES256, Ed25519 for EdDSA
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Name of the key (kid)
    #[arg(long, value_name = "NAME")]
    pub kid: Option<String>,

    /// Algorithm of a secret
    #[arg(long, value_name = "NAME", default_value = "HS256", value_parser = ["HS256", "HS384", "HS512"])]
    pub algorithm: String,
}

/// Check a token with the keys of JWT_SECRET, JWT_PUBLIC_KEY and JWT_JWKS, as a hub would; exits with 0 if it is valid
#[derive(clap::Args, Debug)]
pub struct Check {
    /// The token; `-` reads it from standard input, where no other user sees it
    #[arg(default_value = "-", hide_default_value = true)]
    pub token: String,
}

/// The task, with the token settings from the environment.
#[derive(Debug)]
pub struct Question {
    asked: Asked,
    settings: Option<TokenSettings>,
}

impl Asked {
    /// The task for these arguments and variables. `env` returns a variable by its name.
    ///
    /// # Errors
    ///
    /// The same errors that a hub reports for these settings.
    pub fn question(self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Question, Vec<SettingError>> {
        Ok(Question { asked: self, settings: TokenSettings::alone(env)? })
    }
}

/// An entry of the claim `networks`.
fn rule(text: &str) -> Result<Value, String> {
    let Some((name, rights)) = text.rsplit_once('=') else { return Ok(json!(text)) };
    let rights: Vec<_> = rights.split(',').map(str::trim).filter(|right| !right.is_empty()).collect();
    if Rights::from_names(rights.iter().copied()).is_none() {
        return Err(format!("unknown rights: use {}, separated by commas", Rights::NAMES.join(", ")));
    }
    Ok(json!({ "name": name, "rights": rights }))
}

/// Makes or checks a token, and prints the result.
pub async fn run(question: Question) -> ExitCode {
    let Question { asked, settings } = question;
    let done = match &asked {
        Asked::Mint(mint) => mint.token(settings.as_ref(), SystemTime::now()),
        Asked::Check(check) => check.run(settings).await,
    };
    match done {
        Ok(text) => match writeln!(io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(problem) => {
            // If stderr is closed, only the exit code shows the failure.
            _ = writeln!(io::stderr(), "peerpigeon token: {problem}");
            ExitCode::FAILURE
        }
    }
}

impl Mint {
    /// Makes the token.
    fn token(&self, settings: Option<&TokenSettings>, now: SystemTime) -> Result<String, String> {
        let (algorithm, key) = self.signer(settings)?;
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let rules = settings.map(|settings| &settings.rules);
        let first = |given: &Option<String>, set: Option<&Vec<String>>| {
            given.clone().or_else(|| set.and_then(|names| names.first().cloned())).map(Value::from)
        };
        let expires = (!self.expires_in.is_zero()).then(|| json!(seconds + self.expires_in.as_secs()));
        let claims = [
            (
                "sub",
                self.peer.map(|peer| json!(peer.to_string())).or_else(|| self.user.as_ref().map(|user| json!(user))),
            ),
            ("iss", first(&self.issuer, rules.map(|rules| &rules.issuers))),
            ("aud", first(&self.audience, rules.map(|rules| &rules.audiences))),
            ("iat", Some(json!(seconds))),
            ("nbf", self.valid_in.map(|wait| json!(seconds + wait.as_secs()))),
            ("exp", expires),
            ("networks", (!self.networks.is_empty()).then(|| json!(self.networks))),
            ("class", self.class.clone().map(Value::from)),
        ];
        let claims: Map<String, Value> =
            claims.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        let header = Header { kid: self.kid.clone(), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, &key).map_err(|error| format!("the token cannot be signed: {error}"))
    }

    fn signer(&self, settings: Option<&TokenSettings>) -> Result<(Algorithm, EncodingKey), String> {
        let Some(path) = &self.key else {
            let secret = settings.and_then(|settings| settings.secret.as_ref());
            let secret = secret.ok_or("there is no key: set JWT_SECRET, or name a private key with --key")?;
            let algorithm = match self.algorithm.as_str() {
                "HS512" => Algorithm::HS512,
                "HS384" => Algorithm::HS384,
                _ => Algorithm::HS256,
            };
            let key = EncodingKey::from_secret(secret.expose().as_bytes()).map_err(|error| error.to_string())?;
            return Ok((algorithm, key));
        };
        let pem = std::fs::read(path).map_err(|error| {
            format!("{} cannot be read ({error}): name a file with a private key in PEM", path.display())
        })?;
        EncodingKey::from_ed_pem(&pem)
            .map(|key| (Algorithm::EdDSA, key))
            .or_else(|_| EncodingKey::from_ec_pem(&pem).map(|key| (Algorithm::ES256, key)))
            .or_else(|_| EncodingKey::from_rsa_pem(&pem).map(|key| (Algorithm::RS256, key)))
            .map_err(|_| {
                format!("{} has no private key of RSA, P-256 or Ed25519: use one in PEM (PKCS #8)", path.display())
            })
    }
}

impl Check {
    /// Checks the token. Returns a text that describes what the token allows.
    async fn run(&self, settings: Option<TokenSettings>) -> Result<String, String> {
        let settings = settings.ok_or("there is no key: set JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS")?;
        let token = if self.token == "-" {
            let mut text = String::new();
            let mut most = io::stdin().take(MAX_TOKEN_BYTES as u64 + 64);
            most.read_to_string(&mut text).map_err(|error| format!("the token cannot be read: {error}"))?;
            text.trim().to_owned()
        } else {
            self.token.clone()
        };
        let mut keys = settings.keys;
        if let Some(url) = &settings.url {
            let tls = Tls::new(settings.roots.as_deref()).map_err(|error| error.to_string())?;
            let fetched = Box::pin(token_keys::fetch(&tls, url)).await.map_err(|error| format!("{url}: {error}"))?;
            keys.extend(fetched);
        }
        let tokens = Tokens::new(settings.rules, keys);
        tokens.keep(settings.url.as_ref().map(|_| Instant::now()));
        let allowed =
            tokens.check(&token, SystemTime::now()).map_err(|no| format!("{}: {}", no.label(), no.explain()))?;
        let peer = allowed.peer.map_or_else(|| "any".to_owned(), |peer| peer.to_string());
        let expires = allowed.grant.expires_ms().map(|at| UNIX_EPOCH + Duration::from_millis(at));
        let expires =
            expires.map_or_else(|| "never".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string());
        let class = allowed.grant.class().unwrap_or("none");
        Ok(format!("valid\npeer: {peer}\nexpires: {expires}\nclass: {class}\nnetworks: {}", allowed.grant))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn settings() -> TokenSettings {
        let env = |name: &str| match name {
            "JWT_SECRET" => Some("0123456789abcdef0123456789abcdef".into()),
            "JWT_AUDIENCE" => Some("hub".into()),
            _ => None,
        };
        TokenSettings::alone(&env).unwrap().unwrap()
    }

    fn mint(args: &[&str]) -> Mint {
        let command = Mint::augment_args(Command::new("mint").no_binary_name(true));
        Mint::from_arg_matches(&command.try_get_matches_from(args).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_minted_token_is_valid_and_contains_its_arguments() {
        let peer = "a".repeat(40);
        let args =
            ["--peer", &peer, "--network", "room-*=join", "--network", "n", "--class", "gold", "--expires-in", "2h"];
        for algorithm in ["HS256", "HS384", "HS512"] {
            let mint = mint(&[&args[..], &["--algorithm", algorithm]].concat());
            let token = mint.token(Some(&settings()), SystemTime::now()).unwrap();
            let text = Check { token }.run(Some(settings())).await.unwrap();
            for part in ["valid\n", &format!("peer: {peer}\n"), "class: gold\n", "networks: room-*=join n=join,signal"]
            {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_token_for_a_user_has_the_id_that_a_hub_makes_from_the_name() {
        let token = mint(&["--user", "Zoë Müller"]).token(Some(&settings()), SystemTime::now()).unwrap();
        let text = Check { token }.run(Some(settings())).await.unwrap();
        let peer = PeerId::of_subject("Zoë Müller");
        assert!(text.contains(&format!("peer: {peer}\n")), "{text}");
        let command = Mint::augment_args(Command::new("mint").no_binary_name(true));
        for wrong in [&["--user", ""][..], &["--user", "a", "--peer", &"a".repeat(40)]] {
            assert!(command.clone().try_get_matches_from(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn an_expired_token_is_refused_with_its_reason() {
        let minted = mint(&["--expires-in", "1s"]);
        let token = minted.token(Some(&settings()), SystemTime::now() - Duration::from_secs(60)).unwrap();
        let refused = Check { token }.run(Some(settings())).await.unwrap_err();
        assert!(refused.starts_with("expired: "), "{refused}");
        assert!(minted.token(None, SystemTime::now()).unwrap_err().contains("JWT_SECRET"));
        assert!(rule("n=jump").is_err());
    }
}
