//! The TLS settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use proto::limits::MAX_TLS_PAIRS;
use tls::{Certificates, FileRole, FileStamps, LoadError, PairFiles};

use super::acme::AcmeSettings;
use super::parse::entries;
use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::settings::Setting;
use super::{Token, settings};

/// The hub warns about certificates that expire within this number of days, at the start and whenever it reads them
/// again.
const SOON_DAYS: f64 = 14.0;

/// The TLS settings of a hub.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Paths of the certificates and keys (TLS_CERT and TLS_KEY).
    pub files: Vec<PairFiles>,
    /// The settings of certificates that the hub orders; `None` without TLS_ACME.
    pub acme: Option<AcmeSettings>,
    /// The certificates and keys in `files`, and the certificates and keys that the hub has ordered.
    pub certificates: Arc<Certificates>,
    /// The state of the certificate files before they were read.
    pub stamps: FileStamps,
    /// The ports that use TLS.
    pub ports: PortNames,
    /// The secret from which ticket keys are derived (TLS_TICKET_KEY), if it is set.
    pub ticket_key: Option<Token>,
}

/// The ports that TLS_PORTS or PROXY_PROTOCOL names.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortNames {
    /// PORT.
    pub peers: bool,
    /// ADMIN_PORT.
    pub admin: bool,
    /// MESH_PORT.
    pub links: bool,
}

impl TlsSettings {
    /// Reads the settings. Returns `Some(None)` without TLS, and `None` if a setting is invalid.
    pub(super) fn read(reader: &mut SettingsReader<'_>, names: Option<Vec<String>>) -> Option<Option<Self>> {
        let certificates = reader.text(&settings::TLS_CERT, || Ok(Vec::new()), files);
        let keys = reader.text(&settings::TLS_KEY, || Ok(Vec::new()), files);
        let ports = reader.text(&settings::TLS_PORTS, || Ok(PortNames { peers: true, ..PortNames::default() }), ports);
        let ticket_key = reader.text(&settings::TLS_TICKET_KEY, || Ok(None), |text| ticket_key(text).map(Some));
        let acme = AcmeSettings::read(reader, names);
        let (certificates, keys, ports, ticket_key, acme) = (certificates?, keys?, ports?, ticket_key?, acme?);
        if certificates.is_empty() && keys.is_empty() && acme.is_none() {
            return Some(None);
        }
        if certificates.len() != keys.len() {
            let (setting, problem) = lacking(certificates.len(), keys.len());
            reader.refusals.push(SettingError::new(setting, problem));
            return None;
        }
        let files: Vec<_> =
            certificates.into_iter().zip(keys).map(|(certificate, key)| PairFiles { certificate, key }).collect();
        let sources = CertificateSources { files, ordered: acme.as_ref().map(AcmeSettings::pairs).unwrap_or_default() };
        match sources.load() {
            Ok((stamps, certificates)) => {
                let CertificateSources { files, .. } = sources;
                Some(Some(Self { files, acme, certificates: Arc::new(certificates), stamps, ports, ticket_key }))
            }
            Err(error) => {
                reader.refusals.push(refusal(&error));
                None
            }
        }
    }

    /// The files of all certificates.
    pub fn sources(&self) -> CertificateSources {
        let ordered = self.acme.as_ref().map(AcmeSettings::pairs).unwrap_or_default();
        CertificateSources { files: self.files.clone(), ordered }
    }

    /// Warnings for the operator at the start.
    pub(super) fn warnings(&self, now: SystemTime, port: u16) -> Vec<String> {
        // Ordered certificates cause no warning, because the hub renews them, and a metric shows failures.
        let is_ordered = |file: &Path| self.acme.as_ref().is_some_and(|acme| acme.owns(file));
        let own = self.certificates.facts().iter().filter(|facts| !is_ordered(&facts.file));
        let mut warnings: Vec<_> =
            own.filter_map(|facts| expiry_warning(settings::TLS_CERT.name, facts, now)).collect();
        if self.acme.is_some() && port != 443 {
            warnings.push(format!(
                "TLS_ACME: the authority connects to port 443 of each name, but PORT is {port}: forward port 443 to \
                 port {port}"
            ));
        }
        if self.acme.is_some() && !self.ports.peers {
            warnings.push(
                "TLS_ACME: PORT does not speak TLS, so the authority cannot verify a name there: add it to TLS_PORTS"
                    .into(),
            );
        }
        warnings
    }
}

