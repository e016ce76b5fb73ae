//! A grant says what a session may do, and in which networks.
//!
//! The caller checks the token before a session begins, and each token that the client sends later. The router receives
//! the grant, and no other code applies it. A session without a grant may do everything.

use std::fmt;

use crate::id::NetworkName;
use crate::limits::{MAX_GRANT_CLASS_BYTES, MAX_GRANT_RULES, MAX_NETWORK_NAME_BYTES};

/// What a session may do in one network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// Be a member. Members discover each other.
    pub join: bool,
    /// Discover the members without being discovered. A session that may join and observe is a member.
    pub observe: bool,
    /// Send signals to the other members of the network. Only members can use this right.
    pub signal: bool,
}

impl Rights {
    /// The rights of a member: join and signal.
    pub const MEMBER: Self = Self { join: true, observe: false, signal: true };

    /// The names of the rights in tokens.
    pub const NAMES: [&str; 3] = ["join", "observe", "signal"];

    /// The rights with these names. `None` if a name is unknown.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        names.into_iter().try_fold(Self::default(), |rights, name| match name {
            "join" => Some(Self { join: true, ..rights }),
            "observe" => Some(Self { observe: true, ..rights }),
            "signal" => Some(Self { signal: true, ..rights }),
            _ => None,
        })
    }

    const fn and(self, other: Self) -> Self {
        Self {
            join: self.join || other.join,
            observe: self.observe || other.observe,
            signal: self.signal || other.signal,
        }
    }
}

/// A rule of a grant: the networks, and the rights there.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    /// The name, or a prefix of names.
    name: Box<str>,
    is_prefix: bool,
    rights: Rights,
}

impl Rule {
    fn is_for(&self, network: &str) -> bool {
        if self.is_prefix { network.starts_with(&*self.name) } else { network == &*self.name }
    }
}

/// What the token of a session allows. At most [`MAX_GRANT_RULES`] rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grant {
    /// `None` gives the rights of a member in every network.
    rules: Option<Vec<Rule>>,
    expires_ms: Option<u64>,
    class: Option<Box<str>>,
}

/// Writes the grant for people, for example as `room-*=join,signal n=observe` or `any`.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rules) = &self.rules else { return f.write_str("any") };
        for (at, Rule { name, is_prefix, rights }) in rules.iter().enumerate() {
            let named = Rights::NAMES.into_iter().zip([rights.join, rights.observe, rights.signal]);
            let names: Vec<_> = named.filter(|(_, has)| *has).map(|(name, _)| name).collect();
            let (space, star) = (if at > 0 { " " } else { "" }, if *is_prefix { "*" } else { "" });
            write!(f, "{space}{name}{star}={}", names.join(","))?;
        }
        Ok(())
    }
}

/// A grant that exceeds a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantTooLarge;

impl Grant {
    /// The rights of a member in every network, without an expiry.
    pub fn everywhere() -> Self {
        Self::default()
    }

    /// No rights at all. [`Self::allow`] adds some.
    pub fn nowhere() -> Self {
        Self { rules: Some(Vec::new()), ..Self::default() }
    }

