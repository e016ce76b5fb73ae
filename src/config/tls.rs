//! The TLS settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use proto::limits::MAX_TLS_PAIRS;
use tls::{Certificates, FileRole, FileStamps, LoadError, PairFiles};

use super::parse::entries;
use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::settings::Setting;
use super::{Token, settings};

/// The hub warns at the start about certificates that expire within this number of days.
const SOON_DAYS: f64 = 14.0;

/// The TLS settings of a hub.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Paths of the certificates and keys.
    pub files: Vec<PairFiles>,
    /// The certificates and keys in these files.
    pub certificates: Arc<Certificates>,
    /// The state of the files when they were read.
    pub stamps: FileStamps,
    /// The ports that use TLS.
    pub ports: PortNames,
    /// The secret from which ticket keys are derived (TLS_TICKET_KEY), if it is set.
    pub ticket_key: Option<Token>,
}

/// Some of a hub's ports: those of TLS_PORTS, or of PROXY_PROTOCOL.
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
    /// `Some(None)` without TLS; `None` if a setting is invalid.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Option<Self>> {
        let certificates = reader.text(&settings::TLS_CERT, || Ok(Vec::new()), files);
        let keys = reader.text(&settings::TLS_KEY, || Ok(Vec::new()), files);
        let ports = reader.text(&settings::TLS_PORTS, || Ok(PortNames { peers: true, ..PortNames::default() }), ports);
        let ticket_key = reader.text(&settings::TLS_TICKET_KEY, || Ok(None), |text| ticket_key(text).map(Some));
        let (certificates, keys, ports, ticket_key) = (certificates?, keys?, ports?, ticket_key?);
        if certificates.is_empty() && keys.is_empty() {
            return Some(None);
        }
        if certificates.len() != keys.len() {
            let (setting, problem) = lacking(certificates.len(), keys.len());
            reader.refusals.push(SettingError::new(setting, problem));
            return None;
        }
        let files: Vec<_> =
            certificates.into_iter().zip(keys).map(|(certificate, key)| PairFiles { certificate, key }).collect();
        // Stamped before reading, so that a change during the read is found by the next check.
        let stamps = FileStamps::of(&files);
        match Certificates::load(&files) {
            Ok(certificates) => {
                Some(Some(Self { files, certificates: Arc::new(certificates), stamps, ports, ticket_key }))
            }
            Err(error) => {
                reader.refusals.push(refusal(&error));
                None
            }
        }
    }

    /// Warnings for the operator at the start.
    pub(super) fn warnings(&self, now: SystemTime) -> Vec<String> {
        self.certificates.facts().iter().filter_map(|facts| expiry_warning(facts, now)).collect()
    }
}

/// A warning if the certificate has expired or expires soon.
pub fn expiry_warning(facts: &tls::CertificateFacts, now: SystemTime) -> Option<String> {
    let days = facts.seconds_left(now) / 86_400.0;
    let file = facts.file.display();
    if days < 0.0 {
        return Some(format!("TLS_CERT: the certificate in {file} expired {:.0} days ago: clients refuse it", -days));
    }
    (days < SOON_DAYS).then(|| format!("TLS_CERT: the certificate in {file} expires in {days:.0} days"))
}

/// The setting with fewer files, and the error.
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
