//! Names of things, parsed once at the door.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::limits::MAX_NETWORK_NAME_BYTES;

/// A client by its id: 40 hexadecimal digits outside, 20 bytes inside.
///
/// Either case is accepted; it is written in lower case (protocol: part B).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 20]);

/// What was given is not 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is 40 hexadecimal digits")
    }
}

impl std::error::Error for ParseIdError {}

impl PeerId {
    /// Length of an id in its written form, in bytes. It is fixed, so that a frame can be patched in place.
    pub const HEX_LEN: usize = 40;

    /// The id of these 20 bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes of this id.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// How far another id is by the metric of Kademlia: the exclusive or of the two, read as a number of 160 bits, here its
    /// upper 128 and lower 32 (Maymounkov and Mazières 2002, section 2.1).
    pub fn distance(&self, other: &Self) -> (u128, u32) {
        let ((high, low), (other_high, other_low)) = (self.words(), other.words());
        (high ^ other_high, low ^ other_low)
    }

    /// How many leading bits two ids have in common: 160 if they are the same.
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

    /// The id that lies `by` behind this one, in its last eight bytes, which wrap around.
    pub(crate) fn shifted(mut self, by: u64) -> Self {
        if let Some(last) = self.0.last_chunk_mut::<8>() {
            *last = u64::from_be_bytes(*last).wrapping_add(by).to_be_bytes();
        }
        self
    }

    /// This id with one bit turned over, counted from the first.
    pub(crate) fn flipped(mut self, bit: u32) -> Self {
        self.0[(bit / 8) as usize] ^= 0x80 >> (bit % 8);
        self
    }

    /// The greatest id that has these first bits.
    pub(crate) fn last_with_prefix(mut self, bits: u32) -> Self {
        for (i, byte) in self.0.iter_mut().enumerate() {
            *byte |= 0xff_u8.checked_shr(bits.saturating_sub(8 * i as u32)).unwrap_or(0);
        }
        self
    }

    /// The least id that has these first bits.
    pub(crate) fn first_with_prefix(mut self, bits: u32) -> Self {
        for (i, byte) in self.0.iter_mut().enumerate() {
            *byte &= !0xff_u8.checked_shr(bits.saturating_sub(8 * i as u32)).unwrap_or(0);
        }
        self
    }

    /// The written form: 40 lower-case hexadecimal digits.
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

/// Writes bytes as lower-case hexadecimal digits. `hex` has two for each byte.
#[inline]
pub(crate) fn write_hex(hex: &mut [u8], bytes: &[u8]) {
    // Without a table and without a branch, so that the compiler does many digits at once.
    let digit = |n: u8| b'0' + n + u8::from(n > 9) * (b'a' - b'0' - 10);
    debug_assert_eq!(hex.len(), 2 * bytes.len());
    for (pair, byte) in hex.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
}

/// Reads hexadecimal digits of either case. `None` if there are not exactly two for each byte.
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
    /// The first eight digits: enough to follow one peer through a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex()[..8].iter().try_for_each(|&c| fmt::Write::write_char(f, c as char))
    }
}

/// A hub by its id, written like a [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HubId(pub PeerId);

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The namespace in which peers see each other. Shared by reference count: cloning one is cheap.
///
/// At most [`MAX_NETWORK_NAME_BYTES`] bytes, compared exactly.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkName(Arc<str>);

impl NetworkName {
    /// The network of everyone who names none.
    pub const GLOBAL: &'static str = "global";

    /// The network that a client's `networkName` means: missing or blank is [`Self::GLOBAL`], anything else is exact.
    ///
    /// `None` when the name is longer than [`MAX_NETWORK_NAME_BYTES`].
    pub fn resolve(name: Option<&str>) -> Option<&str> {
        match name {
            None => Some(Self::GLOBAL),
            Some(name) if name.trim().is_empty() => Some(Self::GLOBAL),
            Some(name) if name.len() <= MAX_NETWORK_NAME_BYTES => Some(name),
            Some(_) => None,
        }
    }

    /// Takes a name as it is. The caller has resolved it.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
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

/// One live WebSocket, as its shard numbers it.
///
/// The slot is used again after the session's end; the generation is not, so that a late letter cannot reach the
/// slot's next tenant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId {
    /// Index into the shard's table of sessions.
    pub slot: u32,
    /// How many sessions have had that slot before, wrapping.
    pub generation: u32,
}

/// One core of a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The shard on which a peer's session lives, of `shards`.
    ///
    /// Keyed, because peers choose their ids and must not be able to aim a crowd at one core.
    pub fn home(peer: &PeerId, shards: u16, keys: Keys) -> Self {
        if shards <= 1 {
            return Self(0);
        }
        let mut hasher = SipHasher13::new_with_keys(keys.0, !keys.1);
        peer.hash(&mut hasher);
        Self((hasher.finish() % u64::from(shards)) as u16)
    }
}

/// One life of a hub's process: the wall clock in milliseconds when it began, or one more than what others remember of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct HubIncarnation(pub u64);

/// One session of a peer, among all that its id ever has: the wall clock in milliseconds when it was admitted, or one
/// more than what is known of the id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PeerIncarnation(pub u64);

impl PeerIncarnation {
    /// Of every peer behind a legacy link: the least that a peer can have.
    pub const LEGACY: Self = Self(1);
}

/// A hub's word that a peer is there. Of two that differ, the greater holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    /// Which session of the peer.
    pub incarnation: PeerIncarnation,
    /// At which hub.
    pub hub: HubId,
}

/// One connection to another hub, as the mesh numbers it. A number is not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// How something reaches another hub, or came from it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Via {
    /// Over a link.
    Link(LinkId),
    /// Over the bridge, to or from this hub.
    Bridge(HubId),
}

/// Where a letter can go inside a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// The links to other hubs.
    Mesh,
    /// A shard of this hub.
    Shard(ShardId),
}

/// Secret numbers, drawn once per process, that key every hash of what a client chose.
#[derive(Clone, Copy, Debug)]
pub struct Keys(pub u64, pub u64);

impl BuildHasher for Keys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
