use proto::envelope::Envelope;

/// Any bytes in a frame of a link must be refused or be a sequence of envelopes. An envelope must have the same
/// meaning after it is encoded and decoded again, and must not become larger than the bytes that it came from.
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
        // The fields that earlier releases do not send, and names of their successors.
        const ADDED: usize = 128;
        assert!(
            once.len() <= before - rest.len() + ADDED,
            "{} bytes of {}: {envelope:?}",
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
