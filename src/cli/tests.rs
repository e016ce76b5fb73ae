use std::fmt::Write as _;
use std::path::Path;

use clap::error::ErrorKind;

use super::*;

fn asked(args: &[&str], env: &[(&str, &str)]) -> Result<Task, Exit> {
    let args = std::iter::once("peerpigeon").chain(args.iter().copied()).map(OsString::from);
    task(args, &|name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
}

fn served(args: &[&str], env: &[(&str, &str)]) -> Config {
    match asked(args, env) {
        Ok(Task::Serve(config)) => *config,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn clap_accepts_the_definitions_of_all_commands() {
    Cli::command().debug_assert();
}

#[test]
fn serve_is_the_default_command() {
    for args in [&["--port", "9000"][..], &["serve", "--port", "9000"], &["serve", "--port=9000"]] {
        assert_eq!(served(args, &[]).port, 9000);
    }
    assert_eq!(served(&[], &[("PORT", "9001")]).port, 9001);
    assert_eq!(served(&["serve"], &[("PORT", "9001")]).port, 9001);
    assert_eq!(served(&["serve"], &[("PORT", "")]).port, 8080);
}

#[test]
fn variables_of_a_hub_do_not_affect_other_commands() {
    let bad = [("PORT", "x"), ("SHARDS", "0"), ("LOG_LEVEL", "inof")];
    assert!(matches!(asked(&["generate-peer-ids"], &bad), Ok(Task::GeneratePeerIds(_))));
}

#[test]
fn invalid_usage_exits_with_64() {
    for args in [
        &["--prot", "1"][..],
        &["serve", "--port"],
        &["serve", "--port", "1", "--port", "2"],
        &["sevre"],
        &["serve", "more"],
        &["--port", "1", "serve"],
        &["peer", "--no-such-flag"],
        &["--port", "99999"],
        &["serve", "--is-hub=maybe"],
    ] {
        assert_eq!(asked(args, &[]).unwrap_err().code(), 64, "{args:?}");
    }
    assert_eq!(asked(&[], &[("PORT", "http")]).unwrap_err().code(), 64);
}

#[test]
fn requested_output_exits_with_0() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["-V"],
        &["help"],
        &["serve", "--help"],
        &["help", "serve"],
        &["peer", "--help"],
        &["--print-config"],
        &["serve", "--print-config"],
    ] {
        assert_eq!(asked(args, &[]).unwrap_err().code(), 0, "{args:?}");
    }
}

#[test]
fn print_config_reports_invalid_settings() {
    assert_eq!(asked(&["--print-config", "--port", "x"], &[]).unwrap_err().code(), 64);
}

#[test]
fn errors_of_clap_name_the_flag() {
    let Err(Exit::Clap(error)) = asked(&["serve", "--prot", "1"], &[]) else { panic!() };
    let text = error.render().to_string();
    assert!(text.contains("--prot") && text.contains("--port"), "{text}");
}

#[test]
fn errors_hide_secrets_of_urls_on_the_command_line() {
    for args in [
        &["peer", "--hub", "redis://u:hunter2@h"][..],
        &["peer", "--hub=ws://u:hunter2/x@h b"],
        &["load-test", "--hub", "ws://u:hunter2@"],
        &["health", "--url", "ftp://u:hunter2@h"],
        &["serve", "redis://:hunter2@h"],
        &["redis://:hunter2?hunter2@h"],
        &["serve", "--redis=redis://:hunter2@h"],
        &["serve", "--is-hub=http://:hunter2@h"],
        &["serve", "--redis-url", "redis://:hunter2/x@h", "--print-config"],
        &["generate-peer-ids", "--hub", "u:hunter2@h"],
        &["serve", "--redis-url", "redis://:hunter2@h", "--redis-url", "redis://:hunter2@h"],
    ] {
        let exit = asked(args, &[]).unwrap_err();
        assert_eq!(exit.code(), 64, "{args:?}");
        let text = match exit {
            Exit::Clap(error) => error.render().to_string(),
            Exit::Print(text) | Exit::Usage(text) => text,
            Exit::Refused(refusals) => refusals.iter().map(ToString::to_string).collect(),
        };
        assert!(!text.contains("hunter2") && !text.is_empty(), "{args:?}: {text}");
    }
}

#[test]
fn tools_trim_a_token_like_the_hub() {
    for token in ["secret", "secret\n", " secret\r\n"] {
        let Ok(Task::Peer(args)) = asked(&["peer", "--token", token], &[]) else { panic!("{token:?}") };
        assert_eq!(args.token.as_deref(), Some("secret"), "{token:?}");
        let Ok(Task::LoadTest(args)) = asked(&["load-test", "--token", token], &[]) else { panic!("{token:?}") };
        assert_eq!(args.token.as_deref(), Some("secret"), "{token:?}");
        let hub = served(&[], &[("AUTH_TOKEN", token)]);
        assert_eq!(hub.auth_token.as_ref().map(|token| token.expose()), Some("secret"), "{token:?}");
    }
}

#[test]
fn help_shows_no_value_of_a_variable() {
    let mut command = Cli::command();
    command.build();
    for args in ["serve", "health", "peer", "load-test"]
        .iter()
        .flat_map(|name| command.find_subcommand(name).unwrap().get_arguments())
    {
        assert!(args.get_env().is_none() || args.is_hide_env_values_set(), "{args:?}");
    }
}

/// The output of `-h` or `--help`.
fn help(args: &[&str]) -> String {
    let Err(Exit::Clap(error)) = asked(args, &[]) else { panic!("{args:?}") };
    error.render().to_string()
}

#[test]
fn short_help_fits_on_a_screen_and_long_help_has_every_setting() {
    for command in [&[][..], &["serve"]] {
        let short = help(&[command, &["-h"]].concat());
        let long = help(&[command, &["--help"]].concat());
        assert!(short.lines().count() <= 70, "{} lines:\n{short}", short.lines().count());
        for flag in ["--port <PORT>", "--tls-cert <FILES>", "--bootstrap-hubs <URLS>"] {
            assert!(short.contains(flag), "{flag} is missing:\n{short}");
        }
        assert!(short.contains("--help"), "{short}");
        let all = Cli::command();
        let serve = all.find_subcommand("serve").unwrap();
        for flag in serve.get_arguments().filter_map(|arg| arg.get_long()) {
            assert!(long.contains(&format!("--{flag}")), "{flag} is missing:\n{long}");
        }
        assert!(!short.contains("--send-queue-frames") && long.lines().count() > 2 * short.lines().count());
    }
}

/// The Chinese help texts of the settings.
const CHINESE: &str = "docs/settings.zh.tsv";

/// The lines of [`CHINESE`]. Each translated line has a variable, its help, and its default if the hub determines it at
/// the start.
fn translations() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(CHINESE)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let mut cell = || cells.next().unwrap_or_default();
            (cell(), cell(), cell())
        })
        .collect()
}

