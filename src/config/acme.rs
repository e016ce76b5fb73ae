//! The settings of certificates that the hub orders itself (ACME, RFC 8555).

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Uri;
use proto::limits::MAX_TLS_PAIRS;
use tls::PairFiles;

use super::parse::{entries, shown_entry};
use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::settings;

/// The default of TLS_ACME_URL: the directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The settings of certificates from an ACME authority.
#[derive(Clone, Debug)]
pub struct AcmeSettings {
    /// TLS_ACME: the host names, in lower case. Each name gets its own certificate.
    pub names: Vec<String>,
    /// TLS_ACME_URL: the directory of the authority.
    pub url: Uri,
    /// Certificates (PEM) that are trusted for connections to the authority, in addition to the public roots.
    pub roots: Option<Arc<[u8]>>,
    /// TLS_ACME_EMAIL as a URL (`mailto:`).
    pub contact: Option<String>,
    /// The customer account to which the ACME account is bound. Some authorities require this.
    pub binding: Option<AcmeBinding>,
    /// The directory of this authority's account and certificates, in TLS_ACME_DIR.
    store: PathBuf,
}

/// An external account binding (RFC 8555, 7.3.4).
#[derive(Clone)]
pub struct AcmeBinding {
    /// TLS_ACME_EAB_KID.
    pub id: String,
    /// TLS_ACME_EAB_HMAC, decoded.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for AcmeBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcmeBinding").field("id", &self.id).finish_non_exhaustive()
    }
}

impl AcmeSettings {
    /// Reads TLS_ACME. TLS_ACME is read before all other settings, because it changes the defaults of HOST and PORT.
    pub(super) fn names(reader: &mut SettingsReader<'_>) -> Option<Vec<String>> {
        reader.text(&settings::TLS_ACME, || Ok(Vec::new()), names)
    }

    /// Reads the settings. Returns `Some(None)` if there are no names, and `None` if a setting is invalid.
    pub(super) fn read(reader: &mut SettingsReader<'_>, names: Option<Vec<String>>) -> Option<Option<Self>> {
        let is_used = names.as_ref().is_some_and(|names| !names.is_empty());
        let found = state_directory(&|name| reader.variable(name));
        let directory = reader.text(
            &settings::TLS_ACME_DIR,
            || match found {
                None if is_used => Err("name a directory that is kept over restarts: HOME is unset".to_owned()),
                found => Ok(found.unwrap_or_default()),
            },
            |text| Ok(PathBuf::from(text)),
        );
        if let Some(directory) = directory.as_ref().filter(|_| is_used) {
            reader.show_as(&settings::TLS_ACME_DIR, directory.display().to_string());
        }
        let url = reader.text(&settings::TLS_ACME_URL, || url(LETS_ENCRYPT), url);
        let roots = reader.text(&settings::TLS_ACME_CA, || Ok(None), |path| super::certificates(path).map(Some));
        let contact = reader.text(&settings::TLS_ACME_EMAIL, || Ok(None), |text| contact(text).map(Some));
        let id = reader.text(&settings::TLS_ACME_EAB_KID, || Ok(None), |text| Ok(Some(text.to_owned())));
        let key = reader.text(&settings::TLS_ACME_EAB_HMAC, || Ok(None), |text| hmac_key(text).map(Some));
        let binding = match (id?, key?) {
            (None, None) => None,
            (Some(id), Some(key)) => Some(AcmeBinding { id, key }),
            (id, _) => {
                let (lacking, other) = (&settings::TLS_ACME_EAB_KID, &settings::TLS_ACME_EAB_HMAC);
                let (lacking, other) = if id.is_some() { (other, lacking) } else { (lacking, other) };
                let problem = format!("it is unset, and {} is set: set both, or none", other.name);
                reader.refusals.push(SettingError::new(lacking, problem));
                return None;
            }
        };
        let (names, directory, url, roots, contact) = (names?, directory?, url?, roots?, contact?);
        // Each authority has its own account and certificates, so that a change of the authority takes effect.
        let store = directory.join(url.authority()?.as_str());
        Some(is_used.then_some(Self { names, url, roots, contact, binding, store }))
    }

    /// The file that contains the certificate of this name, its chain and its key.
    pub fn file(&self, name: &str) -> PathBuf {
        self.store.join(format!("{name}.pem"))
    }

    /// The file of the account's key.
    pub fn account(&self) -> PathBuf {
        self.store.join("account.json")
    }

