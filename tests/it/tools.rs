//! Tests of the program's shell completions and manual pages.

use std::path::Path;
use std::process::Command;

use crate::hub::command;

fn printed(args: &[&str]) -> String {
    let output = command(&[]).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the completions that bash offers after `words`.
fn completed(words: &str) -> String {
    let script = r#"
        eval "$(peerpigeon completions bash)"
        read -ra COMP_WORDS <<<"$WORDS"
        [[ $WORDS != *' ' ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        COMPREPLY=()
        complete=$(complete -p peerpigeon | sed 's/.*-F \([^ ]*\).*/\1/')
        "$complete" peerpigeon "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let directory = Path::new(env!("CARGO_BIN_EXE_peerpigeon")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash").args(["-c", script]).env("WORDS", words).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_and_flags() {
    assert_eq!(completed("peerpigeon gen"), "generate-peer-ids\n");
    assert_eq!(completed("peerpigeon serve --tls-tick"), "--tls-ticket-key\n");
    assert!(completed("peerpigeon admin ").lines().any(|word| word == "close-network"));
}

#[test]
fn other_shells_have_a_script_too() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("generate-peer-ids") && script.contains("tls-ticket-key"), "{shell}");
    }
    assert_eq!(command(&[]).args(["completions", "tcsh"]).output().unwrap().status.code(), Some(64));
}

#[test]
fn every_command_has_a_manual_page() {
    let place = std::env::temp_dir().join(format!("peerpigeon-man-{}", std::process::id()));
    assert_eq!(printed(&["man", place.to_str().unwrap()]), "");
    let page = |name: &str| std::fs::read_to_string(place.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for (name, words) in [
        ("peerpigeon.1", "generate\\-peer\\-ids"),
        ("peerpigeon-serve.1", "TLS_TICKET_KEY"),
        ("peerpigeon-doctor.1", "\\-\\-patience"),
        ("peerpigeon-admin-close-network.1", "\\-\\-token\\-file"),
    ] {
        let page = page(name);
        assert!(page.contains(".TH ") && page.contains(words), "{name} has no {words}:\n{page}");
    }
    assert_eq!(printed(&["man"]), page("peerpigeon.1"));
    let groff = |page: &Path| Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).output();
    for entry in std::fs::read_dir(&place).unwrap() {
        let path = entry.unwrap().path();
        // The check of the formatted page is skipped where groff is not installed.
        if let Ok(output) = groff(&path) {
            assert!(output.status.success() && output.stderr.is_empty(), "{}: {output:?}", path.display());
        }
    }
    std::fs::remove_dir_all(place).unwrap();
}
