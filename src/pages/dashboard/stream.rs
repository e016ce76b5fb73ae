//! A stream of events to one browser.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use proto::limits::{LIVE_CHUNK_BYTES, LIVE_STREAM_TIME};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::ring::Ring;

type Next = Pin<Box<dyn Future<Output = Option<watch::Receiver<Ring>>> + Send>>;

/// The body of a stream. A stream begins with a greeting and the history after a position. After the history, the
/// stream has the new events and the current state of each second. A stream stores no events itself, so a slow reader
/// uses no additional memory.
pub(super) struct Stream {
    ring: watch::Receiver<Ring>,
    greeting: Option<Bytes>,
    /// The number of the last event that was read.
    last: u64,
    with_lines: bool,
    /// Whether the current state must still be sent.
    owes_state: bool,
    /// The permit to stay open. Without a permit, the stream ends when its reader has read everything.
    place: Option<OwnedSemaphorePermit>,
    ends: Instant,
    /// Waits for the next second, and returns the receiver. `None` if the hub stops.
    next: Option<Next>,
    /// Whether the next poll lets other work of the shard run first.
    rests: bool,
}

impl Stream {
    /// Begins a stream after the event `last`.
    pub(super) fn new(
        ring: watch::Receiver<Ring>,
        greeting: Bytes,
        last: u64,
        with_lines: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let ends = Instant::now() + LIVE_STREAM_TIME;
        let greeting = Some(greeting);
        Self { ring, greeting, last, with_lines, owes_state: true, place, ends, next: None, rests: false }
    }

    /// The data that can be sent now.
    fn more(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        self.owes_state |= self.ring.has_changed().unwrap_or(false);
        let ring = self.ring.borrow_and_update();
        if let Some((events, last)) = ring.after(self.last, self.with_lines, LIVE_CHUNK_BYTES) {
            self.last = last;
            return Some(events);
        }
        std::mem::take(&mut self.owes_state).then(|| ring.state()).filter(|state| !state.is_empty())
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::take(&mut self.rests) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if let Some(next) = &mut self.next {
                match next.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Ready(Some(ring)) => {
                        self.ring = ring;
                        self.next = None;
                        self.owes_state = true;
                    }
                }
            }
            if let Some(events) = self.more() {
                self.rests = true;
                return Poll::Ready(Some(Ok(Frame::data(events))));
            }
            if self.place.is_none() || Instant::now() >= self.ends {
                return Poll::Ready(None);
            }
            let mut ring = self.ring.clone();
            self.next = Some(Box::pin(async move { ring.changed().await.ok().map(|()| ring) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    fn place() -> Option<OwnedSemaphorePermit> {
        Arc::new(Semaphore::new(1)).try_acquire_owned().ok()
    }

    async fn read(stream: &mut Stream) -> Option<String> {
        let frame = tokio::time::timeout(Duration::from_secs(20), stream.frame()).await.unwrap()?;
        Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
    }

    fn ring() -> watch::Sender<Ring> {
        let mut ring = Ring::new(7);
        ring.sample(b"1");
        ring.line(b"2");
        ring.set_state(b"3");
        watch::Sender::new(ring)
    }

    #[tokio::test]
    async fn a_stream_has_a_greeting_the_history_and_then_new_events() {
        let ring = ring();
        let mut stream = Stream::new(ring.subscribe(), Bytes::from_static(b"hello"), 0, true, place());
        assert_eq!(read(&mut stream).await.unwrap(), "hello");
        let history = read(&mut stream).await.unwrap();
        assert!(history.contains("event: sample\ndata: 1\n") && history.ends_with("event: line\ndata: 2\n\n"));
        assert_eq!(read(&mut stream).await.unwrap(), "event: state\ndata: 3\n\n");
        ring.send_modify(|ring| {
            ring.sample(b"4");
            ring.set_state(b"5");
        });
        assert_eq!(read(&mut stream).await.unwrap(), "id: 7.3\nevent: sample\ndata: 4\n\n");
        assert_eq!(read(&mut stream).await.unwrap(), "event: state\ndata: 5\n\n");
        drop(ring);
        assert_eq!(read(&mut stream).await, None);
    }

    /// The hub stores no events for a slow reader. The reader later gets the events that are still in the history.
    #[tokio::test]
    async fn a_slow_reader_misses_events_that_have_left_the_history() {
        let ring = ring();
        let mut stream = Stream::new(ring.subscribe(), Bytes::from_static(b"hello"), 0, false, place());
        read(&mut stream).await;
        for n in 0..2 * proto::limits::LIVE_SAMPLES {
            ring.send_modify(|ring| ring.sample(n.to_string().as_bytes()));
        }
        let first = read(&mut stream).await.unwrap();
        assert!(first.contains("\ndata: 600\n") && !first.contains("\ndata: 599\n"), "{first}");
        assert!(first.len() <= LIVE_CHUNK_BYTES);
    }

    #[tokio::test]
    async fn a_stream_without_a_place_ends_after_the_history() {
        let ring = ring();
        let mut stream = Stream::new(ring.subscribe(), Bytes::from_static(b"hello"), 0, false, None);
        for _ in 0..3 {
            assert!(read(&mut stream).await.is_some());
        }
        assert_eq!(read(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_stream_ends_after_its_time() {
        let ring = ring();
        let mut stream = Stream::new(ring.subscribe(), Bytes::from_static(b"hello"), 0, false, place());
        assert!(stream.ends > Instant::now() + LIVE_STREAM_TIME / 2);
        stream.ends = Instant::now();
        while read(&mut stream).await.is_some() {}
    }
}
