//! The settings of certificates between hubs (MESH_CERT, MESH_KEY and MESH_CLIENT_CA).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tls::{Certificates, ClientAuthorities, ClientCertificate, FileRole, FileStamps, LoadError, PairFiles};

use super::quoted::quoted;
use super::reader::{SettingError, SettingsReader};
use super::settings::{self, Setting};
use super::tls::expiry_warning;

/// The certificates by which hubs recognize each other.
#[derive(Clone, Default, Debug)]
pub struct MeshCertificates {
    /// The certificate that this hub presents when it dials other hubs (MESH_CERT and MESH_KEY).
    pub own: Option<OwnCertificate>,
    /// The CAs whose certificates other hubs may present (MESH_CLIENT_CA).
    pub authorities: Option<Authorities>,
}

/// The files of MESH_CERT and MESH_KEY, with their contents.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// The paths.
    pub files: PairFiles,
    /// The certificate and the key.
    pub certificates: Arc<Certificates>,
    /// The state of the files of MESH_CERT and MESH_KEY before they were read.
    pub stamps: FileStamps,
}

/// The file of MESH_CLIENT_CA, with its contents.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// The path.
    pub file: PathBuf,
    /// The CAs.
    pub authorities: Arc<ClientAuthorities>,
    /// The state of the file of MESH_CLIENT_CA before it was read.
    pub stamps: FileStamps,
}

impl MeshCertificates {
    /// Reads the settings. Returns `None` if a setting is invalid.
    pub(super) fn read(reader: &mut SettingsReader<'_>) -> Option<Self> {
        let path = |text: &str| Ok(Some(PathBuf::from(text)));
        let certificate = reader.text(&settings::MESH_CERT, || Ok(None), path)?;
        let key = reader.text(&settings::MESH_KEY, || Ok(None), path)?;
        let authorities = reader.text(&settings::MESH_CLIENT_CA, || Ok(None), path)?;
        let mut refuse = |setting: &'static Setting, problem: String| {
            reader.refusals.push(SettingError::new(setting, problem));
            None
        };
        let own = match (certificate, key) {
            (None, None) => None,
            (Some(_), None) => {
                return refuse(&settings::MESH_KEY, "it is unset: set it to the key of MESH_CERT".to_owned());
            }
            (None, Some(_)) => {
                return refuse(&settings::MESH_CERT, "it is unset: set it to the certificate of MESH_KEY".to_owned());
            }
            (Some(certificate), Some(key)) => match OwnCertificate::load(PairFiles { certificate, key }) {
                Ok(own) => Some(own),
                Err(error) => {
                    let setting = if error.role == FileRole::Key { &settings::MESH_KEY } else { &settings::MESH_CERT };
                    return refuse(setting, shown(&error));
                }
            },
        };
        let authorities = match authorities.map(|file| Authorities::load(&file)).transpose() {
            Ok(authorities) => authorities,
            Err(error) => return refuse(&settings::MESH_CLIENT_CA, shown(&error)),
        };
        Some(Self { own, authorities })
    }

    /// Warnings about certificates that expire.
    pub(super) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let own = self.own.iter().flat_map(|own| own.certificates.facts());
        own.filter_map(|facts| expiry_warning(settings::MESH_CERT.name, facts, now)).collect()
    }
}

impl OwnCertificate {
    fn load(files: PairFiles) -> Result<Self, LoadError> {
        // The state is read before the files, so that the next check finds a change during the read.
        let stamps = FileStamps::of(std::slice::from_ref(&files));
        let certificates = Arc::new(ClientCertificate::load(&files)?);
        Ok(Self { files, certificates, stamps })
    }
}

impl Authorities {
    fn load(file: &Path) -> Result<Self, LoadError> {
        let stamps = FileStamps::of_files([file]);
        let authorities = Arc::new(ClientAuthorities::load(file)?);
        Ok(Self { file: file.to_owned(), authorities, stamps })
    }
}

fn shown(error: &LoadError) -> String {
    format!("{} {}", quoted(&error.file.display().to_string()), error.problem)
}