    /// Adds rights in the network with this name. If the pattern ends with `*`, the rights apply to all networks whose
    /// names begin with the text before the `*`. A blank name means `global`, as in messages.
    ///
    /// # Errors
    ///
    /// If the grant already has [`MAX_GRANT_RULES`] rules, or if the name is longer than [`MAX_NETWORK_NAME_BYTES`].
    pub fn allow(&mut self, pattern: &str, rights: Rights) -> Result<(), GrantTooLarge> {
        let rules = self.rules.get_or_insert_default();
        let (name, is_prefix) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (NetworkName::resolve(Some(pattern)).ok_or(GrantTooLarge)?, false),
        };
        if rules.len() >= MAX_GRANT_RULES || name.len() > MAX_NETWORK_NAME_BYTES {
            return Err(GrantTooLarge);
        }
        rules.push(Rule { name: name.into(), is_prefix, rights });
        Ok(())
    }

    /// Sets the time at which the grant expires, in milliseconds since 1970.
    #[must_use]
    pub fn until(self, expires_ms: u64) -> Self {
        Self { expires_ms: Some(expires_ms), ..self }
    }

    /// Sets the name of the quota class.
    ///
    /// # Errors
    ///
    /// If the name is longer than [`MAX_GRANT_CLASS_BYTES`].
    pub fn with_class(self, class: &str) -> Result<Self, GrantTooLarge> {
        if class.len() > MAX_GRANT_CLASS_BYTES {
            Err(GrantTooLarge)
        } else {
            Ok(Self { class: Some(class.into()), ..self })
        }
    }

    /// The rights in a network, which are the union of the rights of all rules that match the network's name.
    pub fn rights(&self, network: &str) -> Rights {
        match &self.rules {
            None => Rights::MEMBER,
            Some(rules) => {
                let matching = rules.iter().filter(|rule| rule.is_for(network));
                matching.fold(Rights::default(), |rights, rule| rights.and(rule.rights))
            }
        }
    }

    /// The time at which the grant expires, in milliseconds since 1970. `None` if the grant does not expire.
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }

    /// The name of the quota class.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBSERVER: Rights = Rights { join: false, observe: true, signal: false };

    #[test]
    fn a_grant_without_rules_gives_the_rights_of_a_member_everywhere() {
        assert_eq!(Grant::everywhere().rights("any"), Rights::MEMBER);
        assert_eq!(Grant::nowhere().rights("any"), Rights::default());
    }

    #[test]
    fn rules_name_a_network_or_a_prefix_and_their_rights_add_up() {
        let mut grant = Grant::nowhere();
        grant.allow("room-*", OBSERVER).unwrap();
        grant.allow("room-1", Rights::MEMBER).unwrap();
        grant.allow(" ", Rights::MEMBER).unwrap();
        for (network, rights) in [
            ("room-1", Rights { observe: true, ..Rights::MEMBER }),
            ("room-12", OBSERVER),
            ("room-", OBSERVER),
            ("room", Rights::default()),
            ("Room-1", Rights::default()),
            ("global", Rights::MEMBER),
            ("globally", Rights::default()),
        ] {
            assert_eq!(grant.rights(network), rights, "{network}");
        }
        grant.allow("*", Rights { signal: true, ..Rights::default() }).unwrap();
        assert_eq!(grant.rights("else"), Rights { signal: true, ..Rights::default() });
    }

    #[test]
    fn names_of_rights_are_exact() {
        assert_eq!(Rights::from_names(["join", "signal"]), Some(Rights::MEMBER));
        assert_eq!(Rights::from_names(Rights::NAMES), Some(Rights { join: true, observe: true, signal: true }));
        assert_eq!(Rights::from_names([]), Some(Rights::default()));
        assert_eq!(Rights::from_names(["Join"]), None);
    }

    #[test]
    fn a_grant_is_bounded() {
        let mut grant = Grant::nowhere();
        assert_eq!(grant.allow(&"n".repeat(MAX_NETWORK_NAME_BYTES + 1), Rights::MEMBER), Err(GrantTooLarge));
        assert_eq!(grant.allow(&format!("{}*", "n".repeat(MAX_NETWORK_NAME_BYTES + 1)), OBSERVER), Err(GrantTooLarge));
        for _ in 0..MAX_GRANT_RULES {
            grant.allow("n", OBSERVER).unwrap();
        }
        assert_eq!(grant.allow("n", OBSERVER), Err(GrantTooLarge));
        assert_eq!(Grant::default().with_class(&"c".repeat(MAX_GRANT_CLASS_BYTES + 1)), Err(GrantTooLarge));
        let grant = Grant::default().with_class("gold").unwrap().until(7);
        assert_eq!((grant.class(), grant.expires_ms()), (Some("gold"), Some(7)));
    }

    #[test]
    fn a_grant_is_shown_as_its_rules() {
        let mut grant = Grant::nowhere();
        grant.allow("room-*", Rights::MEMBER).unwrap();
        grant.allow("n", OBSERVER).unwrap();
        assert_eq!(grant.to_string(), "room-*=join,signal n=observe");
        assert_eq!(Grant::everywhere().to_string(), "any");
    }
}