/// The table of settings for a README, made from clap's arguments and the variables without a flag.
fn table(chinese: bool) -> String {
    let translations = translations();
    let in_chinese = |name: &str| {
        let found = translations.iter().find(|(known, ..)| known == name);
        found.unwrap_or_else(|| panic!("{CHINESE} has no line for {name}"))
    };
    let mut out = String::new();
    let headings =
        if chinese { "| 变量 | 参数 | 默认值 | 说明 |" } else { "| Variable | Flag | Default | What it is |" };
    let _ = writeln!(out, "{headings}\n|---|---|---|---|");
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    for arg in serve.get_arguments() {
        let (Some(flag), Some(variable)) = (arg.get_long(), arg.get_env()) else { continue };
        let variable = variable.to_str().unwrap();
        let default = match arg.get_default_values() {
            [] => String::new(),
            values => format!("`{}`", values[0].to_str().unwrap()),
        };
        let help = arg.get_long_help().unwrap().to_string();
        let (help, found) = help.strip_suffix(']').and_then(|h| h.split_once(" [default: ")).unwrap_or((&help, ""));
        let (help, found) = if chinese {
            let (_, help, found) = in_chinese(variable);
            (help.as_str(), found.as_str())
        } else {
            (help, found)
        };
        let default = if default.is_empty() { found } else { &default };
        let help = help.replace('|', "\\|");
        let _ = writeln!(out, "| `{variable}` | `--{flag}` | {default} | {help} |");
    }
    for setting in crate::config::variables_without_a_flag() {
        let help = if chinese { in_chinese(setting.0).1.as_str() } else { setting.1 };
        let _ = writeln!(out, "| `{}` | | | {help} |", setting.0);
    }
    out
}

