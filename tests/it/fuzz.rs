//! Runs the fuzz target `config` with its corpus and with random settings. `just fuzz config` reaches more states.

#[path = "../../fuzz/src/config.rs"]
#[allow(
    clippy::disallowed_types,
    unreachable_pub,
    reason = "the module is public in the fuzz crate, and only one test at a time holds its lock"
)]
mod config_target;
#[path = "../../fuzz/src/replay.rs"]
#[allow(clippy::print_stdout, unreachable_pub, reason = "several tests share this module")]
mod replay;

use proptest::prelude::*;

#[test]
fn the_corpus_of_config_passes() {
    replay::replay("config", config_target::config);
}

/// Settings with a syntax of their own.
const NAMES: [&str; 16] = [
    "ALLOWED_ORIGINS",
    "BOOTSTRAP_HUBS",
    "CORS_ORIGIN",
    "DISCOVERY",
    "HOST",
    "HUB_ID",
    "ICE_SERVERS",
    "LOG_LEVEL",
    "MESH_DNS",
    "MESH_LEGACY",
    "MESH_TOKEN",
    "PORT",
    "PUBLIC_URL",
    "REDIS_URL",
    "TRUSTED_PROXIES",
    "TURN_URLS",
];

proptest! {
    // Each run has other random inputs. If a run fails, add the printed settings to `fuzz/corpus/config`.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_settings_are_refused_or_give_a_configuration(
        lines in prop::collection::vec((prop::sample::select(NAMES.to_vec()), "[ -~]{0,12}"), 0..4),
    ) {
        let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        config_target::config(text.as_bytes());
    }
}
