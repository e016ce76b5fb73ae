//! Tests that deployment files use existing settings with valid values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Config, Flags, settings};

/// Variables in the deployment files that Compose, Grafana, Redis and the build of the image use.
const OTHERS: [&str; 19] = [
    "BIND",
    "BUILD_IMAGE",
    "CARGO_PROFILE_RELEASE_DEBUG",
    "CARGO_PROFILE_RELEASE_STRIP",
    "CERTIFICATES",
    "CERTIFICATES_GROUP",
    "COMPOSE_PROFILES",
    "JEMALLOC_SYS_WITH_LG_PAGE",
    "LOAD_DURATION",
    "LOAD_NOFILE",
    "LOAD_PEERS",
    "LOAD_SCENARIO",
    "NAME",
    "PEERPIGEON_COMMIT",
    "PEERPIGEON_IMAGE",
    "PEERPIGEON_VERSION",
    "REDIS_PASSWORD",
    "RUNTIME_IMAGE",
    "TARGETARCH",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files under `path`, or `path` itself.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else {
        found.push(path.to_owned());
    }
}

/// The variables that a text sets or uses: `NAME: …`, `NAME=…`, `name: NAME`, `key: NAME`, `${NAME}`, `$(NAME)`.
/// Comments are ignored.
fn variables(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut at = 0;
        while let Some(start) = line[at..].find(is_part).map(|length| at + length) {
            let end = line[start..].find(|c| !is_part(c)).map_or(line.len(), |length| start + length);
            let (before, word, after) = (&line[..start], &line[start..end], &line[end..]);
            let is_name = word.len() > 2
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && !word.contains(|c: char| c.is_ascii_lowercase());
            let is_said = after.trim_start().starts_with(['=', ':']);
            let is_asked = ["name: ", "key: ", "ARG ", "${", "$("].iter().any(|asking| before.ends_with(asking));
            if is_name && (is_said || is_asked) {
                found.push(word);
            }
            at = end;
        }
    }
    found
}

#[test]
fn variables_are_found_in_every_notation() {
    let text = "  PORT: 1\n- SHARDS=2\nkey: AUTH_TOKEN\n  - name: HOST\n# HUB_ID=3\nx: ${MESH_TOKEN:?no}\nENV \
        LOG_LEVEL=a \\\n drop: [ALL] TCP\n";
    assert_eq!(variables(text), ["PORT", "SHARDS", "AUTH_TOKEN", "HOST", "MESH_TOKEN", "LOG_LEVEL"]);
}

#[test]
fn deployment_files_use_existing_settings() {
    let mut paths = Vec::new();
    for path in [".env", "Dockerfile", "docker-compose.yml", "deploy", "k8s"] {
        files(&root().join(path), &mut paths);
    }
    let configures = |path: &PathBuf| path.extension().is_none_or(|kind| kind != "md" && kind != "json");
    let mut seen = Vec::new();
    for path in paths.iter().filter(|path| configures(path)) {
        let text = std::fs::read_to_string(path).unwrap();
        for name in variables(&text) {
            let known = settings::ALL.iter().any(|setting| setting.name == name);
            let other = OTHERS.contains(&name) || ["GF_", "PUBLISH_"].iter().any(|start| name.starts_with(start));
            assert!(known || other, "{} sets {name}, which is not a setting", path.display());
            seen.extend(known.then(|| name.to_owned()));
        }
    }
    // The deployment files were read if these settings were found.
    for name in
        ["HOST", "PORT", "ADMIN_PORT", "MESH_PORT", "MESH_DNS", "MESH_TOKEN", "REDIS_URL", "SHARDS", "DRAIN_SECS"]
    {
        assert!(seen.iter().any(|known| known == name), "no file sets {name}");
    }
}

/// The settings in the ConfigMap of the base, overridden by the settings of an overlay.
fn config_map(overlay: &str) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    for file in ["k8s/base/kustomization.yaml", overlay] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let literals = text.lines().filter_map(|line| line.strip_prefix("      - ")?.split_once('='));
        said.extend(literals.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    said
}

