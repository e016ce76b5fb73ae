//! Tests of tokens in `auth`.

use super::*;
use crate::reason::ErrorCode;

#[test]
fn a_token_is_not_empty_and_has_a_maximum_length() {
    let most = limits::MAX_TOKEN_BYTES;
    for (token, code) in [
        (String::new(), Some(ErrorCode::InvalidMessage)),
        ("x".to_owned(), None),
        ("x".repeat(most), None),
        ("x".repeat(most + 1), Some(ErrorCode::Unauthorized)),
        ("x".repeat(most + 2), Some(ErrorCode::Unauthorized)),
    ] {
        let text = format!(r#"{{"type":"auth","data":{{"token":"{token}"}}}}"#);
        match parse(&text) {
            Ok(ClientMessage::Auth(read)) => assert!(code.is_none() && read == token, "{}", token.len()),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => assert_eq!(Some(refusal.code), code, "{}", token.len()),
        }
    }
    assert_eq!(parse(r#"{"type":"auth"}"#).unwrap_err().code, ErrorCode::InvalidMessage);
}
