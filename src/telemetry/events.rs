//! Checks every log call in the sources. The message of a call must be the name of an event.

use std::fs;
use std::path::Path;

/// The macros that log.
const MACROS: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];

/// The arguments of a call, after its opening parenthesis.
fn arguments(source: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut quoted) = (0, false);
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                arguments.last_mut().unwrap().push(c);
                arguments.last_mut().unwrap().extend(chars.next());
                continue;
            }
            '"' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(c);
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty()).collect()
}

/// All log calls in a source, with their arguments.
fn calls(source: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for name in MACROS {
        for (at, _) in source.match_indices(name) {
            let begins_a_word = !source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"');
            if begins_a_word {
                calls.push(arguments(&source[at + name.len()..]));
            }
        }
    }
    calls
}

fn is_event(argument: &str) -> bool {
    let name = argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The sources of all crates whose code runs in a hub, with their paths. These crates are the members of the workspace
/// except benchmarks.
fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = [")?.strip_suffix(']')).unwrap();
    let members =
        members.split(", ").map(|member| member.trim_matches('"')).filter(|member| !member.starts_with("benches"));
    let mut found = Vec::new();
    for member in members.chain(["."]) {
        sources(&root.join(member).join("src"), &mut found);
    }
    found
}

#[test]
fn every_log_line_has_an_event_name_as_its_message() {
    let found = all_sources();
    for member in ["mesh", "proto", "shard", "thread", "tls"] {
        assert!(found.iter().any(|(path, _)| path.contains(&format!("/{member}/src/"))), "{member} was not read");
    }
    let mut lines = 0;
    // The source of this test is skipped, because it contains examples of valid and of invalid calls.
    for (path, source) in found.iter().filter(|(path, _)| !path.ends_with(file!())) {
        for arguments in calls(source) {
            let event = arguments.last().map(String::as_str).unwrap_or_default();
            assert!(is_event(event), "{path}: not the name of an event: {arguments:?}");
            lines += 1;
        }
    }
    assert!(lines > 40, "only {lines} log lines were found");
}

#[test]
fn sentences_templates_and_missing_messages_are_detected() {
    let event = |source: &str| calls(source).iter().all(|call| call.last().is_some_and(|last| is_event(last)));
    for good in [
        r#"warn!("hub_full")"#,
        r#"tracing::error!(peer = ?peer(1, 2), detail = "a, b) \" c", "session_failed",)"#,
        "info!(\n    %hub,\n    \"hub_found\"\n)",
    ] {
        assert_eq!(calls(good).len(), 1, "{good}");
        assert!(event(good), "{good}");
    }
    for bad in [
        r#"warn!("hub_full: it is full")"#,
        r#"warn!("{warning}")"#,
        r#"warn!(%hub)"#,
        r#"warn!()"#,
        r#"error!("HubFull")"#,
        r#"info!("listening on {}", address)"#,
    ] {
        assert!(!event(bad), "{bad}");
    }
}

/// Checks that every `BugSite` is used, and that no code outside tests has `unreachable!` or `debug_assert!(false)` in
/// place of `bug!`.
#[test]
fn every_bug_site_is_used_and_bug_is_the_only_assertion() {
    let mut found = all_sources();
    found.retain(|(path, _)| !path.ends_with(file!()));
    for site in proto::BugSite::ALL {
        // The macro `lower!` reports the site `Counter`.
        let call = if *site == proto::BugSite::Counter { "lower!(".into() } else { format!("bugs, {site:?}, ") };
        let reported =
            |(path, source): &(String, String)| !path.ends_with("proto/src/bugs.rs") && source.contains(&call);
        assert!(found.iter().any(reported), "nothing reports {site:?}");
    }
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    for (path, source) in found.iter().filter(|(path, _)| !path.ends_with("proto/src/bugs.rs") && !is_test(path)) {
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        assert!(!source.contains("debug_assert!(false") && !source.contains("unreachable!("), "{path}: use bug!");
    }
}

/// A reader follows the functions that ARCHITECTURE.md names. A renamed function or a moved file would stop the reader.
#[test]
fn the_functions_and_files_that_the_architecture_names_exist() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let (_, ways) = page.split_once("\n## Five ways through the code\n").unwrap();
    let (ways, _) = ways.split_once("\n## ").unwrap();
    let found = all_sources();
    let mut functions = 0;
    for name in ways.split('`').skip(1).step_by(2) {
        let exists = if name.ends_with(".rs") {
            found.iter().any(|(path, _)| path.ends_with(&format!("/{name}")))
        } else if let Some((owner, member)) = name.split_once("::") {
            found.iter().any(|(_, source)| source.contains(owner) && source.contains(member))
        } else {
            functions += 1;
            found
                .iter()
                .any(|(_, source)| source.contains(&format!("fn {name}(")) || source.contains(&format!("fn {name}<")))
        };
        assert!(
            exists || name == "resume" || name.starts_with('/'),
            "ARCHITECTURE.md names {name}, which does not exist"
        );
    }
    assert!(functions > 40, "only {functions} functions were found");
}
