use std::ops::ControlFlow;

use proto::ws::{Decoder, Event, FrameReader, MAX_CLIENT_HEADER, MAX_CONTROL_PAYLOAD, Progress, Speaker};

/// The parser must give the same result for a stream of frames in one piece and in many pieces. The parser must never
/// request more bytes than a frame can have.
///
/// The first byte sets the maximum size of a message. The second byte determines where the stream is divided.
pub fn ws_frames(bytes: &[u8]) {
    let [limit, seed, stream @ ..] = bytes else { return };
    let max_message = usize::from(*limit) * 300;
    let whole = transcript(max_message, std::iter::once(stream));
    let pieces = transcript(max_message, cut(stream, *seed));
    assert_eq!(pieces, whole, "the pieces of {stream:02x?} with seed {seed} at a maximum of {max_message} bytes");
    let read = read(max_message, cut(stream, *seed));
    assert_eq!(read, whole, "FrameReader, for {stream:02x?} with seed {seed} at a maximum of {max_message} bytes");
}

fn cut(mut stream: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        // Most pieces are small, so the stream is often cut inside the header of a frame.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = 1 + (state >> 16 & 7) as usize * (state >> 24 & 7) as usize;
        let (piece, rest) = stream.split_at(size.min(stream.len()));
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn transcript<'c>(max_message: usize, pieces: impl Iterator<Item = &'c [u8]>) -> Vec<String> {
    let mut decoder = Decoder::new(max_message);
    let mut heard = Vec::new();
    let mut waiting = Vec::new();
    for piece in pieces {
        waiting.extend_from_slice(piece);
        loop {
            let had = waiting.len();
            match decoder.decode(&mut waiting) {
                Ok(Progress::Need(bytes)) => {
                    assert!(bytes > had, "requests {bytes} bytes, has {had}");
                    assert!(
                        bytes <= max_message.max(MAX_CONTROL_PAYLOAD) + MAX_CLIENT_HEADER,
                        "requests {bytes} bytes"
                    );
                    break;
                }
                Ok(Progress::Took { consumed, event }) => {
                    let closed = matches!(event, Some(Event::Close(_)));
                    if let Some(Event::Text(text)) = event {
                        assert!(text.len() <= max_message, "a message of {} bytes exceeds the maximum", text.len());
                    }
                    if let Some(event) = event {
                        heard.push(format!("{event:?}"));
                    }
                    if closed {
                        return heard;
                    }
                    waiting.drain(..consumed);
                }
                Err(violation) => {
                    heard.push(format!("{violation:?}"));
                    return heard;
                }
            }
        }
    }
    heard.push(format!("{} bytes wait", waiting.len()));
    heard
}

fn read<'c>(max_message: usize, pieces: impl Iterator<Item = &'c [u8]>) -> Vec<String> {
    let mut reader = FrameReader::new(Speaker::Client, max_message, Vec::new());
    let (mut heard, mut closed) = (Vec::new(), false);
    for piece in pieces {
        let read = reader.read(&mut piece.to_vec(), |event| {
            heard.push(format!("{event:?}"));
            closed = matches!(event, Event::Close(_));
            if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(violation) = read {
            heard.push(format!("{violation:?}"));
            return heard;
        }
        if closed {
            return heard;
        }
    }
    heard.push(format!("{} bytes wait", reader.waiting_bytes()));
    heard
}
