//! The command line.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use proto::Redacted;

use crate::cmd;
use crate::config::{Config, Flags, SettingError};

/// Exit code for an invalid command line or environment (`EX_USAGE` of sysexits.h). A restart does not help.
pub const EX_USAGE: u8 = 64;

const EXIT_CODES: &str = "Exit codes: 0 a signal stopped the hub; 1 the hub could not start; 64 a setting is invalid; \
    70 a bug of the hub: restart it.";

/// A WebRTC signaling hub. Peers connect over WebSockets, join named networks, discover each other and exchange offers,
/// answers and ICE candidates.
#[derive(Debug, Parser)]
#[command(name = "peerpigeon", version = env!("PEERPIGEON_VERSION"), about, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Without a command, peerpigeon runs a hub. These are its most used settings: --help explains all of \
        them. Each setting has an environment variable, which is shown after its flag.",
    after_long_help = "Without a command, peerpigeon runs a hub. Every setting has an environment variable, shown \
        after its flag. A flag takes precedence over its variable, and an empty variable counts as unset.\n\nExit \
        codes of a hub: 0 a signal stopped it; 1 it could not start; 64 a setting is invalid; 70 a bug of the hub: \
        restart it."
)]
struct Cli {
    #[command(subcommand)]
    asked: Option<Asked>,
    #[command(flatten)]
    serve: Flags,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// Run a hub (the default)
    #[command(after_help = "These are the most used settings: --help explains all of them.")]
    #[command(after_long_help = EXIT_CODES)]
    Serve(Flags),
    Health(cmd::health::Args),
    Admin(Box<cmd::admin::Args>),
    Peer(Box<cmd::peer::Args>),
    LoadTest(Box<cmd::load_test::Args>),
    GeneratePeerIds(cmd::generate_peer_ids::Args),
    Doctor(Box<cmd::doctor::Args>),
    Top(Box<cmd::top::Args>),
    Completions(cmd::completions::Args),
    Man(cmd::man::Args),
    #[command(subcommand)]
    Token(cmd::token::Asked),
}

/// The task of this process.
#[derive(Debug)]
pub enum Task {
    /// Run a hub.
    Serve(Box<Config>),
    /// Check the health of a hub.
    Health(cmd::health::Question),
    /// Give a running hub an order.
    Admin(Box<cmd::admin::Question>),
    /// Join a network as a peer.
    Peer(Box<cmd::peer::Args>),
    /// Put a hub under load.
    LoadTest(Box<cmd::load_test::Args>),
    /// Print peer ids.
    GeneratePeerIds(cmd::generate_peer_ids::Args),
    /// Examine a hub from outside.
    Doctor(Box<cmd::doctor::Args>),
    /// Watch hubs.
    Top(Box<cmd::top::Watch>),
    /// Print a script for a shell.
    Completions(cmd::completions::Args),
    /// Print or write manual pages.
    Man(cmd::man::Args),
    /// Make or check a token.
    Token(Box<cmd::token::Question>),
}

/// Why the command line contains no task. The command line asks for `--help` or similar, or is invalid.
#[derive(Debug)]
pub enum Exit {
    /// A message of clap.
    Clap(clap::Error),
    /// A text that was requested.
    Print(String),
    /// Invalid settings.
    Refused(Vec<SettingError>),
    /// An error of clap, with the secrets of URLs removed.
    Usage(String),
}

/// Parses the command line, and for a hub also all of its settings. `env` returns a variable by its name.
pub fn task(args: impl IntoIterator<Item = OsString>, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Task, Exit> {
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = without_empty_variables(Cli::command(), env).try_get_matches_from(&args);
    let cli = parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| Exit::of(error, &args))?;
    let flags = match cli.asked {
        None => cli.serve,
        Some(Asked::Serve(flags)) => flags,
        Some(Asked::Health(args)) => return args.question(env).map(Task::Health).map_err(Exit::Refused),
        Some(Asked::Admin(args)) => {
            let asked = args.question(env).map(|question| Task::Admin(Box::new(question)));
            return asked.map_err(|problem| Exit::Usage(format!("peerpigeon admin: {problem}\n")));
        }
        Some(Asked::Peer(args)) => return Ok(Task::Peer(args)),
        Some(Asked::LoadTest(args)) => return Ok(Task::LoadTest(args)),
        Some(Asked::GeneratePeerIds(args)) => return Ok(Task::GeneratePeerIds(args)),
        Some(Asked::Doctor(args)) => return Ok(Task::Doctor(args)),
        Some(Asked::Top(args)) => {
            let watch = args.watch(env).map(|watch| Task::Top(Box::new(watch)));
            return watch.map_err(|problem| Exit::Usage(format!("peerpigeon top: {problem}\n")));
        }
        Some(Asked::Completions(args)) => return Ok(Task::Completions(args)),
        Some(Asked::Man(args)) => return Ok(Task::Man(args)),
        Some(Asked::Token(asked)) => {
            let question = asked.question(env).map(|question| Task::Token(Box::new(question)));
            return question.map_err(Exit::Refused);
        }
    };
    let config = Config::resolve(&flags, env).map_err(Exit::Refused)?;
    if flags.print_config {
        return Err(Exit::Print(config.describe()));
    }
    Ok(Task::Serve(Box::new(config)))
}

/// The definitions of the whole command line.
pub fn command() -> Command {
    Cli::command()
}

/// Hides empty variables from clap.
fn without_empty_variables(command: Command, env: &dyn Fn(&str) -> Option<OsString>) -> Command {
    let is_empty = |name: &std::ffi::OsStr| {
        name.to_str().and_then(env).is_some_and(|value| value.to_str().is_some_and(|value| value.trim().is_empty()))
    };
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(|subcommand| without_empty_variables(subcommand, env))
}

impl Exit {
    /// Makes the exit for an error of clap. clap repeats invalid arguments in its message. So in each URL, the part
    /// before the last `@` is removed, because it can contain a password.
    fn of(error: clap::Error, args: &[OsString]) -> Self {
        let secret = |arg: &&str| arg.contains('@');
        let mut secrets: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).filter(secret).collect();
        if !error.use_stderr() || secrets.is_empty() {
            return Self::Clap(error);
        }
        let values: Vec<&str> = secrets.iter().filter_map(|arg| Some(arg.split_once('=')?.1)).filter(secret).collect();
        secrets.extend(values);
        // Longer texts are replaced first, because a value is also a part of its argument (`--flag=value`).
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut text = error.render().to_string();
        for secret in secrets {
            text = text.replace(secret, &Redacted(secret).to_string());
        }
        Self::Usage(text)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Clap(error) if !error.use_stderr() => 0,
            Self::Print(_) => 0,
            Self::Clap(_) | Self::Refused(_) | Self::Usage(_) => EX_USAGE,
        }
    }

    /// Prints the message. A requested message goes to stdout, any other message to stderr.
    pub fn report(self) -> ExitCode {
        let mut code = ExitCode::from(self.code());
        // If stderr is closed, only the exit code shows the failure.
        let _ = match self {
            Self::Clap(error) => error.print(),
            Self::Usage(text) => std::io::stderr().write_all(text.as_bytes()),
            Self::Print(text) => {
                let mut out = std::io::stdout();
                let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                // The reader may have closed the pipe, which is no failure. Any other write error is a failure, because
                // the user requested this output.
                if printed.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
                    code = ExitCode::FAILURE;
                }
                printed
            }
            Self::Refused(refusals) => {
                let lines: String = refusals.iter().map(|refusal| format!("peerpigeon: {refusal}\n")).collect();
                std::io::stderr().write_all(lines.as_bytes())
            }
        };
        code
    }
}
