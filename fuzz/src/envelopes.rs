use proto::envelope::Envelope;

/// The decoder must refuse the bytes of a link's frame, or read a sequence of envelopes from them. If an envelope is
/// encoded and decoded again, it must have the same meaning, and it must not become larger than its original bytes.
pub fn envelopes(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let before = rest.len();
        let envelope = match Envelope::decode(&mut rest) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => {
                assert!(rest.is_empty(), "{} bytes are left", rest.len());
                return;
            }
            Err(_) => return,
        };
        assert!(rest.len() < before, "an envelope without bytes");
        let once = encoded(&envelope);
        // An envelope of an earlier release lacks some fields, so it becomes larger by at most this number of bytes.
        const ADDED: usize = 128;
        assert!(
            once.len() <= before - rest.len() + ADDED,
            "{} bytes, encoded from {} bytes: {envelope:?}",
            once.len(),
            before - rest.len()
        );
        let mut again = &once[..];
        let decoded = Envelope::decode(&mut again).expect("what was encoded").expect("one envelope");
        assert!(again.is_empty(), "{} bytes after {envelope:?}", again.len());
        assert_eq!(decoded.kind(), envelope.kind());
        assert_eq!(encoded(&decoded), once, "of {envelope:?}");
    }
}

fn encoded(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::new();
    envelope.encode(&mut bytes);
    bytes
}
