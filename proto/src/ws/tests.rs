use std::ops::ControlFlow;

use super::*;
use crate::limits::READ_BUFFER_BYTES;

mod cuts;
mod frames;
mod memory;

const MAX: usize = 70_000;

const CONT: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame with the given first byte and the shortest form of the length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let length: Vec<u8> = match length {
        0..=125 => vec![length as u8],
        126..=0xffff => [&[126], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    frame_with_length(first, &length, payload)
}

/// A client's frame whose header declares the given length, which may be wrong.
fn frame_with_length(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, length[0] | MASKED];
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Passes `chunks` to a decoder. An incomplete frame waits for the next chunk. Bytes after a close frame are not read.
///
/// Returns the number of bytes of the last, incomplete frame.
fn read<'c>(
    max: usize,
    chunks: impl Iterator<Item = &'c [u8]>,
    mut hear: impl FnMut(Event<'_>),
) -> Result<usize, Violation> {
    let mut decoder = Decoder::new(max);
    let mut waiting = Vec::new();
    for chunk in chunks {
        waiting.extend_from_slice(chunk);
        loop {
            let had = waiting.clone();
            match decoder.decode(&mut waiting)? {
                Progress::Need(bytes) => {
                    assert!(bytes > had.len(), "the decoder requests {bytes} bytes, but has {}", had.len());
                    let most = max.max(MAX_CONTROL_PAYLOAD).saturating_add(MAX_CLIENT_HEADER);
                    assert!(bytes <= most, "the decoder requests {bytes} bytes with a limit of {max}");
                    assert_eq!(waiting, had, "the decoder changed bytes of an incomplete frame");
                    break;
                }
                Progress::Took { consumed, event } => {
                    let closed = matches!(event, Some(Event::Close(_)));
                    event.map(&mut hear);
                    waiting.drain(..consumed);
                    if closed {
                        return Ok(0);
                    }
                }
            }
        }
    }
    Ok(waiting.len())
}

/// Does the same as [`read`] with a [`FrameReader`].
fn read_pieces<'c>(
    max: usize,
    chunks: impl Iterator<Item = &'c [u8]>,
    mut hear: impl FnMut(Event<'_>),
) -> Result<usize, Violation> {
    let mut reader = FrameReader::new(Speaker::Client, max, Vec::new());
    let (mut came, mut closed) = (0, false);
    for chunk in chunks {
        came += chunk.len();
        reader.read(&mut chunk.to_vec(), |event| {
            closed = matches!(event, Event::Close(_));
            hear(event);
            if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if closed {
            return Ok(0);
        }
        let room = reader.partial.capacity();
        assert!(
            room <= 2 * reader.waiting_bytes().max(1024) + 4 * READ_BUFFER_BYTES,
            "the reader uses {room} bytes of memory after {came} bytes have arrived"
        );
    }
    Ok(reader.waiting_bytes())
}

/// Checks that the frames yield `events` and then `end`. Each reader reads the stream once as a
/// whole and once in small pieces.
/// `end` is the number of bytes of an incomplete frame, or a violation.
#[track_caller]
fn check(max: usize, frames: &[Vec<u8>], events: &[Event<'_>], end: Result<usize, Violation>) {
    let stream = frames.concat();
    let small = if stream.len() < 1_000 { 1 } else { 997 };
    for size in [stream.len().max(1), small] {
        let mut expected = events.iter();
        let got = read(max, stream.chunks(size), |event| assert_eq!(Some(&event), expected.next(), "{size} at a time"));
        assert_eq!(expected.as_slice(), [], "events are missing, with {size} bytes at a time");
        assert_eq!(got, end, "{size} at a time");
        let mut expected = events.iter();
        let got = read_pieces(max, stream.chunks(size), |event| assert_eq!(Some(&event), expected.next()));
        assert_eq!((expected.as_slice(), got), (&[][..], end), "FrameReader with {size} bytes at a time");
    }
}

#[track_caller]
fn accepts(frames: &[Vec<u8>], events: &[Event<'_>]) {
    check(MAX, frames, events, Ok(0));
}

#[track_caller]
fn refuses(frames: &[Vec<u8>], rule: &'static str) {
    check(MAX, frames, &[], Err(Violation::Protocol(rule)));
}

#[track_caller]
fn not_utf8(frames: &[Vec<u8>]) {
    check(MAX, frames, &[], Err(Violation::NotUtf8));
}

#[test]
fn an_idle_decoder_is_two_words() {
    assert_eq!(size_of::<Decoder>(), 2 * size_of::<usize>());
}

#[test]
fn whole_messages_are_received() {
    accepts(&[], &[]);
    accepts(&[frame(FIN | TEXT, b"")], &[Event::Text("")]);
    accepts(&[frame(FIN | BINARY, b"")], &[Event::Binary(b"")]);
    accepts(&[frame(FIN | TEXT, "naïve €𝄞".as_bytes())], &[Event::Text("naïve €𝄞")]);
    accepts(&[frame(FIN | BINARY, b"\xff\x00")], &[Event::Binary(b"\xff\x00")]);
    accepts(&[frame(FIN | TEXT, b"one"), frame(FIN | TEXT, b"two")], &[Event::Text("one"), Event::Text("two")]);
}

#[test]
fn every_length_is_read() {
    for length in [0, 1, 3, 4, 7, 8, 9, 31, 125, 126, 127, 128, 65_535, 65_536, MAX] {
        let text: String = ('a'..='z').cycle().take(length).collect();
        accepts(
            &[frame(FIN | TEXT, text.as_bytes()), frame(FIN | PING, b"!")],
            &[Event::Text(&text), Event::Ping(b"!")],
        );
    }
}

#[test]
fn the_example_of_the_rfc_is_read() {
    let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    accepts(&[hello], &[Event::Text("Hello")]);
}

#[test]
fn control_frames_are_received() {
    let longest = [7; MAX_CONTROL_PAYLOAD];
    accepts(&[frame(FIN | PING, b""), frame(FIN | PONG, b"")], &[Event::Ping(b""), Event::Pong(b"")]);
    accepts(
        &[frame(FIN | PING, &longest), frame(FIN | PONG, &longest)],
        &[Event::Ping(&longest), Event::Pong(&longest)],
    );
}

#[test]
fn a_control_frame_is_at_most_125_bytes() {
    for opcode in [CLOSE, PING, PONG] {
        refuses(&[frame(FIN | opcode, &[0; 126])], "control frame is longer than 125 bytes");
        refuses(&[frame(FIN | opcode, &[0; 65_536])], "control frame is longer than 125 bytes");
    }
}

#[test]
fn a_control_frame_is_not_fragmented() {
    for opcode in [CLOSE, PING, PONG] {
        refuses(&[frame(opcode, b"")], "control frame is fragmented");
    }
}

#[test]
fn a_client_must_mask_its_frames() {
    refuses(&[vec![FIN | TEXT, 2, b'h', b'i']], "frame of a client is not masked");
    refuses(&[vec![FIN | PING, 0]], "frame of a client is not masked");
}

#[test]
fn a_server_must_not_mask_its_frames() {
    let mut decoder = Decoder::new(MAX);
    let rule = Violation::Protocol("frame of a server is masked");
    assert_eq!(decoder.decode_from_server(&mut frame(FIN | BINARY, b"hi")), Err(rule));
    assert_eq!(decoder.decode_from_server(&mut frame(FIN | PING, b"")), Err(rule));
}

#[test]
fn messages_of_a_server_are_received_however_they_are_divided() {
    for len in [0, 1, 125, 126, 65_535, 65_536] {
        let payload = vec![7; len];
        let mut stream = Vec::new();
        put_header(&mut stream, Opcode::Binary, len);
        stream.extend_from_slice(&payload);
        let mut decoder = Decoder::new(MAX);
        for cut in (0..stream.len()).take(12) {
            match decoder.decode_from_server(&mut stream[..cut]).unwrap() {
                Progress::Need(bytes) => assert!(bytes > cut && bytes <= stream.len().max(8), "{bytes} of {len}"),
                Progress::Took { .. } => panic!("accepted an incomplete frame: {cut} of {len} bytes"),
            }
        }
        let consumed = stream.len();
        let event = Some(Event::Binary(&payload[..]));
        assert_eq!(decoder.decode_from_server(&mut stream), Ok(Progress::Took { consumed, event }));
    }
}

#[test]
fn bytes_before_the_first_read_are_processed_first() {
    let stream = [frame(FIN | TEXT, b"one"), frame(FIN | TEXT, b"two")].concat();
    for cut in 0..=stream.len() {
        let (before, mut after) = (stream[..cut].to_vec(), stream[cut..].to_vec());
        let mut reader = FrameReader::new(Speaker::Client, MAX, before);
        let mut heard = Vec::new();
        for bytes in [&mut [], &mut after[..]] {
            let read = reader.read(bytes, |event| {
                heard.push(format!("{event:?}"));
                ControlFlow::Continue(())
            });
            assert_eq!(read, Ok(()));
        }
        assert_eq!((heard.join(" "), reader.waiting_bytes()), (r#"Text("one") Text("two")"#.into(), 0), "cut at {cut}");
    }
}

#[test]
fn an_interrupted_reader_continues_with_the_next_message() {
    let mut reader = FrameReader::new(Speaker::Client, MAX, Vec::new());
    let stream = [frame(FIN | TEXT, b"one"), frame(FIN | TEXT, b"two"), frame(FIN | TEXT, b"three")].concat();
    let cut = stream.len() - 1;
    for (n, bytes) in [&stream[..cut], &[], &stream[cut..], &[]].into_iter().enumerate() {
        let mut heard = Vec::new();
        let read = reader.read(&mut bytes.to_vec(), |event| {
            heard.push(format!("{event:?}"));
            ControlFlow::Break(())
        });
        let expected = [r#"Text("one")"#, r#"Text("two")"#, r#"Text("three")"#].get(n).copied();
        assert_eq!((read, heard.first().map(String::as_str), heard.len()), (Ok(()), expected, usize::from(n < 3)));
    }
    assert_eq!(reader.waiting_bytes(), 0);
}

#[test]
fn a_header_reserves_no_memory_for_missing_bytes() {
    let mut reader = FrameReader::new(Speaker::Client, 1 << 30, Vec::new());
    let mut header = frame_with_length(FIN | BINARY, &[127, 0, 0, 0, 0, 0x3f, 0, 0, 0], b"");
    assert_eq!(reader.read(&mut header, |_| panic!("a frame is complete too early")), Ok(()));
    assert!(reader.partial.capacity() <= 2048, "{} bytes", reader.partial.capacity());
}

#[test]
fn a_client_writes_what_a_server_reads() {
    for len in [0, 5, 126, 65_536] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut stream = Vec::new();
        put_masked_header(&mut stream, Opcode::Binary, len, MASK);
        let start = stream.len();
        stream.extend_from_slice(&payload);
        mask(&mut stream[start..], MASK);
        accepts(&[stream], &[Event::Binary(&payload)]);
    }
}

#[test]
fn a_mask_of_zeros_is_accepted() {
    accepts(&[vec![FIN | TEXT, MASKED | 2, 0, 0, 0, 0, b'h', b'i']], &[Event::Text("hi")]);
}

#[test]
fn reserved_bits_are_zero() {
    for bit in [0x10, 0x20, 0x40] {
        for opcode in [CONT, TEXT, BINARY, CLOSE, PING, PONG] {
            refuses(&[frame(FIN | bit | opcode, b"")], "reserved bit is set");
        }
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        refuses(&[frame(FIN | opcode, b"")], "unknown opcode");
        refuses(&[frame(opcode, b"")], "unknown opcode");
    }
}

#[test]
fn lengths_are_in_their_shortest_form() {
    const RULE: &str = "length is not in its shortest form";
    refuses(&[frame_with_length(FIN | TEXT, &[126, 0, 0], b"")], RULE);
    refuses(&[frame_with_length(FIN | TEXT, &[126, 0, 125], &[b'a'; 125])], RULE);
    refuses(&[frame_with_length(FIN | TEXT, &[127, 0, 0, 0, 0, 0, 0, 0, 1], b"a")], RULE);
    refuses(&[frame_with_length(FIN | TEXT, &[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], &[b'a'; 65_535])], RULE);
}

#[test]
fn the_highest_bit_of_a_length_is_zero() {
    const RULE: &str = "highest bit of a 64-bit length is set";
    refuses(&[frame_with_length(FIN | TEXT, &[127, 0x80, 0, 0, 0, 0, 0, 0, 0], b"")], RULE);
    refuses(&[frame_with_length(FIN | TEXT, &[127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"")], RULE);
}

#[test]
fn a_message_may_be_as_long_as_the_limit() {
    for max in [0, 1, 125, 126, 1_000, 65_535, 65_536] {
        let text = "x".repeat(max);
        check(max, &[frame(FIN | TEXT, text.as_bytes())], &[Event::Text(&text)], Ok(0));
        check(max, &[frame(FIN | TEXT, &vec![b'x'; max + 1])], &[], Err(Violation::TooLarge));
        check(max, &[frame(FIN | BINARY, &vec![0; max + 1])], &[], Err(Violation::TooLarge));
    }
}

#[test]
fn the_limit_does_not_apply_to_control_frames() {
    check(0, &[frame(FIN | PING, &[1; 125])], &[Event::Ping(&[1; 125])], Ok(0));
}

#[test]
fn a_header_is_enough_to_refuse_a_large_message() {
    for length in [1_001_u64, 1 << 32, i64::MAX as u64] {
        let bytes = [&[127][..], &length.to_be_bytes()].concat();
        let header = match u16::try_from(length) {
            Ok(short) => frame_with_length(FIN | TEXT, &[126, short.to_be_bytes()[0], short.to_be_bytes()[1]], b""),
            Err(_) => frame_with_length(FIN | TEXT, &bytes, b""),
        };
        check(1_000, &[header], &[], Err(Violation::TooLarge));
    }
}

#[test]
fn a_limit_without_bound_does_not_overflow() {
    let longest = frame_with_length(FIN | TEXT, &[127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"");
    check(usize::MAX, &[longest], &[], Ok(14));
    let on_top = frame_with_length(FIN | CONT, &[127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"");
    check(usize::MAX, &[frame(TEXT, b"a"), on_top], &[], Err(Violation::TooLarge));
}

#[test]
fn fragments_are_joined() {
    accepts(&[frame(TEXT, b"a"), frame(CONT, b"b"), frame(FIN | CONT, b"c")], &[Event::Text("abc")]);
    accepts(&[frame(BINARY, b"\xff"), frame(FIN | CONT, b"\xfe")], &[Event::Binary(b"\xff\xfe")]);
    accepts(&[frame(TEXT, b""), frame(CONT, b""), frame(FIN | CONT, b"")], &[Event::Text("")]);
}

#[test]
fn messages_after_a_fragmented_message_are_received() {
    accepts(
        &[
            frame(TEXT, b"a"),
            frame(FIN | CONT, b"b"),
            frame(FIN | TEXT, b"c"),
            frame(BINARY, b"d"),
            frame(FIN | CONT, b""),
        ],
        &[Event::Text("ab"), Event::Text("c"), Event::Binary(b"d")],
    );
}

#[test]
fn control_frames_may_come_between_fragments() {
    accepts(
        &[
            frame(TEXT, b"a"),
            frame(FIN | PING, b"1"),
            frame(CONT, b"b"),
            frame(FIN | PONG, b"2"),
            frame(FIN | CONT, b"c"),
        ],
        &[Event::Ping(b"1"), Event::Pong(b"2"), Event::Text("abc")],
    );
    accepts(&[frame(TEXT, b"a"), frame(FIN | CLOSE, b"")], &[Event::Close(None)]);
}

#[test]
fn a_continuation_needs_an_incomplete_message() {
    const RULE: &str = "continuation without a message to continue";
    refuses(&[frame(CONT, b"a")], RULE);
    refuses(&[frame(FIN | CONT, b"a")], RULE);
    let after = [frame(TEXT, b"a"), frame(FIN | CONT, b"b"), frame(FIN | CONT, b"c")];
    check(MAX, &after, &[Event::Text("ab")], Err(Violation::Protocol(RULE)));
    let after_whole = [frame(FIN | TEXT, b"a"), frame(FIN | CONT, b"c")];
    check(MAX, &after_whole, &[Event::Text("a")], Err(Violation::Protocol(RULE)));
}

#[test]
fn a_message_does_not_start_inside_another() {
    for first in [TEXT, BINARY] {
        for second in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
            refuses(&[frame(first, b"a"), frame(second, b"b")], "new message inside a fragmented one");
        }
    }
}

#[test]
fn the_limit_applies_to_all_fragments_together() {
    let three = |last: &[u8]| [frame(TEXT, b"1234"), frame(CONT, b"1234"), frame(FIN | CONT, last)];
    check(10, &three(b"12"), &[Event::Text("1234123412")], Ok(0));
    check(10, &three(b"123"), &[], Err(Violation::TooLarge));
    check(10, &[frame(BINARY, b"12345678901")], &[], Err(Violation::TooLarge));
    let claim = frame_with_length(CONT, &[127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"");
    check(10, &[frame(BINARY, b"1"), claim], &[], Err(Violation::TooLarge));
}

#[test]
fn memory_for_fragments_stays_within_the_limit_and_is_freed() {
    let mut decoder = Decoder::new(1_000);
    for (first, length) in [(BINARY, 1), (CONT, 300), (CONT, 301), (CONT, 0), (CONT, 398)] {
        decoder.decode(&mut frame(first, &vec![0; length])).unwrap();
        assert!(decoder.open.as_ref().unwrap().bytes.capacity() <= 1_000);
    }
    decoder.decode(&mut frame(FIN | CONT, b"")).unwrap();
    assert_eq!(decoder.decode(&mut []), Ok(Progress::Need(2)));
    assert!(decoder.open.is_none());
}

#[test]
fn empty_fragments_take_no_memory() {
    let mut decoder = Decoder::new(1_000);
    decoder.decode(&mut frame(TEXT, b"")).unwrap();
    for _ in 0..1_000 {
        assert_eq!(decoder.decode(&mut frame(CONT, b"")), Ok(Progress::Took { consumed: 6, event: None }));
    }
    assert_eq!(decoder.open.as_ref().unwrap().bytes.capacity(), 0);
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    for bad in [
        &b"\x80"[..],
        b"ab\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"cut \xe2\x82",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ] {
        not_utf8(&[frame(FIN | TEXT, bad)]);
        not_utf8(&[frame(TEXT, bad), frame(FIN | CONT, b"")]);
        not_utf8(&[frame(TEXT, b""), frame(FIN | CONT, bad)]);
        for cut in 0..bad.len() {
            not_utf8(&[frame(TEXT, &bad[..cut]), frame(FIN | CONT, &bad[cut..])]);
        }
        accepts(&[frame(FIN | BINARY, bad)], &[Event::Binary(bad)]);
    }
}

#[test]
fn a_character_may_be_divided_between_fragments() {
    let text = "é€𝄞";
    let mut pieces: Vec<_> = text.bytes().map(|byte| frame(CONT, &[byte])).collect();
    pieces.insert(0, frame(TEXT, b""));
    pieces.push(frame(FIN | CONT, b""));
    accepts(&pieces, &[Event::Text(text)]);
}

#[test]
fn invalid_text_is_refused_before_its_last_fragment() {
    not_utf8(&[frame(TEXT, b"\xff")]);
    not_utf8(&[frame(TEXT, b"ok"), frame(CONT, b"ok\x80")]);
    not_utf8(&[frame(TEXT, b"\xf4"), frame(CONT, b"\x90")]);
    check(MAX, &[frame(TEXT, b"\xf4"), frame(CONT, b"\x8f")], &[], Ok(0));
}

#[test]
fn text_in_fragments_is_checked_once() {
    let mut decoder = Decoder::new(MAX);
    for (mut frame, checked) in [(frame(TEXT, b"abcd\xe2"), 4), (frame(CONT, b"\x82"), 4), (frame(CONT, b"\xacef"), 9)]
    {
        decoder.decode(&mut frame).unwrap();
        assert_eq!(decoder.open.as_ref().unwrap().checked, checked);
    }
}

#[test]
fn a_close_frame_may_have_a_reason() {
    let why = |code, reason| Event::Close(Some(CloseFrame { code, reason }));
    accepts(&[frame(FIN | CLOSE, b"")], &[Event::Close(None)]);
    accepts(&[close(1000, b"")], &[why(1000, "")]);
    accepts(&[close(1001, "à bientôt".as_bytes())], &[why(1001, "à bientôt")]);
    accepts(&[close(1000, &[b'x'; 123])], &[why(1000, &"x".repeat(123))]);
}

#[test]
fn a_close_code_is_two_bytes() {
    refuses(&[frame(FIN | CLOSE, b"\x03")], "close frame with half a code");
}

#[test]
fn only_close_codes_for_the_wire_are_accepted() {
    for code in 0..=u16::MAX {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => {
                accepts(&[close(code, b"")], &[Event::Close(Some(CloseFrame { code, reason: "" }))]);
            }
            _ => refuses(&[close(code, b"")], "close code must not be sent"),
        }
    }
}

#[test]
fn the_reason_of_a_close_is_utf8() {
    not_utf8(&[close(1000, b"\xff")]);
    not_utf8(&[close(1000, b"cut \xe2\x82")]);
}

#[test]
fn each_violation_has_the_close_code_of_its_close_reason() {
    for violation in [Violation::Protocol("rule"), Violation::NotUtf8, Violation::TooLarge] {
        let (code, _) = CloseReason::from(violation).close_frame().unwrap();
        assert_eq!(code, violation.close_code());
    }
}

#[test]
fn the_hub_writes_headers_in_their_shortest_form() {
    let header = |opcode, len| {
        let mut out = Vec::new();
        put_header(&mut out, opcode, len);
        assert_eq!(out.len(), header_len(len));
        out
    };
    assert_eq!(header(Opcode::Text, 0), [0x81, 0]);
    assert_eq!(header(Opcode::Binary, 125), [0x82, 125]);
    assert_eq!(header(Opcode::Text, 126), [0x81, 126, 0, 126]);
    assert_eq!(header(Opcode::Text, 65_535), [0x81, 126, 0xff, 0xff]);
    assert_eq!(header(Opcode::Text, 65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(header(Opcode::Continuation, 1), [0x80, 1]);
}

#[test]
fn the_hub_writes_control_frames() {
    let mut out = Vec::new();
    put_ping(&mut out, b"nonce");
    put_pong(&mut out, b"");
    put_close(&mut out, 1012, "restarting");
    assert_eq!(out, b"\x89\x05nonce\x8a\x00\x88\x0c\x03\xf4restarting");
}

#[test]
fn text_too_long_for_a_control_frame_is_truncated() {
    let mut out = Vec::new();
    put_ping(&mut out, &[1; 126]);
    assert_eq!((out.len(), out[1]), (127, 125));

    // 41 characters of three bytes are 123 bytes. A further character would be split.
    for (reason, fits) in [("€".repeat(50), 123), (format!("x{}", "€".repeat(50)), 121)] {
        let mut out = Vec::new();
        put_close(&mut out, 1000, &reason);
        assert_eq!((out.len(), usize::from(out[1])), (4 + fits, 2 + fits));
        assert_eq!(str::from_utf8(&out[4..]), Ok(&reason[..fits]));
    }
}
