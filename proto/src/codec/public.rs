//! Checks and describes public data, which is the JSON that a peer announces to a whole network.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::Object;
use crate::id::PeerId;
use crate::limits::{MAX_ANNOUNCE_DATA_BYTES, MAX_ANNOUNCE_DEPTH};
use crate::reason::ErrorCode;
use crate::sentences;
use crate::wire::put_string;

/// Returns the data of `peer-discovered`. The result is the announced object, in which the hub sets `peerId` and
/// `isHub`. Keys are sorted, as in messages of the Go hub. Values are copied byte for byte. Data that is not an object
/// counts as an empty object.
///
/// # Errors
///
/// [`Unfit`] if the data is too large, too deep, or has an invalid key.
pub(crate) fn describe(peer: &PeerId, data: Option<&str>) -> Result<Vec<u8>, Unfit> {
    let data = data.unwrap_or("null");
    check_public(data)?;
    let announced: BTreeMap<Cow<'_, str>, &RawValue> = match data.as_bytes().first() {
        Some(b'{') => serde_json::from_str::<Object<'_>>(data).map_err(|_| Unfit::Key)?.0,
        _ => BTreeMap::new(),
    };
    let hex = peer.to_hex();
    let id = std::str::from_utf8(&hex).unwrap_or_default();
    let mut out = Vec::with_capacity(data.len() + 80);
    let mut ours = [("isHub", "false"), ("peerId", id)].into_iter().peekable();
    let mut theirs = announced.iter().filter(|(key, _)| !matches!(key.as_ref(), "isHub" | "peerId")).peekable();
    let mut open = b'{';
    loop {
        out.push(open);
        open = b',';
        let key = match (ours.peek(), theirs.peek()) {
            (Some((our, _)), Some((their, _))) if their.as_ref() < *our => their.as_ref(),
            (Some((our, _)), _) => our,
            (None, Some((their, _))) => their.as_ref(),
            (None, None) => break,
        };
        put_string(&mut out, key);
        out.push(b':');
        match key {
            "isHub" => out.extend_from_slice(b"false"),
            "peerId" => put_string(&mut out, id),
            _ => {}
        }
        if matches!(key, "isHub" | "peerId") {
            ours.next();
        } else if let Some((_, value)) = theirs.next() {
            out.extend_from_slice(value.get().as_bytes());
        }
    }
    // The loop has pushed one comma too many.
    out.pop();
    out.push(b'}');
    Ok(out)
}

/// Returns K if announced data contains `{"discover":{"closest":K}}` with a K above 0. The function returns `None` for
/// any other data, because its meaning is up to the application.
pub(crate) fn closest_wanted(data: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Announced {
        discover: Wish,
    }
    #[derive(Deserialize)]
    struct Wish {
        closest: u64,
    }
    // Most data does not contain the word `discover`, and is therefore not parsed a second time.
    data.contains("discover").then(|| serde_json::from_str::<Announced>(data).ok()).flatten().and_then(|announced| {
        let closest = announced.discover.closest;
        (closest > 0).then_some(closest)
    })
}

/// Why data must not be sent to a whole network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    /// Longer than [`MAX_ANNOUNCE_DATA_BYTES`].
    TooLarge,
    /// Nested deeper than [`MAX_ANNOUNCE_DEPTH`].
    TooDeep,
    /// A key is not valid Unicode.
    Key,
}

impl Unfit {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::TooLarge => ErrorCode::DataTooLarge,
            Self::TooDeep | Self::Key => ErrorCode::InvalidMessage,
        }
    }

    pub(crate) fn explain(self) -> &'static str {
        match self {
            Self::TooLarge => ErrorCode::DataTooLarge.explain(),
            Self::TooDeep => sentences::PUBLIC_DATA_TOO_DEEP,
            Self::Key => sentences::HALF_SURROGATE_IN_KEY,
        }
    }
}

/// Checks the size and depth of JSON for a whole network.
pub(crate) fn check_public(data: &str) -> Result<(), Unfit> {
    if data.len() > MAX_ANNOUNCE_DATA_BYTES {
        return Err(Unfit::TooLarge);
    }
    if is_deeper_than(data.as_bytes(), MAX_ANNOUNCE_DEPTH) { Err(Unfit::TooDeep) } else { Ok(()) }
}

/// Whether JSON has more than `most` levels of nesting.
pub(crate) fn is_deeper_than(data: &[u8], most: usize) -> bool {
    // Nearly all data has fewer opening brackets than the allowed number of levels. Counting the opening brackets first
    // is faster than examining each byte.
    if memchr::memchr2_iter(b'[', b'{', data).nth(most).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return true;
        }
    }
    false
}
