//! A published frame consists of: `magic and version, sender, HMAC-SHA256, payload`.
//!
//! Without the HMAC, everyone who may publish to Redis could act as any hub. The HMAC authenticates the payload
//! together with its sender and its channel. A frame is invalid on any other channel. The payload is a stamp followed
//! by envelopes. The stamp identifies frames that are published again (see [`fresh`](super::fresh)).

use hmac::{Hmac, Mac};
use proto::{HubId, PeerId};
use sha2::Sha256;

/// `PPB` and the version of this format.
const MAGIC: [u8; 4] = *b"PPB\x01";
const SENDER: usize = MAGIC.len();
const TAG: usize = SENDER + 20;
/// Length of the header, in bytes: everything before the payload.
pub(super) const HEADER: usize = TAG + 32;
/// Length of the stamp that begins the payload, in bytes. See [`fresh`](super::fresh).
pub(super) const STAMP: usize = 4 + 1 + 4 * size_of::<u64>();
/// Length of everything before the envelopes, in bytes.
pub(super) const PREFIX: usize = HEADER + STAMP;

/// A message that is not a frame of this mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Makes frames with one key, and verifies them with that key or a second one.
#[derive(Clone)]
pub(super) struct Seal {
    keyed: Hmac<Sha256>,
    also: Option<Hmac<Sha256>>,
    hub: HubId,
}

impl Seal {
    /// Makes and verifies frames for `hub` in the mesh with `token`. Frames made with the token `also` are accepted,
    /// too.
    pub(super) fn new(hub: HubId, token: Option<&str>, also: Option<&str>) -> Self {
        let keyed = |token: &str| Hmac::new_from_slice(token.as_bytes()).expect("HMAC accepts keys of any length");
        Self { keyed: keyed(token.unwrap_or_default()), also: also.map(keyed), hub }
    }

    /// Begins a frame, with room for the tag and the stamp. The caller appends envelopes to the frame.
    pub(super) fn begin(&self) -> Vec<u8> {
        let mut frame = vec![0; PREFIX];
        frame[..SENDER].copy_from_slice(&MAGIC);
        frame[SENDER..TAG].copy_from_slice(self.hub.0.as_bytes());
        frame
    }

    /// Completes a frame for this channel after its payload was appended.
    pub(super) fn finish(&self, channel: &str, frame: &mut [u8]) {
        let tag = mac(&self.keyed, channel, frame).finalize().into_bytes();
        frame[TAG..HEADER].copy_from_slice(&tag);
    }

    /// Verifies a frame, and returns its sender. The payload of the frame begins at [`HEADER`].
    pub(super) fn open(&self, channel: &str, frame: &[u8]) -> Result<HubId, Refused> {
        if frame.len() < HEADER || frame[..SENDER] != MAGIC {
            return Err(Refused);
        }
        let made_with = |keyed: &Hmac<Sha256>| mac(keyed, channel, frame).verify_slice(&frame[TAG..HEADER]).is_ok();
        if !made_with(&self.keyed) && !self.also.as_ref().is_some_and(made_with) {
            return Err(Refused);
        }
        let sender = frame[SENDER..TAG].try_into().map_err(|_| Refused)?;
        Ok(HubId(PeerId::from_bytes(sender)))
    }
}

fn mac(keyed: &Hmac<Sha256>, channel: &str, frame: &[u8]) -> Hmac<Sha256> {
    let mut mac = keyed.clone();
    mac.update(&(channel.len() as u64).to_le_bytes());
    mac.update(channel.as_bytes());
    mac.update(&frame[..TAG]);
    mac.update(&frame[HEADER..]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(n: u8) -> HubId {
        HubId(PeerId::from_bytes([n; 20]))
    }

    fn frame(seal: &Seal, channel: &str, payload: &[u8]) -> Vec<u8> {
        let mut frame = seal.begin();
        frame.extend_from_slice(payload);
        seal.finish(channel, &mut frame);
        frame
    }

    #[test]
    fn a_frame_is_valid_only_unchanged_from_its_sender_and_on_its_channel() {
        let seal = Seal::new(hub(1), Some("secret"), None);
        let reader = Seal::new(hub(2), Some("secret"), None);
        let good = frame(&seal, "c", b"payload");
        assert_eq!(reader.open("c", &good), Ok(hub(1)));
        assert_eq!(reader.open("d", &good), Err(Refused));
        for i in 0..good.len() {
            assert_eq!(reader.open("c", &good[..i]), Err(Refused), "cut at {i}");
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_eq!(reader.open("c", &bad), Err(Refused), "bit of byte {i}");
        }
    }

    #[test]
    fn both_tokens_are_accepted_during_a_replacement() {
        let (old, new) = (Some("old"), Some("new"));
        let seals =
            [(old, None), (old, new), (new, old), (new, None)].map(|(token, also)| Seal::new(hub(1), token, also));
        // An operator replaces the token in steps. Hubs at successive steps of this replacement accept each other's
        // frames. Hubs at the first and the last step do not accept each other's frames.
        for pair in seals.windows(2) {
            for (one, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                assert_eq!(other.open("c", &frame(one, "c", b"x")), Ok(hub(1)));
            }
        }
        assert_eq!(seals[3].open("c", &frame(&seals[0], "c", b"x")), Err(Refused));
        assert_eq!(seals[3].open("c", &frame(&seals[1], "c", b"x")), Err(Refused));
    }

    #[test]
    fn a_frame_made_with_another_token_or_without_a_token_is_refused() {
        let good = frame(&Seal::new(hub(1), Some("secret"), None), "c", b"");
        for token in [None, Some(""), Some("Secret")] {
            assert_eq!(Seal::new(hub(2), token, None).open("c", &good), Err(Refused));
        }
        let open = frame(&Seal::new(hub(1), None, None), "c", b"x");
        assert_eq!(Seal::new(hub(2), None, None).open("c", &open), Ok(hub(1)));
    }
}
