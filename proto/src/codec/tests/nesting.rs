//! Tests of the depth of data, of the number of acquaintances that data requests, and of the echoed type.

use super::*;

#[test]
fn brackets_in_strings_do_not_count_as_levels() {
    for (data, depth) in [
        (r#"[["]]","]]",[1]]]"#, 3),
        (r#"["[[[[{{{{"]"#, 1),
        (r#"["\"[[[[",["\\",{}]]"#, 3),
        (r#"[1],[1],[1]"#, 1),
        (r#"{"}":{"]":{}}}"#, 3),
    ] {
        assert!(is_deeper_than(data.as_bytes(), depth - 1), "{data} has {depth} levels");
        assert!(!is_deeper_than(data.as_bytes(), depth), "{data} has {depth} levels");
    }
}

#[test]
fn a_requested_number_of_acquaintances_is_above_zero() {
    for (data, wish) in [
        (r#"{"discover":{"closest":8}}"#, Some(8)),
        (r#"{"discover":{"closest":1}}"#, Some(1)),
        (r#"{"discover":{"closest":0}}"#, None),
        (r#"{"discover":{"closest":-1}}"#, None),
        (r#"{"discover":{"closest":"8"}}"#, None),
        (r#"{"closest":8}"#, None),
    ] {
        assert_eq!(closest_wanted(data), wish, "{data}");
    }
}

#[test]
fn an_echoed_type_is_truncated_between_characters() {
    let most = limits::MAX_ECHOED_TYPE_BYTES;
    for (kind, echoed) in [
        ("x".repeat(most - 1), most - 1),
        ("x".repeat(most), most),
        ("x".repeat(most + 1), most),
        (format!("{}é", "x".repeat(most - 1)), most - 1),
        (format!("{}é", "x".repeat(most - 2)), most),
    ] {
        let text = format!(r#"{{"type":"{kind}"}}"#);
        let refusal = parse(&text).unwrap_err();
        assert_eq!(refusal.in_reply_to.as_deref(), Some(&kind[..echoed]), "{kind}");
    }
}
