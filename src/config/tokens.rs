//! The settings of tokens that an identity provider signs (JWT).

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use proto::limits::{MAX_JWKS_BYTES, MAX_TOKEN_KEYS};
use shard::{TokenKey, TokenRules};

use super::Token;
use super::parse::entries;
use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::settings::{self, Flags, Setting};

/// Prefix of a secret that is the content of a file.
const FILE: &str = "file:";

/// The settings of tokens. At least one source of keys is set.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// The requirements for the claims of a token.
    pub rules: TokenRules,
    /// The sources of the keys.
    pub sources: TokenSources,
    /// The URL of the set of keys, if JWT_JWKS is a URL.
    pub url: Option<Uri>,
    /// JWT_CA.
    pub roots: Option<Arc<[u8]>>,
    /// The keys that the hub read from files and settings at the start.
    pub keys: Vec<TokenKey>,
    /// The first secret of JWT_SECRET, for a tool that makes tokens.
    pub secret: Option<Token>,
}

/// The sources of keys on this machine.
#[derive(Clone, Debug, Default)]
pub struct TokenSources {
    secrets: Vec<Source>,
    public_keys: Vec<Source>,
    jwks: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Source {
    Text(Token),
    File(PathBuf),
}

impl Source {
    fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.expose().as_bytes().to_vec()),
            Self::File(path) => read(path),
        }
    }
}

impl TokenSources {
    /// Reads all keys. A slow file system can delay this function.
    ///
    /// # Errors
    ///
    /// The setting of the first invalid source, and what is wrong.
    pub fn load(&self) -> Result<Vec<TokenKey>, (&'static str, String)> {
        let mut keys = Vec::new();
        let of = |setting: &'static Setting, problem: String| (setting.name, problem);
        for source in &self.secrets {
            let secret = source.read().map_err(|problem| of(&settings::JWT_SECRET, problem))?;
            let key = TokenKey::of_secret(secret.trim_ascii());
            keys.push(key.map_err(|problem| of(&settings::JWT_SECRET, problem.to_string()))?);
        }
        for source in &self.public_keys {
            let pem = source.read().and_then(|pem| {
                String::from_utf8(pem).map_err(|_| "it is not PEM: use a text with a public key".to_owned())
            });
            let pem = pem.map_err(|problem| of(&settings::JWT_PUBLIC_KEY, problem))?;
            keys.extend(TokenKey::all_of_pem(&pem).map_err(|no| of(&settings::JWT_PUBLIC_KEY, no.to_string()))?);
        }
        if let Some(path) = &self.jwks {
            let set = read(path).map_err(|problem| of(&settings::JWT_JWKS, problem))?;
            keys.extend(TokenKey::all_of_jwks(&set).map_err(|no| of(&settings::JWT_JWKS, no.to_string()))?);
        }
        Ok(keys)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = quoted(&path.display().to_string());
    let read = fs::metadata(path).and_then(|facts| {
        if facts.len() > MAX_JWKS_BYTES as u64 {
            return Err(std::io::Error::other("it is longer than 256 KiB"));
        }
        fs::read(path)
    });
    read.map_err(|error| format!("{shown} cannot be read ({error}): name a file that the hub may read"))
}

impl TokenSettings {
    /// Reads the settings. Returns `Some(None)` if there is no key, and `None` if a setting is invalid.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Option<Self>> {
        let secrets = reader.aliased(&settings::JWT_SECRET, &["JWT_SECRETS"], || Ok(Vec::new()), secrets);
        let public_keys =
            reader.aliased(&settings::JWT_PUBLIC_KEY, &["JWT_PUBLIC_KEYS"], || Ok(Vec::new()), public_keys);
        let jwks = reader.text(&settings::JWT_JWKS, || Ok(None), |text| jwks(text).map(Some));
        let roots = reader.text(&settings::JWT_CA, || Ok(None), |path| super::certificates(path).map(Some));
        let audiences = reader.text(&settings::JWT_AUDIENCE, || Ok(Vec::new()), names);
        let issuers = reader.text(&settings::JWT_ISSUER, || Ok(Vec::new()), names);
        let (secrets, public_keys, jwks, roots) = (secrets?, public_keys?, jwks?, roots?);
        let rules = TokenRules { audiences: audiences?, issuers: issuers? };
        if public_keys.iter().any(|source| matches!(source, Source::Text(_))) {
            reader.show_as(&settings::JWT_PUBLIC_KEY, super::TOKEN_IS_SET.to_owned());
        }
        if secrets.is_empty() && public_keys.is_empty() && jwks.is_none() {
            return Some(None);
        }
        let (url, file) = match jwks {
            Some(Jwks::Url(url)) => (Some(url), None),
            Some(Jwks::File(path)) => (None, Some(path)),
            None => (None, None),
        };
        let sources = TokenSources { secrets, public_keys, jwks: file };
        match sources.load() {
            Ok(keys) => {
                let secret = sources.secrets.first().and_then(|secret| secret.read().ok());
                let secret = secret.and_then(|secret| String::from_utf8(secret.trim_ascii().to_vec()).ok()).map(Token);
                Some(Some(Self { rules, sources, url, roots, keys, secret }))
            }
            Err((name, problem)) => {
                let setting = [&settings::JWT_SECRET, &settings::JWT_PUBLIC_KEY, &settings::JWT_JWKS];
                let setting = setting.into_iter().find(|setting| setting.name == name).unwrap_or(&settings::JWT_SECRET);
                reader.refusals.push(SettingError::new(setting, problem));
                None
            }
        }
    }

