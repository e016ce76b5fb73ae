//! The subcommands, one module each: `Args` is what the command line says, `run` does it.

pub mod generate_peer_ids {
    //! `peerpigeon generate-peer-ids`.

    /// Print random peer ids and the URLs they connect to
    #[derive(clap::Args, Debug)]
    pub struct Args {}
}

pub mod load_test {
    //! `peerpigeon load-test`.

    /// Put a hub under load and measure it
    #[derive(clap::Args, Debug)]
    pub struct Args {}
}

pub mod peer {
    //! `peerpigeon peer`.

    /// Join a network as a peer and print what it is told
    #[derive(clap::Args, Debug)]
    pub struct Args {
        /// Token the hub asks for
        #[arg(long, env = "AUTH_TOKEN", hide_env_values = true)]
        pub token: Option<String>,
    }
}