    /// The file that the ordering hub locks.
    pub fn lock(&self) -> PathBuf {
        self.store.join("lock")
    }

    /// The files of all certificates, whether they exist or not.
    pub fn pairs(&self) -> Vec<PairFiles> {
        let pair = |file: PathBuf| PairFiles { certificate: file.clone(), key: file };
        self.names.iter().map(|name| pair(self.file(name))).collect()
    }

    /// Whether this is the file of a certificate that the hub orders.
    pub fn owns(&self, file: &Path) -> bool {
        file.parent() == Some(&self.store)
    }

    /// Creates the directory, and checks that files can be written there.
    ///
    /// # Errors
    ///
    /// Returns the error of TLS_ACME_DIR if the directory cannot be written.
    pub fn prepare(&self) -> Result<(), SettingError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.store);
        made.and_then(|()| File::create(self.lock())).map(drop).map_err(|error| {
            let store = self.store.display().to_string();
            let problem =
                format!("{} cannot be written ({error}): name a directory that the hub may write", quoted(&store));
            SettingError::new(&settings::TLS_ACME_DIR, problem)
        })
    }
}

/// The default of TLS_ACME_DIR, in the state directory that systemd sets for a service, or else in the user's state
/// directory.
fn state_directory(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    // systemd separates several directories by colons.
    let of_service = env("STATE_DIRECTORY").and_then(|all| all.split(':').next().map(PathBuf::from));
    let state = || env("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env("HOME").map(|home| Path::new(&home).join(".local/state"));
    let of_user = || state().or_else(home).map(|state| state.join("peerpigeon"));
    of_service.or_else(of_user).map(|directory| directory.join("acme"))
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (number, item) in entries(text) {
        let name = item.trim_end_matches('.').to_ascii_lowercase();
        if name.starts_with("*.") {
            return Err(format!(
                "{} is a wildcard, which TLS-ALPN-01 cannot prove: name each host, or use TLS_CERT",
                quoted(item)
            ));
        }
        if !is_host_name(&name) {
            return Err(format!(
                "{} is not a host name: use names such as hub.example.com, without scheme and port, separated by \
                 commas",
                shown_entry(text, number)
            ));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MAX_TLS_PAIRS {
        return Err(format!("{} names are too many: use {MAX_TLS_PAIRS} at most", names.len()));
    }
    Ok(names)
}

/// Whether the text is a DNS name, and not an address.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    // The last label of an IPv4 address is a number. No top-level domain is a number.
    let is_address = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(is_label) && !is_address
}

fn url(text: &str) -> Result<Uri, String> {
    let url = text.parse::<Uri>().ok().filter(|url| url.scheme_str() == Some("https") && url.host().is_some());
    url.ok_or_else(|| format!("{} is not the directory of an ACME server: use https://host[:port]/path", quoted(text)))
}

/// Decodes base64url, or base64, with or without padding. The errors do not contain the key.
fn hmac_key(text: &str) -> Result<Vec<u8>, String> {
    let plain = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let key = URL_SAFE_NO_PAD.decode(plain).ok().filter(|key| !key.is_empty());
    key.ok_or_else(|| "it is not a key in base64url: use it as the authority shows it".to_owned())
}

fn contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let is_address = address
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && is_host_name(&host.to_ascii_lowercase()));
    if !is_address || address.contains(|c: char| c.is_whitespace() || c == ',') {
        return Err(format!("{} is not an e-mail address: use one such as ops@example.com", quoted(text)));
    }
    Ok(format!("mailto:{address}"))
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn refusal(pairs: &[(&str, &str)]) -> String {
        let all = [&[("TLS_ACME_DIR", "/nowhere")], pairs].concat();
        let refusals = Config::from_pairs(&all).unwrap_err();
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        refusals[0].to_string()
    }

    #[test]
    fn with_tls_acme_the_hub_listens_at_443_on_every_address() {
        let config =
            Config::from_pairs(&[("TLS_ACME", "Hub.example.com., b.example,hub.example.com"), ("TLS_ACME_DIR", "/d")]);
        let config = config.unwrap();
        let acme = config.tls.as_ref().unwrap().acme.as_ref().unwrap();
        assert_eq!(acme.names, ["hub.example.com", "b.example"]);
        assert_eq!(acme.file("b.example").to_str(), Some("/d/acme-v02.api.letsencrypt.org/b.example.pem"));
        assert!(config.port == 443 && config.listen.iter().all(|at| at.ip().is_unspecified() && at.port() == 443));
        let other = [("TLS_ACME", "a.example"), ("TLS_ACME_DIR", "/d"), ("PORT", "8443"), ("HOST", "127.0.0.1")];
        let config = Config::from_pairs(&other).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:8443".parse().unwrap()]);
        let warned = config.warnings().into_iter().find(|warning| warning.contains("TLS_ACME")).unwrap();
        assert!(warned.contains("port 443") && warned.contains("8443"), "{warned}");
    }

    #[test]
    fn invalid_settings_are_named_with_a_remedy() {
        let said = |value| refusal(&[("TLS_ACME", value)]);
        for value in ["https://a.example", "a.example:443", "10.0.0.1", "::1", "-a.example", "a b", "ä.example", "a..b"]
        {
            let said = said(value);
            assert!(said.starts_with("TLS_ACME (--tls-acme): ") && said.contains("is not a host name"), "{said}");
        }
        assert!(said("*.example.com").contains("wildcard"), "{}", said("*.example.com"));
        let many: Vec<_> = (0..65).map(|n| format!("n{n}.example")).collect();
        assert!(said(&many.join(",")).contains("65 names are too many: use 64 at most"));
        let with = |name: &str, value: &str| refusal(&[("TLS_ACME", "a.example"), (name, value)]);
        assert!(with("TLS_ACME_URL", "http://ca/dir").starts_with("TLS_ACME_URL (--tls-acme-url): "));
        assert!(with("TLS_ACME_CA", "/nowhere.pem").starts_with("TLS_ACME_CA (--tls-acme-ca): "));
        for value in ["ops", "a b@c.example", "@c.example", "a@b.example,c@d.example"] {
            assert!(with("TLS_ACME_EMAIL", value).starts_with("TLS_ACME_EMAIL (--tls-acme-email): "), "{value}");
        }
        assert!(with("TLS_ACME_EAB_KID", "k").starts_with("TLS_ACME_EAB_HMAC (--tls-acme-eab-hmac): it is unset"));
        assert!(with("TLS_ACME_EAB_HMAC", "a2V5").starts_with("TLS_ACME_EAB_KID (--tls-acme-eab-kid): it is unset"));
        let key = with("TLS_ACME_EAB_HMAC", "no key!");
        assert!(key.contains("is not a key in base64url") && !key.contains("no key!"), "{key}");
        let refusals = Config::from_pairs(&[("TLS_ACME", "a.example")]).unwrap_err();
        assert!(refusals[0].to_string().starts_with("TLS_ACME_DIR (--tls-acme-dir): name a directory"), "{refusals:?}");
    }

    #[test]
    fn keys_of_authorities_are_read_in_any_notation_of_base64() {
        for text in ["-_8", "-_8=", "+/8", "+/8="] {
            assert_eq!(super::hmac_key(text), Ok(vec![0xfb, 0xff]), "{text}");
        }
        let pairs = [
            ("TLS_ACME", "a.example"),
            ("TLS_ACME_DIR", "/d"),
            ("TLS_ACME_EAB_KID", "k"),
            ("TLS_ACME_EAB_HMAC", "a2V5"),
        ];
        let config = Config::from_pairs(&pairs).unwrap();
        assert!(
            !config.describe().contains("a2V5") && !format!("{config:?}").contains("107, 101"),
            "the key must not be shown"
        );
    }

    #[test]
    fn the_default_directory_is_in_the_state_directory_of_the_service_or_the_user() {
        let at = |variables: &[(&str, &str)]| {
            let found = super::state_directory(&|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            });
            found.map(|path| path.display().to_string()).unwrap_or_default()
        };
        let all = [("STATE_DIRECTORY", "/var/lib/peerpigeon:/b"), ("XDG_STATE_HOME", "/state"), ("HOME", "/home/a")];
        assert_eq!(at(&all), "/var/lib/peerpigeon/acme");
        assert_eq!(at(&all[1..]), "/state/peerpigeon/acme");
        assert_eq!(at(&all[2..]), "/home/a/.local/state/peerpigeon/acme");
        assert_eq!(at(&[]), "");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_refused() {
        let config = Config::from_pairs(&[("TLS_ACME", "a.example"), ("TLS_ACME_DIR", "/dev/null/x")]).unwrap();
        let refused = config.tls.unwrap().acme.unwrap().prepare().unwrap_err().to_string();
        assert!(refused.starts_with("TLS_ACME_DIR (--tls-acme-dir): /dev/null/x/"), "{refused}");
    }
}
