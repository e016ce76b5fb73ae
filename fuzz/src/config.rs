use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use peerpigeon::config::{Config, Flags};

/// The hub must refuse the given settings with an error, or accept them as a configuration. From an accepted
/// configuration, `--print-config` must print an env file with the same configuration. No printed text may contain a
/// secret.
///
/// The bytes before the first zero byte are the lines of an env file. The bytes after the zero byte are the content of
/// another file. The path of this other file replaces `@` in the values of the env file.
pub fn config(bytes: &[u8]) {
    /// Without a lock, two tests of one process could write to the same file at the same time.
    static FILE_IN_USE: Mutex<()> = Mutex::new(());
    let _in_use = FILE_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let file = file(bytes.get(end + 1..).unwrap_or_default());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let is_file = names_a_file(name) || value.contains("file:");
        let value = if is_file { value.replace('@', &file.display().to_string()) } else { value.to_owned() };
        // The target must not read other files and must not look up host names.
        let is_other = |path: &str| Path::new(path.trim().trim_start_matches("file:")) != file;
        let is_elsewhere = is_file && value.split(',').any(is_other);
        let is_resolved = name.ends_with("HOST") && value.contains(|c: char| c.is_alphabetic()) && !value.contains(':');
        if !is_elsewhere && !is_resolved {
            given.insert(name.to_owned(), value);
        }
    }
    let config = match resolve(&given) {
        Ok(config) => config,
        Err(refusals) => {
            assert!(!refusals.is_empty());
            return keeps_secrets(&given, &refusals.join("\n"));
        }
    };
    let described = config.describe();
    keeps_secrets(&given, &described);
    keeps_secrets(&given, &config.warnings().join("\n"));
    keeps_secrets(&given, &format!("{config:?}"));

    let lines = |text: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let shown = lines(&described);
    let mut again = shown.clone();
    for (name, value) in again.iter_mut().filter(|(_, value)| *value == "<set>") {
        let alias = format!("{name}S");
        value.clone_from(given.get(name).unwrap_or_else(|| &given[&alias]));
    }
    match resolve(&again) {
        Ok(config) => assert_eq!(lines(&config.describe()), shown, "from {given:?}"),
        Err(refusals) => panic!("--print-config of {given:?} prints settings that are refused: {refusals:?}"),
    }
}

fn resolve(given: &BTreeMap<String, String>) -> Result<Config, Vec<String>> {
    let env = |name: &str| given.get(name).map(OsString::from);
    Config::resolve(&Flags::default(), &env).map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

fn names_a_file(name: &str) -> bool {
    matches!(
        name,
        "JWT_CA"
            | "JWT_JWKS"
            | "JWT_PUBLIC_KEY"
            | "MESH_CA"
            | "MESH_CERT"
            | "MESH_CLIENT_CA"
            | "MESH_KEY"
            | "TLS_ACME_CA"
            | "TLS_CERT"
            | "TLS_KEY"
    )
}

/// The settings whose values are never shown.
const SECRETS: [&str; 11] = [
    "ADMIN_TOKEN",
    "AUTH_TOKEN",
    "ICE_SERVERS",
    "JWT_SECRET",
    "JWT_SECRETS",
    "MESH_TOKEN",
    "MESH_TOKEN_ALSO",
    "TLS_ACME_EAB_HMAC",
    "TLS_TICKET_KEY",
    "TURN_SECRET",
    "TURN_SECRET_ALSO",
];

/// Each secret in the corpus contains this word.
const MARK: &str = "hunter2";

fn keeps_secrets(given: &BTreeMap<String, String>, printed: &str) {
    let is_secret = |name: &String| SECRETS.contains(&name.as_str());
    let elsewhere = given.iter().any(|(name, value)| !is_secret(name) && (name.contains(MARK) || value.contains(MARK)));
    if !elsewhere && printed.contains(MARK) {
        panic!("this text contains a secret of {given:?}: {printed}");
    }
}

/// Writes the file whose path replaces `@` in the values of the settings.
fn file(content: &[u8]) -> PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let file = PLACE.get_or_init(|| std::env::temp_dir().join(format!("peerpigeon-fuzz-{}.pem", std::process::id())));
    std::fs::write(file, content).expect("written");
    file.clone()
}
