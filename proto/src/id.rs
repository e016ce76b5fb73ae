//! Ids and names. The hub parses an id once, when it receives the id.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::limits::MAX_NETWORK_NAME_BYTES;

/// The id of a client. An id has 40 hexadecimal digits in text, and 20 bytes in memory.
///
/// The parser accepts upper and lower case. The written form has lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 20]);

/// The error of parsing a [`PeerId`]: the text is not 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 40 hexadecimal digits")
    }
}

impl std::error::Error for ParseIdError {}

impl PeerId {
    /// Length of the written form, in bytes. All ids have the same length, so the id in a frame can be replaced in
    /// place.
    pub const HEX_LEN: usize = 40;

    /// Makes an id from its 20 bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Returns the 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The id of the owner of an Ed25519 public key. The id is the first 20 bytes of the key's SHA-256.
    pub fn of_key(key: &[u8; 32]) -> Self {
        Self::of_hash(Sha256::new().chain_update(key))
    }

    /// The id of a user whose name at the identity provider is not an id. The id is the first 20 bytes of the SHA-256
    /// of `sub:` and the name.
    pub fn of_subject(name: &str) -> Self {
        Self::of_hash(Sha256::new().chain_update("sub:").chain_update(name))
    }

    fn of_hash(hash: Sha256) -> Self {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&hash.finalize()[..20]);
        Self(bytes)
    }

    /// Distance to another id in Kademlia's metric (Maymounkov and Mazières 2002, section 2.1). The distance is the
    /// exclusive or of the two ids. Returns the upper 128 bits and the lower 32 bits of the distance.
    pub fn distance(&self, other: &Self) -> (u128, u32) {
        let ((high, low), (other_high, other_low)) = (self.words(), other.words());
        (high ^ other_high, low ^ other_low)
    }

    /// Number of leading bits that two ids share. The number is 160 if the ids are equal.
    pub fn shared_bits(&self, other: &Self) -> u32 {
        match self.distance(other) {
            (0, low) => u128::BITS + low.leading_zeros(),
            (high, _) => high.leading_zeros(),
        }
    }

    /// The number of bits in an id.
    pub const BITS: u32 = 160;

    fn words(&self) -> (u128, u32) {
        let (mut high, mut low) = ([0; 16], [0; 4]);
        high.copy_from_slice(&self.0[..16]);
        low.copy_from_slice(&self.0[16..]);
        (u128::from_be_bytes(high), u32::from_be_bytes(low))
    }

    /// Adds `by` to the last eight bytes of the id, which are a big-endian number. The addition wraps around.
    pub(crate) fn shifted(mut self, by: u64) -> Self {
        if let Some(last) = self.0.last_chunk_mut::<8>() {
            *last = u64::from_be_bytes(*last).wrapping_add(by).to_be_bytes();
        }
        self
    }

    /// This id with one bit flipped. Bit 0 is the most significant bit of the first byte.
    pub(crate) fn flipped(mut self, bit: u32) -> Self {
        self.0[(bit / 8) as usize] ^= 0x80 >> (bit % 8);
        self
    }

    /// The greatest id with the same first `bits` bits.
    pub(crate) fn last_with_prefix(mut self, bits: u32) -> Self {
        for (i, byte) in self.0.iter_mut().enumerate() {
            *byte |= 0xff_u8.checked_shr(bits.saturating_sub(8 * i as u32)).unwrap_or(0);
        }
        self
    }

    /// The smallest id with the same first `bits` bits.
    pub(crate) fn first_with_prefix(mut self, bits: u32) -> Self {
        for (i, byte) in self.0.iter_mut().enumerate() {
            *byte &= !0xff_u8.checked_shr(bits.saturating_sub(8 * i as u32)).unwrap_or(0);
        }
        self
    }

    /// Returns the written form: 40 lower-case hexadecimal digits.
    pub fn to_hex(self) -> [u8; Self::HEX_LEN] {
        let mut hex = [0; Self::HEX_LEN];
        write_hex(&mut hex, &self.0);
        hex
    }
}

impl FromStr for PeerId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let mut bytes = [0; 20];
        read_hex(&mut bytes, s).ok_or(ParseIdError)?;
        Ok(Self(bytes))
    }
}

/// Writes bytes as lower-case hexadecimal digits. `hex` must have two characters for each byte.
#[inline]
pub(crate) fn write_hex(hex: &mut [u8], bytes: &[u8]) {
    // The function has neither a table nor a branch, so that the compiler converts many digits at once.
    let digit = |n: u8| b'0' + n + u8::from(n > 9) * (b'a' - b'0' - 10);
    debug_assert_eq!(hex.len(), 2 * bytes.len());
    for (pair, byte) in hex.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
}

/// Reads hexadecimal digits of either case. Returns `None` if `hex` is not exactly two digits for each byte.
pub(crate) fn read_hex(bytes: &mut [u8], hex: &str) -> Option<()> {
    let hex = hex.as_bytes();
    if hex.len() != 2 * bytes.len() {
        return None;
    }
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex().iter().try_for_each(|&c| fmt::Write::write_char(f, c as char))
    }
}

impl fmt::Debug for PeerId {
    /// Prints the first eight digits, which are enough to follow one peer through a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex()[..8].iter().try_for_each(|&c| fmt::Write::write_char(f, c as char))
    }
}

/// The id of a hub, written like a [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HubId(pub PeerId);

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a network, in which peers discover each other. Clones share one allocation.
///
/// Names are compared byte by byte, without normalization. Case matters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkName(Arc<str>);

impl NetworkName {
    /// The default network.
    pub const GLOBAL: &'static str = "global";

    /// Resolves a client's `networkName`. A missing or blank name becomes [`Self::GLOBAL`]. Any other name is
    /// unchanged.
    ///
    /// `None` if the name is longer than [`MAX_NETWORK_NAME_BYTES`].
    pub fn resolve(name: Option<&str>) -> Option<&str> {
        match name {
            None => Some(Self::GLOBAL),
            Some(name) if name.trim().is_empty() => Some(Self::GLOBAL),
            Some(name) if name.len() <= MAX_NETWORK_NAME_BYTES => Some(name),
            Some(_) => None,
        }
    }

    /// Allocates a name. The length of the name is not checked, because the caller has resolved or decoded the name.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for NetworkName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The handle of one open WebSocket on its shard.
///
/// A slot is reused after its session ends. Each session of a slot has another generation, so that a late letter cannot
/// reach the slot's next session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId {
    /// Index into the shard's table of sessions.
    pub slot: u32,
    /// Number of earlier sessions in this slot. It wraps around.
    pub generation: u32,
}

/// The number of a shard, from 0 to one less than the number of shards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// One incarnation of a hub. The number is the wall clock in milliseconds when the hub started or took its id, or at
/// most 65,536 more than the incarnation that other hubs remember.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct HubIncarnation(pub u64);

/// The number of a session among all sessions of one peer. The number is the wall clock in milliseconds at the
/// session's admission, or one more than the greatest number that the peer's home shard knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PeerIncarnation(pub u64);

impl PeerIncarnation {
    /// The incarnation of every peer behind a legacy link, which is smaller than the incarnation of any other session.
    pub const LEGACY: Self = Self(1);
}

/// The handle of one connection to another hub. The mesh's I/O numbers its links, and never reuses a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);
