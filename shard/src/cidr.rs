//! Ranges of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// What was given is not `address/bits`, nor an address alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseCidrError;

impl Cidr {
    /// Whether the address is in the range. One of IPv4 that came over IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address| match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        let ((a, a_is_v4), (b, b_is_v4)) = (bits(self.address), bits(address.to_canonical()));
        a_is_v4 == b_is_v4 && (a ^ b).leading_zeros() >= u32::from(self.bits)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| ParseCidrError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| ParseCidrError))?;
        if bits > most { Err(ParseCidrError) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_addresses_that_begin_like_it() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", &["10.255.0.1", "::ffff:10.1.2.3"][..], &["11.0.0.0", "::1", "::a00:1"][..]),
            ("10.1.2.3/24", &["10.1.2.0", "10.1.2.255"], &["10.1.3.0"]),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["::1"]),
            ("fd00::/8", &["fd12::1"], &["fe80::1", "10.0.0.1"]),
            ("::1", &["::1"], &["::2"]),
            ("::/0", &["::2", "fd00::"], &["0.0.0.0", "::ffff:1.2.3.4"]),
        ] {
            let cidr: Cidr = range.parse().unwrap();
            let contains = |address: &&str| cidr.contains(address.parse().unwrap());
            assert!(inside.iter().all(contains), "{range}");
            assert!(!outside.iter().any(contains), "{range}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "a/8", "10.0.0.0/8/8", "10.0.0.0/"] {
            assert_eq!(text.parse::<Cidr>(), Err(ParseCidrError), "{text}");
        }
    }
}
