//! The command `peerpigeon completions` prints scripts with which shells complete the command line.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

/// Print a script with which a shell completes commands and flags
#[derive(clap::Args, Debug)]
#[command(
    after_help = "bash: peerpigeon completions bash >/etc/bash_completion.d/peerpigeon\nzsh:  peerpigeon completions \
                        zsh >\"${fpath[1]}/_peerpigeon\"\nfish: peerpigeon completions fish \
                        >~/.config/fish/completions/peerpigeon.fish"
)]
pub struct Args {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `command`.
pub fn run(args: &Args, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    super::printed(io::stdout().write_all(&script).and_then(|()| io::stdout().flush()))
}
