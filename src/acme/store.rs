//! The directory TLS_ACME_DIR. The directory contains the ACME account, the certificates, and a lock. With the lock,
//! only one hub at a time orders a certificate.
//!
//! All functions work on a blocking thread, because a file system can be slow.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use instant_acme::AccountCredentials;
use tls::{CertificateFacts, Certificates, PairFiles};
use tokio::task::spawn_blocking;

use super::order::{Failure, Issued};
use crate::config::AcmeSettings;

/// The facts about a stored certificate. `None` if there is no valid file.
pub(super) async fn load(settings: &AcmeSettings, name: &str) -> Option<CertificateFacts> {
    let file = settings.file(name);
    on_a_thread(move || facts(&file)).await.ok().flatten()
}

fn facts(file: &Path) -> Option<CertificateFacts> {
    let pair = PairFiles { certificate: file.to_owned(), key: file.to_owned() };
    Certificates::load(&[pair]).ok()?.facts().first().cloned()
}

/// Takes the lock of the directory. Returns `None` while another hub holds the lock.
pub(super) async fn lock(settings: &AcmeSettings) -> Result<Option<File>, Failure> {
    let path = settings.lock();
    let locked = on_a_thread(move || {
        let file = File::create(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    locked.await?.map_err(Failure::Store)
}

/// Stores a certificate. The file is replaced as a whole, and only if the new certificate is valid.
pub(super) async fn save(settings: &AcmeSettings, name: &str, issued: Issued) -> Result<(), Failure> {
    let file = settings.file(name);
    let saved = on_a_thread(move || {
        let text = format!("{}{}", issued.key, issued.chain);
        replace(&file, text.as_bytes(), |written| {
            let pair = PairFiles { certificate: written.to_owned(), key: written.to_owned() };
            Certificates::load(&[pair]).map(drop).map_err(|error| io::Error::other(error.problem))
        })
    });
    saved.await?.map_err(Failure::Store)
}

/// The stored account.
pub(super) async fn account(settings: &AcmeSettings) -> Option<AccountCredentials> {
    let path = settings.account();
    on_a_thread(move || serde_json::from_slice(&fs::read(path).ok()?).ok()).await.ok().flatten()
}

/// Stores an account.
pub(super) async fn save_account(settings: &AcmeSettings, account: &AccountCredentials) -> Result<(), Failure> {
    let text = serde_json::to_vec(account).map_err(|error| Failure::Store(error.into()))?;
    let path = settings.account();
    on_a_thread(move || replace(&path, &text, |_| Ok(()))).await?.map_err(Failure::Store)
}

/// Removes the stored account.
pub(super) async fn forget_account(settings: &AcmeSettings) {
    let path = settings.account();
    _ = on_a_thread(move || fs::remove_file(path)).await;
}

async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|error| Failure::Store(io::Error::other(error)))
}

/// Writes a file that only its owner may read. The content is first written to a temporary file in the same directory.
/// The temporary file is renamed if `check` accepts it.
fn replace(path: &Path, bytes: &[u8], check: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = path.with_extension("new");
    // A crash may have left an old temporary file.
    _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    check(&beside)?;
    fs::rename(&beside, path)?;
    // The directory is also synced, because a crash could undo the renaming.
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let place = std::env::temp_dir().join(format!("peerpigeon-acme-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let path = place.join("a.pem");
        replace(&path, b"first", |_| Ok(())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(place.join("a.new"), "left behind by a crash").unwrap();
        let refused = replace(&path, b"second", |written| {
            assert_eq!(fs::read(written).unwrap(), b"second");
            Err(io::Error::other("invalid"))
        });
        assert!(refused.is_err() && fs::read(&path).unwrap() == b"first");
        replace(&path, b"third", |_| Ok(())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        fs::remove_dir_all(&place).unwrap();
    }
}
