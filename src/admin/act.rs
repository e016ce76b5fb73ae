//! The encoding of orders in requests.

use std::str::FromStr;
use std::time::Duration;

use proto::limits::LONGEST_EXCLUSION;
use proto::{NetworkName, Order, PeerId};

/// An action that an operator can order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Remove a peer, or close a network.
    Order(Order),
    /// Close all connections, and accept no new ones.
    Drain {
        /// The time over which the connections are closed. `None` means DRAIN_SECS.
        over: Option<Duration>,
    },
    /// End the drain.
    Undrain,
}

/// The names of the orders. The name of an order is also the last segment of its path, and a command of `peerpigeon
/// admin`.
pub const NAMES: [&str; 4] = ["kick", "close-network", "drain", "undrain"];

impl Act {
    /// Reads an order from its name and the fields of a form.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says which field is wrong, and what to send.
    pub fn read(name: &str, form: &[u8]) -> Result<Self, String> {
        let (mut peer, mut network, mut secs) = (None, None, None);
        for (key, value) in form_urlencoded::parse(form) {
            // Browsers send an empty form field for an input without text.
            let value = value.trim().to_owned();
            let field = match key.as_ref() {
                "peer" if name == "kick" => &mut peer,
                "network" if matches!(name, "kick" | "close-network") => &mut network,
                "secs" if name != "undrain" => &mut secs,
                other => return Err(format!("{name} has no field {other:.64?}: leave it out")),
            };
            if field.replace(value).is_some() {
                return Err(format!("the field {key} occurs twice: send it once"));
            }
        }
        let given = |field: Option<String>| field.filter(|value| !value.is_empty());
        let network = given(network).map(|name| match NetworkName::resolve(Some(&name)) {
            Some(name) => Ok(NetworkName::new(name)),
            None => Err("the name in network is too long: send at most 256 bytes".to_owned()),
        });
        let (network, span) = (network.transpose()?, given(secs).map(|secs| span(&secs)).transpose()?);
        match name {
            "kick" => {
                let peer = given(peer).ok_or("the field peer is missing: send the peer's id, 40 hexadecimal digits")?;
                let peer = PeerId::from_str(&peer)
                    .map_err(|_| format!("{peer:.64?} is not a peer's id: send 40 hexadecimal digits"))?;
                Ok(Self::Order(Order::Kick { peer, network, out_for: span }))
            }
            "close-network" => {
                let network = network.ok_or("the field network is missing: send the network's name")?;
                Ok(Self::Order(Order::CloseNetwork { network, out_for: span }))
            }
            "drain" => Ok(Self::Drain { over: span }),
            "undrain" => Ok(Self::Undrain),
            _ => Err(format!("there is no order {name:.64?}: use {}", NAMES.join(", "))),
        }
    }

    /// Writes the form that [`Self::read`] reads.
    pub fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        let (peer, network, span) = self.subject();
        if let Some(peer) = peer {
            form.append_pair("peer", &peer.to_string());
        }
        if let Some(network) = network {
            form.append_pair("network", network);
        }
        if let Some(span) = span {
            form.append_pair("secs", &span.as_secs().to_string());
        }
        form.finish()
    }

    /// The peer, the network and the time in the order.
    pub fn subject(&self) -> (Option<PeerId>, Option<&str>, Option<Duration>) {
        match self {
            Self::Order(order @ Order::Kick { peer, network, .. }) => {
                (Some(*peer), network.as_ref().map(NetworkName::as_str), order.out_for())
            }
            Self::Order(order @ Order::CloseNetwork { network, .. }) => (None, Some(network.as_str()), order.out_for()),
            Self::Drain { over } => (None, None, *over),
            Self::Undrain => (None, None, None),
        }
    }

    /// The requested time of exclusion.
    pub const fn out_for(&self) -> Option<Duration> {
        match self {
            Self::Order(order) => order.out_for(),
            Self::Drain { .. } | Self::Undrain => None,
        }
    }

    /// The name of the order.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Order(Order::Kick { .. }) => NAMES[0],
            Self::Order(Order::CloseNetwork { .. }) => NAMES[1],
            Self::Drain { .. } => NAMES[2],
            Self::Undrain => NAMES[3],
        }
    }
}

/// Reads a number of seconds.
///
/// # Errors
///
/// Returns a sentence if the text is not a whole number of seconds, or is more than [`LONGEST_EXCLUSION`].
pub fn span(text: &str) -> Result<Duration, String> {
    let most = LONGEST_EXCLUSION.as_secs();
    let secs = text.parse().ok().filter(|secs| *secs <= most);
    secs.map(Duration::from_secs)
        .ok_or_else(|| format!("{text:.64?} is not a time: send whole seconds, at most {most}"))
}