/// The files of a hub's certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateSources {
    /// Files that must be valid: TLS_CERT and TLS_KEY.
    files: Vec<PairFiles>,
    /// The files of certificates that the hub orders itself. These files may be missing or invalid.
    ordered: Vec<PairFiles>,
}

impl CertificateSources {
    /// The current state of the certificate files.
    pub fn stamps(&self) -> FileStamps {
        FileStamps::of(&[&self.files[..], &self.ordered].concat())
    }

    /// Loads the certificates. Also returns the state of the certificate files before the load.
    ///
    /// # Errors
    ///
    /// The first invalid file of TLS_CERT or TLS_KEY.
    pub fn load(&self) -> Result<(FileStamps, Certificates), LoadError> {
        // The state is read before the files, so that the next check finds a change during the read.
        let stamps = self.stamps();
        let is_valid = |pair: &&PairFiles| Certificates::load(std::slice::from_ref(*pair)).is_ok();
        let ordered: Vec<_> = self.ordered.iter().filter(is_valid).cloned().collect();
        Ok((stamps, Certificates::load(&[&self.files[..], &ordered].concat())?))
    }
}

/// A warning if a certificate has expired or expires soon. `setting` is the name of its setting.
pub fn expiry_warning(setting: &str, facts: &tls::CertificateFacts, now: SystemTime) -> Option<String> {
    let days = facts.seconds_left(now) / 86_400.0;
    let file = facts.file.display();
    if days < 0.0 {
        let clients = if setting == settings::MESH_CERT.name { "other hubs" } else { "clients" };
        return Some(format!(
            "{setting}: the certificate in {file} expired {:.0} days ago: {clients} refuse it",
            -days
        ));
    }
    (days < SOON_DAYS).then(|| format!("{setting}: the certificate in {file} expires in {days:.0} days"))
}

/// Returns the setting (TLS_CERT or TLS_KEY) that names fewer files, and the error.
fn lacking(certificates: usize, keys: usize) -> (&'static Setting, String) {
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let setting = if certificates < keys { &settings::TLS_CERT } else { &settings::TLS_KEY };
    let problem = format!(
        "there are {} and {}: name one file of each, in the same order",
        counted(certificates, "certificate"),
        counted(keys, "key")
    );
    (setting, problem)
}

fn refusal(error: &LoadError) -> SettingError {
    let setting = match error.role {
        FileRole::Certificate => &settings::TLS_CERT,
        FileRole::Key => &settings::TLS_KEY,
    };
    let file = error.file.display().to_string();
    SettingError::new(setting, format!("{} {}", quoted(&file), error.problem))
}

fn files(text: &str) -> Result<Vec<PathBuf>, String> {
    let files: Vec<_> = entries(text).map(|(_, file)| PathBuf::from(file)).collect();
    if files.len() > MAX_TLS_PAIRS {
        return Err(format!("{} files are too many: use {MAX_TLS_PAIRS} at most", files.len()));
    }
    Ok(files)
}

pub(super) fn ports(text: &str) -> Result<PortNames, String> {
    let mut ports = PortNames::default();
    for (_, port) in entries(text) {
        match port.to_ascii_uppercase().as_str() {
            "PORT" => ports.peers = true,
            "ADMIN_PORT" => ports.admin = true,
            "MESH_PORT" => ports.links = true,
            _ => {
                return Err(format!(
                    "{} is not the name of a port: use PORT, ADMIN_PORT or MESH_PORT, separated by commas",
                    quoted(port)
                ));
            }
        }
    }
    Ok(ports)
}

fn ticket_key(text: &str) -> Result<Token, String> {
    const SHORTEST: usize = 32;
    let token = super::parse::token(text)?;
    if token.expose().len() < SHORTEST {
        return Err(format!(
            "the secret is too short: use {SHORTEST} characters or more, for example from `openssl rand -hex 32`"
        ));
    }
    Ok(token)
}

#[cfg(test)]
mod tests;
