use proto::envelope::Envelope;

/// The decoder must refuse the bytes of a link's frame, or read a sequence of envelopes from them. The target encodes
/// and decodes each envelope again, and the meaning of the envelope must stay the same. The encoding may be longer than
/// the original bytes only because of fields that earlier releases did not send.
pub fn envelopes(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let before = rest.len();
        let envelope = match Envelope::decode(&mut rest) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => {
                assert!(
                    rest.is_empty(),
                    "the decoder found no envelope in the last {} bytes, and no error",
                    rest.len()
                );
                return;
            }
            Err(_) => return,
        };
        assert!(rest.len() < before, "the decoder consumed no bytes");
        let once = encoded(&envelope);
        // Maximum growth of an envelope, in bytes. An envelope of an earlier release lacks some fields, which the
        // encoder adds.
        const ADDED: usize = 128;
        assert!(
            once.len() <= before - rest.len() + ADDED,
            "an envelope of {1} bytes was encoded as {0} bytes: {envelope:?}",
            once.len(),
            before - rest.len()
        );
        let mut again = &once[..];
        let decoded =
            Envelope::decode(&mut again).expect("the encoding is valid").expect("the encoding is one envelope");
        assert!(again.is_empty(), "{} bytes are left after {envelope:?}", again.len());
        assert_eq!(decoded.kind(), envelope.kind());
        assert_eq!(encoded(&decoded), once, "of {envelope:?}");
    }
}

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::new();
    envelope.encode(&mut bytes);
    bytes
}