    /// The settings of tokens alone, for tools. `None` if no key is set.
    ///
    /// # Errors
    ///
    /// The same errors that a hub reports for these settings.
    pub fn alone(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Vec<SettingError>> {
        let flags = Flags::default();
        let mut reader = SettingsReader::new(&flags, env);
        match Self::read(&mut reader) {
            Some(settings) if reader.refusals.is_empty() => Ok(settings),
            _ => Err(reader.refusals),
        }
    }

    /// Settings that have no effect without a key.
    pub(super) fn idle() -> [&'static Setting; 3] {
        [&settings::JWT_CA, &settings::JWT_AUDIENCE, &settings::JWT_ISSUER]
    }
}

/// JWT_JWKS.
enum Jwks {
    Url(Uri),
    File(PathBuf),
}

fn at_most<T>(found: Vec<T>, what: &str) -> Result<Vec<T>, String> {
    if found.len() > MAX_TOKEN_KEYS {
        return Err(format!("{} {what} are too many: use {MAX_TOKEN_KEYS} at most", found.len()));
    }
    Ok(found)
}

/// Parses secrets, which are separated by commas. No error shows a secret.
fn secrets(text: &str) -> Result<Vec<Source>, String> {
    let source = |(_, item): (usize, &str)| match item.strip_prefix(FILE) {
        Some(path) => Ok(Source::File(path.into())),
        None => super::parse::token(item).map(Source::Text),
    };
    at_most(entries(text).map(source).collect::<Result<_, _>>()?, "secrets")
}

/// Parses public keys: PEM text, or paths of files separated by commas. In PEM text, the two characters `\n` mean the
/// end of a line, because a value in an env file cannot contain line ends.
fn public_keys(text: &str) -> Result<Vec<Source>, String> {
    if text.contains("-----BEGIN") {
        return Ok(vec![Source::Text(Token(text.replace("\\n", "\n")))]);
    }
    at_most(entries(text).map(|(_, path)| Source::File(path.into())).collect(), "files")
}

fn jwks(text: &str) -> Result<Jwks, String> {
    let problem = || format!("{} is not a file or an https:// URL: use one of them", quoted(text));
    if !text.contains("://") {
        return Ok(Jwks::File(text.into()));
    }
    let url: Uri = text.parse().map_err(|_| problem())?;
    let is_https = url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty());
    // The URL must not contain a user name or password, because logs and errors show the URL.
    if is_https && !text.contains('@') { Ok(Jwks::Url(url)) } else { Err(problem()) }
}

/// Parses names, which are separated by commas.
fn names(text: &str) -> Result<Vec<String>, String> {
    at_most(entries(text).map(|(_, name)| name.to_owned()).collect(), "names")
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn several_secrets_are_separated_by_commas_and_never_printed() {
        let both = format!("{SECRET}, {SECRET}2");
        for name in ["JWT_SECRET", "JWT_SECRETS"] {
            let config = Config::from_pairs(&[(name, &both)]).unwrap();
            assert_eq!(config.tokens.as_ref().unwrap().keys.len(), 2);
            assert!(!format!("{config:?} {}", config.describe()).contains(SECRET));
        }
        let refused = Config::from_pairs(&[("JWT_SECRET", &format!("{SECRET},short"))]).unwrap_err();
        let text = refused[0].to_string();
        assert!(text.contains("too short") && !text.contains("short,") && !text.contains(SECRET), "{text}");
    }

    #[test]
    fn settings_without_a_key_have_no_effect_and_cause_a_warning() {
        let config = Config::from_pairs(&[("JWT_AUDIENCE", "a")]).unwrap();
        assert!(config.tokens.is_none());
        assert!(config.warnings().iter().any(|text| text.starts_with("JWT_AUDIENCE has no effect")));
    }

    #[test]
    fn a_set_of_keys_is_a_file_or_an_https_url() {
        let config = Config::from_pairs(&[("JWT_JWKS", "https://id.example/keys")]).unwrap();
        assert_eq!(config.tokens.unwrap().url.unwrap().to_string(), "https://id.example/keys");
        for wrong in ["http://id.example/keys", "https://", "https://user:secret@id.example/", "/no/such/file"] {
            let refused = Config::from_pairs(&[("JWT_JWKS", wrong)]).unwrap_err();
            assert!(refused[0].to_string().starts_with("JWT_JWKS (--jwt-jwks): "), "{refused:?}");
        }
    }
}
