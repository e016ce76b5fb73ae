//! Sentences of `error` messages. Each sentence is for one kind of mistake. [`ErrorCode::explain`] has a general
//! sentence for each code.
//!
//! Each sentence says what is wrong, then what to do. Clients may show these sentences to people. Programs should use
//! the code.
//!
//! [`ErrorCode::explain`]: crate::ErrorCode::explain

pub(crate) const ANNOUNCED_TOO_OFTEN: &str =
    "too many announcements (ANNOUNCE_RATE_BYTES): send fewer, since each goes to every member of the network";
pub(crate) const DISCOVERS_TOO_OFTEN: &str = "too many discover messages (DISCOVER_RATE): send them less often";
pub(crate) const DUPLICATE_FIELD: &str = "a field appears twice: send it once";
pub(crate) const HALF_SURROGATE: &str =
    "a string has half of a surrogate pair (\\ud800 to \\udfff): send both halves, or neither";
pub(crate) const HALF_SURROGATE_IN_KEY: &str =
    "a key in data has half of a surrogate pair (\\ud800 to \\udfff): send both halves, or neither";
pub(crate) const ID_NOT_A_STRING: &str = "id is not a string: send a string of at most 64 bytes to get a receipt";
pub(crate) const ID_TOO_LONG: &str = "id is too long: send a string of at most 64 bytes";
pub(crate) const KICKED: &str =
    "an operator removed you from this network: announce yourself again only if your user wants to";
pub(crate) const NETWORK_NAME_NOT_A_STRING: &str =
    "networkName is not a string: send a string, or leave it out for `global`";
pub(crate) const NETWORK_NAME_TOO_LONG: &str = "networkName is too long: send a name of at most 256 bytes";
pub(crate) const NETWORK_BUSY: &str =
    "the network's members send too much together (NETWORK_BUDGETS): send less, or wait retryInMs";
pub(crate) const NO_TARGET: &str = "targetPeerId is missing: send the 40 hexadecimal digits of the target's id";
pub(crate) const NO_TYPE: &str = "type is missing: send the message's type as a string";
pub(crate) const NEW_TOKEN_WAITS: &str = "your last token is still being checked: wait for the answer";
pub(crate) const NO_TOKEN: &str =
    "token is missing: send {\"type\":\"auth\",\"data\":{\"token\":\"...\"}} with your new token";
pub(crate) const NO_TOKEN_TO_RENEW: &str =
    "you connected without a token that can be renewed: connect again with the new token";
pub(crate) const NOT_A_MEMBER: &str = "you are not in this network: announce yourself in it first";
pub(crate) const NOT_AN_OBJECT: &str = "the message is not a JSON object: send an object, not an array or a value";
pub(crate) const NOT_UTF8: &str = "the message is not UTF-8: send JSON text encoded as UTF-8";
pub(crate) const PUBLIC_DATA_TOO_DEEP: &str =
    "data is nested more than 64 levels deep: make it flatter, or send it as a string";
pub(crate) const SIGNAL_DATA_TOO_DEEP: &str =
    "data is nested more than 512 levels deep: make it flatter, or send it as a string";
pub(crate) const TARGET_NOT_A_STRING: &str =
    "targetPeerId is not a string: send the 40 hexadecimal digits of the target's id";
pub(crate) const TARGET_NOT_AN_ID: &str = "targetPeerId is not a peer id: send 40 hexadecimal digits";
pub(crate) const TARGET_PEER_NOT_A_STRING: &str =
    "targetPeer is not a string: send the 40 hexadecimal digits of the target's id";
pub(crate) const TOO_MANY_BYTES: &str = "too many bytes (MESSAGE_RATE_BYTES): send fewer bytes per second";
pub(crate) const TOO_MANY_EVENTS: &str =
    "too many bytes for other peers (EVENT_RATE_BYTES): announce less often, or with less data";
pub(crate) const TOKEN_TOO_LONG: &str = "the token is too long: send one of at most 8192 bytes";
pub(crate) const TYPE_NOT_A_STRING: &str = "type is not a string: send the message's type as a string";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CloseReason, ErrorCode};

    /// Maximum length of a sentence, in bytes: two lines of a terminal.
    const LONGEST: usize = 160;

    const ALL: [&str; 28] = [
        ANNOUNCED_TOO_OFTEN,
        DISCOVERS_TOO_OFTEN,
        DUPLICATE_FIELD,
        HALF_SURROGATE,
        HALF_SURROGATE_IN_KEY,
        ID_NOT_A_STRING,
        ID_TOO_LONG,
        KICKED,
        NETWORK_NAME_NOT_A_STRING,
        NETWORK_NAME_TOO_LONG,
        NETWORK_BUSY,
        NEW_TOKEN_WAITS,
        NO_TARGET,
        NO_TOKEN,
        NO_TOKEN_TO_RENEW,
        NO_TYPE,
        NOT_A_MEMBER,
        NOT_AN_OBJECT,
        NOT_UTF8,
        PUBLIC_DATA_TOO_DEEP,
        SIGNAL_DATA_TOO_DEEP,
        TARGET_NOT_A_STRING,
        TARGET_NOT_AN_ID,
        TARGET_PEER_NOT_A_STRING,
        TOKEN_TOO_LONG,
        TOO_MANY_BYTES,
        TOO_MANY_EVENTS,
        TYPE_NOT_A_STRING,
    ];

    /// Checks that the sentence says what is wrong, and after a colon what to do.
    fn check(sentence: &str) {
        let (problem, advice) =
            sentence.split_once(": ").unwrap_or_else(|| panic!("the sentence has no instruction: {sentence}"));
        assert!(problem.starts_with(|c: char| c.is_ascii_lowercase()) && !advice.is_empty(), "{sentence}");
        assert!(!sentence.ends_with('.') && sentence.len() <= LONGEST, "{sentence}");
        for dense in ["no more ", "as it may", "is no ", "of whom", "cannot hold", "may be said"] {
            assert!(!sentence.contains(dense), "{dense:?} in {sentence}");
        }
    }

    #[test]
    fn error_sentences_say_what_is_wrong_and_what_to_do() {
        ALL.into_iter().chain(ErrorCode::ALL.map(ErrorCode::explain)).for_each(check);
    }

    #[test]
    fn every_sentence_is_listed() {
        let declared = include_str!("sentences.rs").lines().filter(|line| line.starts_with("pub(crate) const "));
        assert_eq!(declared.count(), ALL.len());
    }

    #[test]
    fn a_sentence_names_the_setting_that_sets_its_bound() {
        for (code, setting) in [
            (ErrorCode::HubFull, "ANNOUNCE_BUDGET_BYTES"),
            (ErrorCode::MessageTooLarge, "MAX_MESSAGE_BYTES"),
            (ErrorCode::NetworkFull, "MAX_PEERS_PER_NETWORK"),
            (ErrorCode::RateLimited, "MESSAGE_RATE"),
            (ErrorCode::SlowPeer, "SEND_QUEUE_BYTES"),
            (ErrorCode::TooManyNetworks, "MAX_NETWORKS_PER_PEER"),
        ] {
            assert!(code.explain().contains(setting), "{code:?}");
        }
    }

    #[test]
    fn reasons_of_close_frames_are_short() {
        for (code, text) in CloseReason::ALL.iter().filter_map(|reason| reason.close_frame()) {
            assert!(text.len() <= 40 && !text.ends_with('.'), "{code} {text}");
        }
    }
}
