//! The bounds of the hub. The comment of a bound says how the number was computed and what happens at the bound.
//!
//! Each module has the bounds that one part of the hub enforces. Code uses all of them as `limits::NAME`.

mod admission;
mod bridge;
mod budget;
mod discovery;
mod http;
mod legacy;
mod links;
mod live;
mod messages;
mod process;
mod proxies;
mod relay;
mod router;
mod shard;
mod tls;
mod tokens;
mod traces;

pub use admission::*;
pub use bridge::*;
pub use budget::*;
pub use discovery::*;
pub use http::*;
pub use legacy::*;
pub use links::*;
pub use live::*;
pub use messages::*;
pub use process::*;
pub use proxies::*;
pub use relay::*;
pub use router::*;
pub use shard::*;
pub use tls::*;
pub use tokens::*;
pub use traces::*;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parse;

    /// The documented protocol.
    const DOC: &str = include_str!("../../docs/protocol.md");

    /// The rows of the table of bounds. Each tuple has the name of the bound, and the other cells of the row.
    fn rows() -> Vec<(&'static str, &'static str)> {
        let (_, section) = DOC.split_once("### Bounds\n").unwrap();
        let table = section.lines().skip_while(|line| !line.starts_with("|---"));
        let rows = table.skip(1).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.strip_prefix("| ").and_then(|row| row.split_once(" | ")).unwrap()).collect()
    }

    #[test]
    fn the_documented_bounds_equal_the_constants() {
        let bounds = [
            ("bytes of a message, all fragments together", DEFAULT_MAX_MESSAGE_BYTES),
            ("bytes of a `networkName`", MAX_NETWORK_NAME_BYTES),
            ("bytes of an `id`", MAX_MESSAGE_ID_BYTES),
            ("bytes of `data` in `announce` and `goodbye`", MAX_ANNOUNCE_DATA_BYTES),
            ("depth of `data` in `announce` and `goodbye`", MAX_ANNOUNCE_DEPTH),
            ("depth of `data` in a signal", MAX_SIGNAL_DEPTH),
            ("bytes of a client's `type` in `inReplyTo`", MAX_ECHOED_TYPE_BYTES),
            ("K of `closest`, `data.limit` of `discover`", usize::from(MAX_CLOSEST)),
            ("networks of a peer", DEFAULT_MAX_NETWORKS_PER_PEER),
            ("members of a network", DEFAULT_MAX_PEERS_PER_NETWORK),
            ("peers that a peer knows under bounded discovery", MAX_ACQUAINTANCES),
            ("messages per second, on average", DEFAULT_MESSAGE_RATE as usize),
            ("bytes of messages per second, on average", DEFAULT_MESSAGE_RATE_BYTES as usize),
            ("bytes of announcements per second, on average", DEFAULT_ANNOUNCE_RATE_BYTES as usize),
            ("bytes of events per second, on average", DEFAULT_EVENT_RATE_BYTES as usize),
            ("`discover` messages per second, on average", DEFAULT_DISCOVER_RATE as usize),
            ("budget of a network, as a multiple of the budget of one peer", DEFAULT_NETWORK_BUDGETS as usize),
            ("seconds above a budget without a pause", RATE_LIMIT_PATIENCE.as_secs() as usize),
            ("outstanding receipts", MAX_OPEN_RECEIPTS as usize),
            ("`error` messages per second, on average", DEFAULT_ERROR_RATE as usize),
            ("burst of `error` messages", DEFAULT_ERROR_RATE as usize * ERROR_BURST_SECS as usize),
        ];
        let documented: Vec<_> = rows()
            .into_iter()
            .map(|(what, rest)| (what, rest.split(' ').next().and_then(|most| most.parse().ok()).unwrap()))
            .collect();
        assert_eq!(documented, bounds);
    }

    #[test]
    fn documented_numbers_match_the_bounds() {
        let said = |text: String| parse(&text).unwrap_err().message;
        let target = "a".repeat(40);
        let deep = ["[".repeat(MAX_SIGNAL_DEPTH + 1), "]".repeat(MAX_SIGNAL_DEPTH + 1)].concat();
        let id = "i".repeat(MAX_MESSAGE_ID_BYTES + 1);
        let name = "n".repeat(MAX_NETWORK_NAME_BYTES + 1);
        for (most, sentence) in [
            (MAX_SIGNAL_DEPTH, said(format!(r#"{{"type":"offer","targetPeerId":"{target}","data":{deep}}}"#))),
            (MAX_MESSAGE_ID_BYTES, said(format!(r#"{{"type":"offer","targetPeerId":"{target}","id":"{id}"}}"#))),
            (MAX_NETWORK_NAME_BYTES, said(format!(r#"{{"type":"announce","networkName":"{name}"}}"#))),
            (MAX_ANNOUNCE_DEPTH, crate::codec::Unfit::TooDeep.explain()),
            (MAX_ANNOUNCE_DATA_BYTES, crate::codec::Unfit::TooLarge.explain()),
            (MAX_ACQUAINTANCES, crate::ErrorCode::NetworkFull.explain()),
        ] {
            assert!(sentence.contains(&format!(" {most} ")), "{most}: {sentence}");
        }
    }
}
