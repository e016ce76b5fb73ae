//! Adds the commit to the version, and compresses the static files that the hub serves. The commit comes from the
//! variable PEERPIGEON_COMMIT, or else from `git`. If both are missing, the version has no commit.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// Each row has the URL path of a static file, the paths of its sources, and its content type. The hub serves the
/// sources as one file, joined in this order.
const ASSETS: [(&str, &[&str], &str); 15] = [
    ("/client.d.ts", &["clients/js/dist/client.d.ts"], "Text"),
    ("/client.js", &["clients/js/dist/client.js"], "Script"),
    ("/dashboard-charts.js", &["src/dashboard/charts.js"], "Script"),
    ("/dashboard-findings.js", &["src/dashboard/findings.js"], "Script"),
    ("/dashboard.css", &["src/common.css", "src/dashboard/dashboard.css"], "Style"),
    ("/dashboard.html", &["src/dashboard/index.html"], "Page"),
    ("/dashboard.js", &["src/dashboard/dashboard.js"], "Script"),
    ("/dashboard.svg", &["src/playground/playground.svg"], "Image"),
    ("/extras.d.ts", &["clients/js/dist/extras.d.ts"], "Text"),
    ("/extras.js", &["clients/js/dist/extras.js"], "Script"),
    ("/playground-qr.js", &["src/playground/playground-qr.js"], "Script"),
    ("/playground.css", &["src/common.css", "src/playground/playground.css"], "Style"),
    ("/playground.html", &["src/playground/index.html"], "Page"),
    ("/playground.js", &["src/playground/playground.js"], "Script"),
    ("/playground.svg", &["src/playground/playground.svg"], "Image"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    assets();
    println!("cargo::rerun-if-env-changed=PEERPIGEON_COMMIT");
    let said = std::env::var("PEERPIGEON_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = said.or_else(|| {
        for path in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", path]) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
        git(&["rev-parse", "--short=12", "HEAD"])
    });
    println!("cargo::rustc-env=PEERPIGEON_COMMIT={}", commit.as_deref().unwrap_or_default());
    let version = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=PEERPIGEON_VERSION={version}");
}

/// Writes `assets.rs`, the table of the static files. A row has the file's content, plain and compressed, its path, and
/// a second path that contains a hash of the content.
#[expect(clippy::unwrap_used, reason = "a static file is missing")]
fn assets() {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap();
    let out = env::var("OUT_DIR").unwrap();
    let mut table = String::from("[\n");
    for (path, sources, kind) in ASSETS {
        let mut plain = Vec::new();
        for source in sources {
            println!("cargo::rerun-if-changed={source}");
            plain.extend(fs::read(Path::new(&root).join(source)).unwrap());
        }
        let file = Path::new(&out).join(&path[1..]);
        fs::write(&file, &plain).unwrap();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&plain).unwrap();
        let compressed = Path::new(&out).join(format!("{}.gz", &path[1..]));
        fs::write(&compressed, gzip.finish().unwrap()).unwrap();
        let hash = Sha256::digest(&plain)[..8].iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        let (stem, ending) = path.split_once('.').unwrap();
        let named = format!("{stem}.{hash}.{ending}");
        let etag = format!("W/\"{hash}\"");
        writeln!(
            table,
            "Asset {{ path: {path:?}, named: {named:?}, etag: {etag:?}, kind: FileKind::{kind}, plain: \
             include_bytes!({file:?}), gzip: include_bytes!({compressed:?}) }},"
        )
        .unwrap();
    }
    table.push(']');
    fs::write(Path::new(&out).join("assets.rs"), table).unwrap();
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|said| !said.is_empty())
}