/// The variables under `[env]` in Fly.io's file.
fn fly_environment() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join("deploy/fly.toml")).unwrap();
    let lines = text.lines().skip_while(|line| *line != "[env]").skip(1).take_while(|line| !line.starts_with('['));
    let said = lines.filter_map(|line| line.trim().split_once(" = "));
    said.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// Checks that the settings are valid, cause no warning, and start a mesh. Adds a MESH_TOKEN, because deployments store
/// this token in a secret and not in these files.
fn holds(what: &str, mut said: BTreeMap<String, String>) {
    said.entry("MESH_TOKEN".to_owned()).or_insert("f".repeat(64));
    assert!(said.len() > 8, "{said:?}");
    let config = Config::resolve(&Flags::default(), &|name| said.get(name).map(OsString::from));
    let config = config.unwrap_or_else(|refusals| panic!("{what}: {refusals:?}"));
    assert_eq!(config.warnings(), Vec::<String>::new(), "{what}");
    assert!(config.has_mesh(), "{what}");
}

#[test]
fn settings_of_deployment_files_are_valid() {
    for overlay in ["dev", "production", "redis"] {
        let mut said = config_map(&format!("k8s/overlays/{overlay}/kustomization.yaml"));
        if overlay == "redis" {
            // The redis overlay is based on the production overlay.
            said.extend(config_map("k8s/overlays/production/kustomization.yaml"));
            said.insert("REDIS_URL".to_owned(), "rediss://:e%2Be@redis.example:6380".to_owned());
        }
        holds(overlay, said.clone());
        said.insert("HOST".to_owned(), "::".to_owned());
        holds(overlay, said);
    }
    holds("deploy/fly.toml", fly_environment());
}

#[test]
fn settings_of_the_legacy_component_are_valid() {
    let text = std::fs::read_to_string(root().join("k8s/components/legacy/deployment.yaml")).unwrap();
    let mut said = config_map("k8s/overlays/production/kustomization.yaml");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for pair in lines.windows(2) {
        if let (Some(name), Some(value)) = (pair[0].strip_prefix("- name: "), pair[1].strip_prefix("value: ")) {
            said.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    assert!(said.contains_key("MESH_LEGACY") && said.contains_key("BOOTSTRAP_HUBS"), "{said:?}");
    holds("components/legacy", said);
}

/// The image's dependency layer is built from the manifests of all crates.
#[test]
fn the_dockerfile_names_every_crate() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (workspace, dockerfile) = (read("Cargo.toml"), read("Dockerfile"));
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    for member in members.trim_end_matches(']').split(", ").map(|member| member.trim_matches('"')) {
        let top = member.split('/').next().unwrap();
        let manifest = format!("COPY {member}/Cargo.toml {member}/\n");
        let whole = format!("COPY {top} {top}\n");
        assert!(
            dockerfile.contains(&manifest) || dockerfile.contains(&whole),
            "Dockerfile copies no manifest of {member}"
        );
        // Cargo refuses a manifest that names a benchmark whose file is missing.
        let has_benches = read(&format!("{member}/Cargo.toml")).contains("[[bench]]");
        assert!(
            !has_benches || dockerfile.contains(&format!("COPY {member}/benches ")),
            "the Dockerfile does not copy {member}/benches"
        );
    }
}

#[test]
fn the_image_is_built_from_every_crate() {
    let text = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let manifest = text("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let (context, dockerfile) = (text(".dockerignore"), text("Dockerfile"));
    for member in members.split('"').skip(1).step_by(2) {
        let folder = member.split('/').next().unwrap();
        assert!(context.lines().any(|line| line == format!("!{folder}")), ".dockerignore leaves out {folder}");
        assert!(dockerfile.contains(&format!("COPY {folder}")), "the Dockerfile does not copy {folder}");
    }
}
