//! Tests of the bounds, the order and the control frames of the send queue.

use std::num::NonZeroU64;
use std::time::Duration;

use proto::{
    Frame, HubId, Input, Keys, NetworkName, Now, Output, ResumeKeys, Router, RouterConfig, Sender, SessionId, ShardId,
    SignalKind, Standing,
};

use super::*;

fn origin(ticket: u64) -> Origin {
    Origin {
        sender: Sender::Session {
            shard: ShardId(0),
            session: SessionId { slot: 0, generation: 0 },
            ticket: NonZeroU64::new(ticket),
            detour: false,
        },
        kind: SignalKind::Offer,
        network: NetworkName::new("n"),
        standing: Standing::Member(1),
        read_at: Duration::ZERO,
    }
}

fn ticket(origin: &Origin) -> u64 {
    match origin.sender {
        Sender::Session { ticket, .. } => ticket.map_or(0, NonZeroU64::get),
        Sender::Hub { counter, .. } => counter,
    }
}

fn queue(frames: &[&str]) -> SendQueue {
    let mut queue = SendQueue::default();
    for (i, frame) in frames.iter().enumerate() {
        queue.push(Some((origin(i as u64), None)), |out| out.extend_from_slice(frame.as_bytes()));
    }
    queue
}

fn advance(queue: &mut SendQueue, n: usize) -> Vec<u64> {
    let mut out = Vec::new();
    queue.advance(n, |origin| out.push(ticket(&origin)));
    out
}