#[test]
fn both_languages_have_the_same_settings() {
    let rows = |table: &str| {
        let variables = table.lines().skip(2).filter_map(|row| row.split('|').nth(1));
        variables.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rows(&table(true)), rows(&table(false)));
    assert_eq!(rows(&table(true)).len(), translations().len());
}

/// Checks that the tables in the READMEs match the program's settings. With `BLESS=1`, this test writes the tables.
#[test]
fn the_readmes_list_all_settings() {
    const BEGIN: &str = "<!-- config:begin -->\n";
    const END: &str = "<!-- config:end -->";
    for (name, chinese, must) in [("README.md", false, true), ("README.zh-CN.md", true, false)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let Ok(readme) = std::fs::read_to_string(&path) else {
            assert!(!must, "there is no {name}");
            continue;
        };
        let (before, rest) = readme.split_once(BEGIN).unwrap_or_else(|| panic!("{name} has no {BEGIN}"));
        let (held, after) = rest.split_once(END).unwrap_or_else(|| panic!("{name} has no {END}"));
        let table = table(chinese);
        if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
            std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(
                held == table,
                "{name}: the settings changed: run the tests once with BLESS=1. The table should be:\n{table}"
            );
        }
    }
}

/// The paths and the texts of all Markdown pages that may contain commands.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [".", "docs", "k8s", "examples", "clients/js", "tests/sim"].map(|folder| root.join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// The commands of this program in the code spans and shell blocks of a page. A command ends at a comment, a pipe or a
/// redirection. Variables before the command are left out.
fn commands(page: &str) -> Vec<Vec<String>> {
    let spans = page.split("\n```").step_by(2).flat_map(|prose| {
        let prose = prose.replace('\n', " ");
        prose.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    let blocks = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("bash"));
    let blocks = blocks.flat_map(|block| block.lines().map(str::to_owned));
    let words = spans.chain(blocks).filter_map(|text| {
        let text = text.split_once(" #").map_or(text.as_str(), |(command, _)| command).to_owned();
        let mut words = text.split_whitespace().map(|word| word.trim_matches('"').to_owned()).peekable();
        while words.next_if(|word| word.contains('=') && word.starts_with(|c: char| c.is_ascii_uppercase())).is_some() {
        }
        let words: Vec<String> =
            words.take_while(|word| !["&", "|", "&&", "<", ">"].contains(&word.as_str())).collect();
        (words.first().map(String::as_str) == Some("peerpigeon")).then_some(words)
    });
    words.collect()
}

#[test]
fn the_commands_in_the_docs_exist() {
    let mut found = 0;
    for (path, page) in pages() {
        for command in commands(&page) {
            let parsed = Cli::command().try_get_matches_from(&command);
            let kind = parsed.err().map(|error| error.kind());
            // Values in the docs may be placeholders, so an invalid value is accepted. clap reports `--version` as an
            // error.
            let is_known = matches!(kind, None | Some(ErrorKind::ValueValidation | ErrorKind::DisplayVersion));
            assert!(is_known, "{path}: {command:?}: {kind:?}");
            found += 1;
        }
    }
    assert!(found > 10, "only {found} commands were found");
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_links_of_the_docs_lead_to_files_and_headings() {
    let mut found = 0;
    for (path, page) in pages().into_iter().filter(|(path, _)| !path.ends_with("CHANGELOG.md")) {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            if file.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let target = Path::new(&path).parent().unwrap().join(file);
            let target = if file.is_empty() { Path::new(&path).to_owned() } else { target };
            assert!(target.exists(), "{path}: there is no {link}");
            if let Some(heading) = heading.filter(|_| target.extension().is_some_and(|extension| extension == "md")) {
                let text = std::fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|known| known == heading), "{path}: there is no heading {link}");
            }
            found += 1;
        }
    }
    assert!(found > 100, "only {found} links were found");
}
