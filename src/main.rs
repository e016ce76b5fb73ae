//! The program `peerpigeon`: a WebRTC signaling hub and its tools.

use std::process::ExitCode;

use peerpigeon::cli::{self, Task};
use peerpigeon::telemetry::process;
use peerpigeon::{cmd, serve};

/// jemalloc has a background thread that returns memory to the system while shards are idle. A hub runs for months, and
/// its load comes in bursts.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::task(std::env::args_os(), &|name| std::env::var_os(name)) {
        Ok(Task::Serve(config)) => {
            process::save_addresses();
            serve::run(*config)
        }
        Ok(Task::Health(question)) => cmd::block_on(cmd::health::run(question)),
        Ok(Task::Admin(question)) => cmd::block_on(cmd::admin::run(*question)),
        Ok(Task::Peer(args)) => cmd::block_on(cmd::peer::run(*args)),
        Ok(Task::LoadTest(args)) => cmd::block_on(cmd::load_test::run(*args)),
        Ok(Task::GeneratePeerIds(args)) => cmd::generate_peer_ids::run(args),
        Ok(Task::Doctor(args)) => cmd::block_on(cmd::doctor::run(*args)),
        Ok(Task::Top(watch)) => cmd::block_on(cmd::top::run(*watch)),
        Ok(Task::Completions(args)) => cmd::completions::run(&args, cli::command()),
        Ok(Task::Man(args)) => cmd::man::run(&args, cli::command()),
        Ok(Task::Token(question)) => cmd::block_on(cmd::token::run(*question)),
        Err(exit) => exit.report(),
    }
}