/// A `peer-discovered` with this many bytes of data.
fn template(bytes: usize) -> Arc<Template> {
    let id = |n| (SessionId { slot: n, generation: 0 }, PeerId::from_bytes([n as u8; 20]));
    let keys = ResumeKeys::new("mesh", b"key", None);
    let mut router = Router::new(RouterConfig::single(HubId(id(9).1), Keys(1, 2), keys));
    let now = Now { at: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
    let mut found = None;
    let mut give = |input: Input<'_>| {
        router.handle_input(input, now);
        while let Some(output) = router.poll_output() {
            if let Output::Send { session: SessionId { slot: 0, .. }, frame: Frame::Template(template), .. } = output {
                found = Some(template);
            }
        }
    };
    for n in [0, 1] {
        let (session, peer) = id(n);
        give(Input::Opened { session, peer, seat: true, resume: None, owner: false, grant: None });
        let data = "x".repeat(if n == 0 { 0 } else { bytes });
        give(Input::Message { session, text: &format!(r#"{{"type":"announce","data":{{"x":"{data}"}}}}"#) });
        if n == 0 {
            give(Input::Room { session });
        }
    }
    found.expect("the first member receives the discovery of the second")
}

#[test]
fn a_large_shared_frame_is_encoded_when_it_is_written() {
    let (large, small) = (template(16_000), template(10));
    let target = PeerId::from_bytes([7; 20]);
    let mut expected = b"aaaa".to_vec();
    for template in [&large, &small, &large, &large, &large, &large, &large] {
        template.write_to(&mut expected, &target, 5);
    }
    expected.extend(b"bb");
    for step in [1, 1000, 16_384, 1 << 20] {
        let mut queue = queue(&["aaaa"]);
        for template in [&large, &small, &large, &large, &large, &large, &large] {
            queue.push_shared(template, &target, 5);
        }
        queue.push(Some((origin(1), None)), |out| out.extend_from_slice(b"bb"));
        assert!(queue.bytes.capacity() < 1000, "the large frames were copied: {} bytes", queue.bytes.capacity());
        assert_eq!((queue.len_bytes(), queue.len_frames()), (expected.len(), 9));
        let mut largest = 0;
        let (mut out, mut delivered) = (Vec::new(), Vec::new());
        while !queue.is_empty() {
            assert!(out.len() + queue.len_bytes() == expected.len());
            let n = queue.next().len().min(step);
            assert!(n > 0);
            out.extend_from_slice(&queue.next()[..n]);
            largest = largest.max(queue.bytes.len());
            delivered.extend(advance(&mut queue, n));
        }
        assert!(out == expected && queue.len_frames() == 0 && delivered == [0, 1], "{step}");
        assert!(largest <= SendQueue::BATCH_BYTES + large.frame_len(), "{largest}");
    }
}

#[test]
fn a_queue_that_is_dropped_keeps_a_large_frame_that_is_partly_written() {
    let (large, target) = (template(16_000), PeerId::from_bytes([7; 20]));
    for written in [0, 2, 4, 5, 10_000, 4 + large.frame_len()] {
        let mut queue = queue(&["aaaa"]);
        queue.push_shared(&large, &target, 5);
        queue.push(Some((origin(1), None)), |out| out.extend_from_slice(b"bb"));
        let mut left = written;
        while left > 0 {
            let n = queue.next().len().min(left);
            queue.advance(n, |_| ());
            left -= n;
        }
        let dropped = queue.drop_unstarted().count();
        let expected = match written {
            1..=3 => 4 - written,
            5..=10_000 => 4 + large.frame_len() - written,
            _ => 0,
        };
        assert_eq!(queue.len_bytes(), expected, "{written}");
        assert_eq!(dropped, if written == 0 { 2 } else { 1 }, "{written}");
        assert_eq!(write_out(&mut queue, 1000).len(), expected);
    }
}

#[test]
fn a_signal_is_delivered_with_its_last_byte() {
    let mut queue = queue(&["aaaa", "bb", "cc"]);
    assert!(advance(&mut queue, 3).is_empty());
    assert_eq!(advance(&mut queue, 3), [0, 1]);
    assert_eq!((queue.len_frames(), queue.next()), (1, &b"cc"[..]));
    assert_eq!(advance(&mut queue, 2), [2]);
    assert!(queue.is_empty());
}

#[test]
fn a_partly_written_frame_is_kept_whole() {
    for written in 0..=8 {
        let mut queue = queue(&["aaaa", "bb", "cc"]);
        let mut out = advance(&mut queue, written);
        let dropped: Vec<_> = queue.drop_unstarted().map(|origin| ticket(&origin)).collect();
        let rest = queue.len_bytes();
        out.extend(advance(&mut queue, rest));
        let expected_out: &[u64] = match written {
            0 => &[],
            1..=4 => &[0],
            5..=6 => &[0, 1],
            _ => &[0, 1, 2],
        };
        assert_eq!(out, expected_out, "after {written} bytes");
        assert_eq!(out.len() + dropped.len(), 3);
        assert!(queue.is_empty());
    }
}

/// Writes a queue completely, `step` bytes at a time, and returns the bytes that the client receives.
fn write_out(queue: &mut SendQueue, step: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while !queue.is_empty() {
        let n = queue.next().len().min(step);
        assert!(n > 0, "a queue that is not empty has nothing to write");
        out.extend_from_slice(&queue.next()[..n]);
        queue.advance(n, |_| ());
    }
    assert_eq!(queue.len_bytes(), 0);
    out
}

#[test]
fn pings_and_pongs_go_between_two_messages_and_never_within_one() {
    for written in 0..=8 {
        for step in 1..=20 {
            let mut queue = queue(&["aaaa", "bb", "cc"]);
            let mut out = queue.next()[..written].to_vec();
            queue.advance(written, |_| ());
            queue.push_pong(b"12");
            queue.push_ping();
            let before = queue.len_bytes();
            let rest = write_out(&mut queue, step);
            assert_eq!(rest.len(), before);
            out.extend(rest);
            let control = b"\x8a\x0212\x89\x00";
            let expected = match written {
                0 => [control, &b"aaaabbcc"[..]].concat(),
                1..=4 => [b"aaaa", &control[..], b"bbcc"].concat(),
                5..=6 => [b"aaaabb", &control[..], b"cc"].concat(),
                _ => [b"aaaabbcc", &control[..]].concat(),
            };
            assert_eq!(out, expected, "after {written} bytes, {step} at a time");
        }
    }
}

#[test]
fn a_question_replaces_other_pings_and_reports_when_it_is_written() {
    for step in 1..=12 {
        let mut queue = queue(&["aaaa"]);
        queue.advance(1, |_| ());
        queue.push_ping();
        queue.push_ping();
        queue.push_question(b"12345678");
        queue.push_question(b"abcdefgh");
        queue.push_ping();
        assert_eq!(queue.len_bytes(), 3 + 10);
        assert!(queue.advance(1, |_| ()), "the question has moved forward by a byte");
        let mut out = Vec::new();
        while !queue.is_empty() {
            let n = queue.next().len().min(step);
            out.extend_from_slice(&queue.next()[..n]);
            assert!(queue.advance(n, |_| ()), "the question has moved forward or is written");
        }
        assert_eq!(out, b"aa\x89\x08abcdefgh");
        queue.push_ping();
        assert!(!queue.advance(2, |_| ()), "no question is pending any longer");
    }
}

#[test]
fn unread_pongs_are_bounded() {
    let mut queue = SendQueue::default();
    queue.push_question(b"abcdefgh");
    let payload = [b'x'; 125];
    for n in 0..10_000u32 {
        queue.push_pong(&[&n.to_be_bytes()[..], &payload[4..]].concat());
        assert!(queue.len_bytes() <= CONTROL_LANE_BYTES + 127 + 10, "{} bytes", queue.len_bytes());
        if n == 50 {
            // A partly written pong stays complete.
            queue.advance(15, |_| ());
        }
    }
    let out = write_out(&mut queue, 1000);
    let (mut rest, mut pongs) = (&out[..], Vec::new());
    // Skips the rest of the first pong. Five bytes of this pong were already written, after the question.
    rest = &rest[127 - 5..];
    while let [0x8a, len, payload @ ..] = rest {
        pongs.push(u32::from_be_bytes(*payload.first_chunk().expect("a number")));
        rest = &payload[usize::from(*len)..];
    }
    assert!(rest.is_empty() && pongs.is_sorted() && pongs.last() == Some(&9_999), "{pongs:?}");
}

#[test]
fn a_pool_keeps_used_queues_and_frees_unused_queues() {
    let mut pool = Pool::default();
    let busy = |pool: &mut Pool, n: usize| {
        let taken: Vec<_> = (0..n).map(|_| pool.take()).collect();
        taken.into_iter().for_each(|queue| pool.keep(queue));
    };
    busy(&mut pool, Pool::KEPT + 5);
    assert_eq!(pool.queues.len(), Pool::KEPT);
    pool.tidy();
    busy(&mut pool, 3);
    pool.tidy();
    assert_eq!(pool.queues.len(), 3, "the pool keeps the queues that were used");
    pool.tidy();
    assert_eq!(pool.queues.len(), 0);
}

#[test]
fn unsent_signals_are_returned_at_the_end() {
    let mut queue = queue(&["aaaa", "bb", "cc"]);
    advance(&mut queue, 5);
    let left: Vec<_> = queue.take_signals().map(|origin| ticket(&origin)).collect();
    assert_eq!(left, [1, 2]);
}
