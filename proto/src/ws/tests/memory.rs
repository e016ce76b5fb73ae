//! Tests of the memory that a reader keeps for incomplete frames and messages.

use super::*;

fn read_all(reader: &mut FrameReader, bytes: &[u8]) {
    reader.read(&mut bytes.to_vec(), |_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn a_short_frame_that_arrives_in_two_reads_is_kept_without_growing() {
    let whole = frame(FIN | BINARY, &[7; 1_500]);
    let mut reader = FrameReader::new(Speaker::Client, MAX, Vec::new());
    read_all(&mut reader, &whole[..100]);
    assert!(reader.partial.capacity() >= whole.len(), "there is room for the rest of the frame");
    assert!(reader.partial.capacity() < 2 * whole.len(), "there is room for less than two frames");
}

#[test]
fn kept_memory_is_that_of_the_frame_and_of_the_fragments_before_it() {
    let mut reader = FrameReader::new(Speaker::Client, MAX, Vec::new());
    assert_eq!(reader.kept_bytes(), 0);
    read_all(&mut reader, &frame(BINARY, &[7; 1_000]));
    let fragments = reader.kept_bytes();
    assert!((1_000..1_200).contains(&fragments), "{fragments}");
    let next = frame(FIN | CONT, &[7; 500]);
    read_all(&mut reader, &next[..300]);
    assert_eq!(reader.waiting_bytes(), 300);
    let both = reader.kept_bytes() - fragments;
    assert!((300..=next.len()).contains(&both), "{both}");
}

#[test]
fn memory_of_a_long_frame_is_freed_and_memory_of_a_short_frame_is_kept() {
    let mut reader = FrameReader::new(Speaker::Client, 1 << 20, Vec::new());
    for (payload, freed) in [(8 * READ_BUFFER_BYTES, true), (1_000, false)] {
        let whole = frame(FIN | BINARY, &vec![7; payload]);
        let (most, last) = whole.split_at(whole.len() - 1);
        read_all(&mut reader, most);
        let before = reader.partial.capacity();
        read_all(&mut reader, last);
        let after = reader.partial.capacity();
        assert_eq!(reader.waiting_bytes(), 0);
        assert_eq!(after < before, freed, "{payload} bytes: {before}, then {after}");
        reader.partial = Vec::new();
    }
}
