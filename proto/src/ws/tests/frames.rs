//! Tests of frames that the hub writes.

use super::*;

#[test]
fn the_payload_of_a_written_frame_is_found_whatever_its_length() {
    for len in [0, 1, 125, 126, 0xffff, 0x1_0000] {
        let contents: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let mut bytes = Vec::new();
        put_header(&mut bytes, Opcode::Text, len);
        assert_eq!(bytes.len(), header_len(len), "{len}");
        bytes.extend_from_slice(&contents);
        assert_eq!(payload(&bytes), contents, "{len}");
    }
    assert_eq!(payload(b""), b"");
}

#[test]
fn a_violation_says_which_rule_was_broken() {
    let sentences = [Violation::Protocol("a rule"), Violation::NotUtf8, Violation::TooLarge].map(|v| v.to_string());
    assert_eq!(sentences, ["a rule", "text is not UTF-8", "message is too large"]);
}
