//! Why tokens are refused.

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenRefusal {
    /// The text is not a JWT of at most [`MAX_TOKEN_BYTES`](proto::limits::MAX_TOKEN_BYTES).
    Malformed,
    /// The hub does not support the token's algorithm (for example `none`), or the token's key is not for this
    /// algorithm.
    Algorithm,
    /// The hub does not know the token's key.
    UnknownKey,
    /// The signature is wrong.
    Signature,
    /// The token's `exp` has passed.
    Expired,
    /// The token's `nbf` has not come yet.
    NotYetValid,
    /// The token's `aud` does not name this hub.
    Audience,
    /// The token's `iss` is not a known issuer.
    Issuer,
    /// The token's `sub` names another peer.
    Subject,
    /// A claim has the wrong form, or is too large.
    Claims,
    /// Too many tokens wait for new keys.
    Busy,
}

impl TokenRefusal {
    /// Every refusal, in the order of its discriminant.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::NotYetValid,
        Self::Audience,
        Self::Issuer,
        Self::Subject,
        Self::Claims,
        Self::Busy,
    ];

    /// The name in metrics and in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown-key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Claims => "claims",
            Self::Busy => "busy",
        }
    }

    /// One sentence for people: what is wrong, then what to do.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Malformed => "the token is not a JWT: send one of at most 8192 bytes",
            Self::Algorithm => {
                "the token's algorithm is not accepted: use HS256, HS384, HS512, RS256, ES256 or EdDSA with a key of the hub"
            }
            Self::UnknownKey => "the token's key is unknown here: sign it with a key of the hub",
            Self::Signature => "the token's signature is wrong: sign it with a key of the hub",
            Self::Expired => "the token has expired: request a new one",
            Self::NotYetValid => "the token is not valid yet (nbf): wait, or set the issuer's clock",
            Self::Audience => "the token is for another audience: request one whose `aud` is JWT_AUDIENCE of the hub",
            Self::Issuer => "the token is from another issuer: request one whose `iss` is JWT_ISSUER of the hub",
            Self::Subject => "the token is for another peer id: use the id of its `sub`",
            Self::Claims => "a claim of the token is not valid: see docs/security.md",
            Self::Busy => "too many tokens are being checked: send it again",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn refusals_have_distinct_names_and_say_what_to_do() {
        let labels: BTreeSet<_> = TokenRefusal::ALL.map(TokenRefusal::label).into();
        assert_eq!(labels.len(), TokenRefusal::ALL.len());
        for (at, refusal) in TokenRefusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at);
            let (problem, advice) = refusal.explain().split_once(": ").unwrap();
            assert!(!problem.is_empty() && !advice.ends_with('.'), "{refusal:?}");
        }
        assert!(TokenRefusal::Malformed.explain().contains(&proto::limits::MAX_TOKEN_BYTES.to_string()));
    }
}
