//! The command `peerpigeon man` prints manual pages, made from the definitions of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

/// Print the manual page, or write the pages of all commands into a directory
#[derive(clap::Args, Debug)]
#[command(after_help = "To read the page without installing it: peerpigeon man | man -l -")]
pub struct Args {
    /// Directory for the pages, one for each command; it is created if it does not exist [default: print the main page]
    dir: Option<PathBuf>,
}

/// Prints or writes the pages of `command`.
pub fn run(args: &Args, command: Command) -> ExitCode {
    let command = ready(command);
    let Some(dir) = &args.dir else {
        let printed = page(&command).and_then(|page| io::stdout().write_all(&page));
        return super::printed(printed.and_then(|()| io::stdout().flush()));
    };
    match fs::create_dir_all(dir).and_then(|()| write(dir, &command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(io::stderr(), "peerpigeon man: cannot write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// The commands, with the arguments that clap adds. The pages of `help` repeat the other pages, so they are left out.
fn ready(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

/// Writes the page of the command and of all its subcommands: `peerpigeon.1`, `peerpigeon-serve.1` and so on.
fn write(dir: &Path, command: &Command) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    fs::write(dir.join(format!("{name}.1")), page(command)?)?;
    command.get_subcommands().try_for_each(|command| write(dir, command))
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    Man::new(command.clone().name(name)).render(&mut page)?;
    Ok(page)
}
