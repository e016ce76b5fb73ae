//! Tests of streams of frames that are divided at arbitrary places.

use proptest::prelude::*;

use super::*;

/// A message or control frame of a client.
#[derive(Clone, Debug)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Said {
    fn heard(&self) -> String {
        match self {
            Self::Text(text) => format!("{:?}", Event::Text(text)),
            Self::Binary(bytes) => format!("{:?}", Event::Binary(bytes)),
            Self::Ping(bytes) => format!("{:?}", Event::Ping(bytes)),
            Self::Pong(bytes) => format!("{:?}", Event::Pong(bytes)),
        }
    }

    /// The frames of this message. The message is divided into fragments at `cuts`.
    fn frames(&self, cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let (opcode, payload) = match self {
            Self::Text(text) => (TEXT, text.as_bytes()),
            Self::Binary(bytes) => (BINARY, &bytes[..]),
            Self::Ping(bytes) => return vec![frame(FIN | PING, bytes)],
            Self::Pong(bytes) => return vec![frame(FIN | PONG, bytes)],
        };
        let pieces = pieces(payload, cuts);
        let last = pieces.len() - 1;
        let first_byte = |i| if i == 0 { opcode } else { CONT } | if i == last { FIN } else { 0 };
        pieces.iter().enumerate().map(|(i, piece)| frame(first_byte(i), piece)).collect()
    }
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

fn said() -> impl Strategy<Value = Said> {
    let bytes = |longest| prop::collection::vec(any::<u8>(), 0..=longest);
    prop_oneof![
        "\\PC{0,80}".prop_map(Said::Text),
        "[a-zé€𝄞]{120,400}".prop_map(Said::Text),
        bytes(300).prop_map(Said::Binary),
        bytes(MAX_CONTROL_PAYLOAD).prop_map(Said::Ping),
        bytes(MAX_CONTROL_PAYLOAD).prop_map(Said::Pong),
    ]
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..6)
}

fn conversation() -> impl Strategy<Value = Vec<(Said, Vec<prop::sample::Index>)>> {
    prop::collection::vec((said(), cuts()), 0..8)
}

/// The frames of a conversation in order. Between two fragments of a message, there is a ping. Also returns the
/// expected events.
fn stream(conversation: &[(Said, Vec<prop::sample::Index>)]) -> (Vec<u8>, Vec<String>) {
    let ping = Said::Ping(b"between".to_vec());
    let (mut stream, mut heard) = (Vec::new(), Vec::new());
    for (said, cuts) in conversation {
        for (i, frame) in said.frames(cuts).iter().enumerate() {
            if i > 0 {
                stream.extend(ping.frames(&[]).concat());
                heard.push(ping.heard());
            }
            stream.extend(frame);
        }
        heard.push(said.heard());
    }
    (stream, heard)
}

fn transcript<'c>(max: usize, chunks: impl Iterator<Item = &'c [u8]> + Clone) -> Vec<String> {
    let mut heard = Vec::new();
    let end = read(max, chunks.clone(), |event| heard.push(format!("{event:?}")));
    heard.push(format!("{end:?}"));

    let mut by_reader = Vec::new();
    let end = read_pieces(max, chunks, |event| by_reader.push(format!("{event:?}")));
    by_reader.push(format!("{end:?}"));
    assert_eq!(by_reader, heard, "FrameReader and Decoder return different events");
    heard
}

proptest! {
    #[test]
    fn messages_are_received_however_they_are_divided(conversation in conversation(), cuts in cuts()) {
        let (stream, mut heard) = stream(&conversation);
        heard.push("Ok(0)".into());
        prop_assert_eq!(&transcript(MAX, [&stream[..]].into_iter()), &heard);
        prop_assert_eq!(&transcript(MAX, pieces(&stream, &cuts).into_iter()), &heard);
    }

    #[test]
    fn errors_do_not_depend_on_the_division(
        conversation in conversation(),
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cuts in cuts(),
        max in 0..500_usize,
    ) {
        let (mut stream, _) = stream(&conversation);
        if !stream.is_empty() {
            for (at, byte) in wrong {
                *at.get_mut(&mut stream) = byte;
            }
        }
        prop_assert_eq!(
            transcript(max, pieces(&stream, &cuts).into_iter()),
            transcript(max, [&stream[..]].into_iter())
        );
    }

    #[test]
    fn no_bytes_make_the_parser_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cuts in cuts(),
        max in 0..300_usize,
    ) {
        prop_assert_eq!(transcript(max, pieces(&bytes, &cuts).into_iter()), transcript(max, [&bytes[..]].into_iter()));
    }

    #[test]
    fn a_written_header_can_be_read(
        len in prop_oneof![0..300_usize, 65_000..66_000_usize, any::<u32>().prop_map(|len| len as usize)],
    ) {
        let mut header = Vec::new();
        put_header(&mut header, Opcode::Binary, len);
        prop_assert_eq!(header.len(), header_len(len));

        header[1] |= MASKED;
        header.extend_from_slice(&MASK);
        let read = if len == 0 {
            Progress::Took { consumed: header.len(), event: Some(Event::Binary(b"")) }
        } else {
            Progress::Need(header.len() + len)
        };
        let mut decoder = Decoder::new(usize::MAX);
        prop_assert_eq!(decoder.decode(&mut header), Ok(read));
    }
}
