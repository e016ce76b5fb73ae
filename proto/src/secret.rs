//! The comparison of secrets.

use subtle::ConstantTimeEq;

/// Compares a received value with a secret. The time of the comparison depends only on the lengths of the two values.
/// The hub compares every secret with this function, except tags of an HMAC.
pub fn is_secret(sent: &[u8], secret: &[u8]) -> bool {
    sent.ct_eq(secret).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_completely() {
        assert!(is_secret(b"abc", b"abc") && is_secret(b"", b""));
        for other in ["", "a", "ab", "abd", "abcd", "ABC", "xbc"] {
            assert!(!is_secret(other.as_bytes(), b"abc"), "{other}");
            assert!(!is_secret(b"abc", other.as_bytes()), "{other}");
        }
    }
}
