//! The stamp at the front of a frame's payload. The stamp shows the receiver whether the frame is fresh.

use super::frame::{HEADER, STAMP};

/// The stamp of a frame: the connection that made it, and the challenge that it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The sender's connection to Redis.
    pub(super) session: u64,
    /// The frame's number in that session.
    pub(super) number: u64,
    /// The sender's challenge, which the receiver echoes.
    pub(super) challenge: u64,
    /// The receiver's challenge that the frame echoes; 0 if it echoes none.
    pub(super) echo: u64,
}

impl Stamp {
    /// The envelope kind that a stamp appears to have. No real envelope kind has this number.
    const KIND: u8 = u8::MAX;
    const BODY: usize = 1 + 4 * size_of::<u64>();

    /// Writes the stamp into the space that [`Seal::begin`](super::frame::Seal::begin) has reserved.
    pub(super) fn write(&self, frame: &mut [u8]) {
        let mut bytes = [0; STAMP];
        bytes[..4].copy_from_slice(&(Self::BODY as u32).to_le_bytes());
        bytes[4] = Self::KIND;
        for (n, to) in [self.session, self.number, self.challenge, self.echo].iter().zip(bytes[5..].chunks_exact_mut(8))
        {
            to.copy_from_slice(&n.to_le_bytes());
        }
        frame[HEADER..HEADER + STAMP].copy_from_slice(&bytes);
    }

    /// Length of the stamp at the front of a payload; 0 if there is none.
    pub(super) fn len(payload: &[u8]) -> usize {
        let stamped = split(payload).filter(|(kind, ..)| *kind == Self::KIND);
        stamped.map_or(0, |(_, _, rest)| payload.len() - rest.len())
    }

    /// The stamp at the front of a payload.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let (kind, body, _) = split(payload)?;
        let field = |i: usize| body.get(8 * i..8 * i + 8)?.try_into().ok().map(u64::from_le_bytes);
        if kind != Self::KIND {
            return None;
        }
        Some(Self { session: field(0)?, number: field(1)?, challenge: field(2)?, echo: field(3)? })
    }
}

/// Kind and body of the first envelope, and the bytes after it.
pub(super) fn split(payload: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (len, rest) = payload.split_first_chunk::<4>()?;
    let (envelope, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    let (kind, body) = envelope.split_first()?;
    Some((*kind, body, rest))
}

/// A random number that is not 0. `None` if the system provides no random numbers.
pub(super) fn random() -> Option<u64> {
    getrandom::u64().ok().map(|n| n.max(1))
}

#[cfg(test)]
mod tests {
    use proto::Envelope;
    use proto::envelope::EnvelopeKind;

    use super::super::frame::PREFIX;
    use super::*;

    #[test]
    fn a_stamp_survives_encoding_and_is_skipped_as_an_envelope() {
        let stamp = Stamp { session: 1, number: u64::MAX, challenge: 3, echo: 4 };
        let mut frame = vec![0; PREFIX];
        stamp.write(&mut frame);
        let payload = &frame[HEADER..];
        assert_eq!((Stamp::read(payload), Stamp::len(payload)), (Some(stamp), STAMP));
        assert!(matches!(Envelope::decode(&mut &payload[..]), Ok(None)));
        assert!(EnvelopeKind::ALL.len() < usize::from(Stamp::KIND));
        for cut in 0..payload.len() {
            assert_eq!((Stamp::read(&payload[..cut]), Stamp::len(&payload[..cut])), (None, 0));
        }
        // These payloads contain no stamp: an envelope of another kind, and a stamp that is too short.
        assert_eq!(Stamp::read(&[1, 0, 0, 0, 7]), None);
        assert_eq!(Stamp::read(&[1, 0, 0, 0, Stamp::KIND]), None);
    }
}
