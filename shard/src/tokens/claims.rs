//! The header and the claims of a token.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::{Grant, GrantTooLarge, PeerId, Rights};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Allowed, SKEW_MS, TokenRefusal, TokenRules, millis, numeric_date};

/// The fields of a token's header that the hub uses.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    pub(super) crit: Option<IgnoredAny>,
}

/// The claims that the hub uses.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Option<Names>,
    iss: Option<String>,
    networks: Option<Vec<Network>>,
    class: Option<String>,
}

/// One name, or a list of names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

impl Names {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// An entry of `networks`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Network {
    /// The name of a network in which the peer has the rights of a member.
    Name(String),
    Rule(Rule),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    rights: Option<Vec<String>>,
}

/// Parses a part of a token, which is JSON in base64url.
pub(super) fn decoded<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl Claims {
    pub(super) fn parse(part: &str) -> Result<Self, TokenRefusal> {
        decoded(part).ok_or(TokenRefusal::Claims)
    }

    /// Decides whether a token is accepted, by its claims. The caller has verified the signature.
    pub(super) fn judge(&self, rules: &TokenRules, at: SystemTime) -> Result<Allowed, TokenRefusal> {
        let now = millis(at);
        let expires = self.exp.map(numeric_date);
        if expires.is_some_and(|expires| expires <= now) {
            return Err(TokenRefusal::Expired);
        }
        if self.nbf.is_some_and(|nbf| numeric_date(nbf) > now.saturating_add(SKEW_MS)) {
            return Err(TokenRefusal::NotYetValid);
        }
        let known = |names: &[String], name: &String| names.contains(name);
        let is_for_us = match &self.aud {
            None => rules.audiences.is_empty(),
            Some(names) => names.as_slice().iter().any(|name| known(&rules.audiences, name)),
        };
        if !is_for_us {
            return Err(TokenRefusal::Audience);
        }
        if !rules.issuers.is_empty() && !self.iss.as_ref().is_some_and(|iss| known(&rules.issuers, iss)) {
            return Err(TokenRefusal::Issuer);
        }
        let peer = self.sub.as_deref().map(|sub| sub.parse().unwrap_or_else(|_| PeerId::of_subject(sub)));
        let grant = self.grant().map_err(|GrantTooLarge| TokenRefusal::Claims)?;
        Ok(Allowed { peer, grant: expires.map_or(grant.clone(), |expires| grant.until(expires)) })
    }

    fn grant(&self) -> Result<Grant, GrantTooLarge> {
        let mut grant = if self.networks.is_some() { Grant::nowhere() } else { Grant::everywhere() };
        for network in self.networks.iter().flatten() {
            match network {
                Network::Name(name) => grant.allow(name, Rights::MEMBER)?,
                Network::Rule(Rule { name, rights: None }) => grant.allow(name, Rights::MEMBER)?,
                Network::Rule(Rule { name, rights: Some(rights) }) => {
                    let rights = Rights::from_names(rights.iter().map(String::as_str)).ok_or(GrantTooLarge)?;
                    grant.allow(name, rights)?;
                }
            }
        }
        match &self.class {
            Some(class) => grant.with_class(class),
            None => Ok(grant),
        }
    }
}
