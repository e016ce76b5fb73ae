//! The command `peerpigeon generate-peer-ids` prints random peer ids, with the URLs to connect with.

use std::io::{self, Write};
use std::process::ExitCode;

use proto::PeerId;

use crate::client::HubUrl;

/// Print random peer ids, each with the URLs to connect with
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of ids
    #[arg(short = 'n', long = "count", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,

    /// Hub to print a URL for; can be given several times
    #[arg(long = "hub", value_name = "URL", default_value = HubUrl::DEFAULT)]
    pub hubs: Vec<HubUrl>,
}

/// Prints the ids.
pub fn run(args: Args) -> ExitCode {
    match print(&args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn print(args: &Args, out: &mut impl Write) -> io::Result<()> {
    for _ in 0..args.count {
        let peer = random_id().map_err(|error| io::Error::other(error.to_string()))?;
        writeln!(out, "{peer}")?;
        for hub in &args.hubs {
            writeln!(out, "  {}", hub.for_peer(&peer))?;
        }
    }
    out.flush()
}

/// A random id.
pub(crate) fn random_id() -> Result<PeerId, getrandom::Error> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)?;
    Ok(PeerId::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_printed_with_a_url_per_hub() {
        let hubs = ["ws://a:1", "wss://b"].map(|hub| hub.parse().unwrap()).to_vec();
        let mut out = Vec::new();
        print(&Args { count: 3, hubs }, &mut out).unwrap();

        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 9);
        for group in lines.chunks(3) {
            assert!(group[0].parse::<PeerId>().is_ok());
            assert_eq!(group[1], format!("  ws://a:1/ws?peerId={}", group[0]));
            assert_eq!(group[2], format!("  wss://b/ws?peerId={}", group[0]));
        }
        assert_ne!(lines[0], lines[3]);
    }
}
