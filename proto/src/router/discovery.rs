//! The setting DISCOVERY.

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_CLOSEST;

/// Which members a new peer discovers, unless its announcement requests another mode (DISCOVERY). All hubs of a mesh
/// must have the same value of DISCOVERY.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Discovery {
    /// All members.
    #[default]
    All,
    /// The closest K members, and [`RANDOM_PICKS`](crate::limits::RANDOM_PICKS) random members. K is 1 to
    /// [`MAX_CLOSEST`].
    Closest(u8),
}

impl Discovery {
    /// Whether a peer with this mode knows only some members of a network.
    pub const fn is_bounded(self) -> bool {
        matches!(self, Self::Closest(_))
    }

    /// K as in envelopes. 0 means all.
    pub const fn closest(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Closest(k) => k,
        }
    }

    /// Converts K from an envelope. 0 means all.
    pub const fn from_closest(closest: u8) -> Self {
        if closest == 0 { Self::All } else { Self::Closest(closest) }
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Closest(k) => write!(f, "closest:{k}"),
        }
    }
}

impl FromStr for Discovery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let closest = |k: &str| k.parse().ok().filter(|k| (1..=MAX_CLOSEST).contains(k)).map(Self::Closest);
        match text.split_once(':') {
            None if text == "all" => Some(Self::All),
            Some(("closest", k)) => closest(k),
            _ => None,
        }
        .ok_or_else(|| format!("unknown mode: use `all`, or `closest:K` with K from 1 to {MAX_CLOSEST}"))
    }
}
