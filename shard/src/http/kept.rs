//! An HTTP connection with timeouts for the first request, for the time between two requests, and for an answer.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::pace::Pace;
use crate::socket::RequestSocket;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use proto::limits::{ANSWER_TIMEOUT, HTTP_IDLE_TIMEOUT, REQUEST_BURST, REQUEST_HEAD_TIMEOUT, REQUEST_RATE};

/// The timeouts of HTTP connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Time for the first request. A change of the connection's state is noticed after this time at the latest.
    pub(crate) head: Duration,
    /// Time for making and writing an answer.
    pub(crate) answer: Duration,
    /// Time between two requests.
    pub(crate) idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head: REQUEST_HEAD_TIMEOUT, answer: ANSWER_TIMEOUT, idle: HTTP_IDLE_TIMEOUT }
    }
}

/// The state of a connection, and the time at which this state began.
pub(super) struct Kept {
    timeouts: Timeouts,
    state: Cell<State>,
    since: Cell<Instant>,
    pace: RefCell<Pace>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No request has arrived.
    New,
    /// An answer is being made.
    Asked,
    /// The answer is being written.
    Answered,
    /// The parts of an answer are written as they arrive.
    Streaming,
    /// The answer is written, and another request may arrive.
    Idle,
}

impl Kept {
    pub(super) fn new(now: Instant, timeouts: Timeouts) -> Self {
        let pace = RefCell::new(Pace::new(REQUEST_RATE, REQUEST_BURST));
        Self { timeouts, state: Cell::new(State::New), since: Cell::new(now), pace }
    }

    pub(super) fn is_new(&self) -> bool {
        self.state.get() == State::New
    }

    /// Records that a request has arrived. Waits for the request's turn.
    ///
    /// Each request of a connection except the first yields to all other work of the shard, sockets included. Without
    /// this yield, hyper would answer 16 pipelined requests in one turn, and tokio would run hyper's task 61 times
    /// before it polls sockets.
    pub(super) async fn asked(&self) {
        let (first, now) = (self.is_new(), Instant::now());
        self.state.set(State::Asked);
        self.since.set(now);
        let wait = self.pace.borrow_mut().take(now);
        if !first {
            tokio::task::yield_now().await;
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Records that the answer is ready.
    pub(super) fn answered(&self) {
        self.state.set(State::Answered);
    }

    /// Records that the head of a streamed answer is ready. From now on, the connection may stay open as long as its
    /// reader accepts data.
    pub(super) fn streams(&self) {
        self.state.set(State::Streaming);
        self.since.set(Instant::now());
    }

    /// Records that all data so far has been written to the socket.
    fn flushed(&self) {
        match self.state.get() {
            State::Answered => {
                self.state.set(State::Idle);
                self.since.set(Instant::now());
            }
            State::Streaming => self.since.set(Instant::now()),
            State::New | State::Asked | State::Idle => {}
        }
    }

    /// Time for which the connection may stay in its state. `None` if this time is over. The caller must ask again
    /// after the returned time.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let allowed = match self.state.get() {
            State::New => self.timeouts.head,
            State::Asked | State::Answered | State::Streaming => self.timeouts.answer,
            State::Idle => self.timeouts.idle,
        };
        let left = (self.since.get() + allowed).saturating_duration_since(now);
        // The state may change in the meantime, so the caller must ask again soon.
        (!left.is_zero()).then_some(left.min(self.timeouts.head))
    }
}

/// A socket that reports to [`Kept`] when all data so far has been written.
pub(super) struct KeptStream {
    pub(super) io: TokioIo<RequestSocket>,
    pub(super) kept: Rc<Kept>,
}

impl Read for KeptStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for KeptStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes the socket when its own buffer is empty. A `Full` body is in hyper's buffer from the start.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.kept.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Time, in seconds, for which a connection stays open.
    fn stays(kept: &Kept) -> u64 {
        let start = kept.since.get();
        let mut now = start;
        while let Some(patience) = kept.patience(now) {
            now += patience;
        }
        now.duration_since(start).as_secs()
    }

    #[test]
    fn timeouts_outlast_balancers_and_end_slow_connections() {
        let kept = Kept::new(Instant::now(), Timeouts::default());
        assert_eq!(stays(&kept), 10);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(kept.asked());
        // While the answer is made, hyper flushes an empty buffer.
        kept.flushed();
        assert_eq!(stays(&kept), 30);
        kept.answered();
        assert_eq!(stays(&kept), 30);
        kept.flushed();
        assert_eq!(stays(&kept), 75);
        // The caller asks again within the timeout of the first request, so it notices a change of the state in time.
        assert_eq!(kept.patience(kept.since.get()), Some(10 * SECOND));
    }

    #[test]
    fn a_stream_stays_while_its_reader_accepts_data() {
        let kept = Kept::new(Instant::now(), Timeouts::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(kept.asked());
        kept.streams();
        assert_eq!(stays(&kept), 30);
        // Even long after its start, a stream may stay open for 30 s after each time that all its data has been written.
        kept.since.set(Instant::now() - 100 * SECOND);
        assert_eq!(kept.patience(Instant::now()), None);
        kept.flushed();
        assert_eq!(stays(&kept), 30);
        assert!(kept.patience(Instant::now()).is_some());
    }

    /// hyper flushes the socket when the last bytes of an answer are written, and not while the answer is made.
    /// [`KeptStream`] relies on this.
    #[test]
    fn an_answer_that_was_written_leaves_the_connection_idle() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let kept = Rc::new(Kept::new(Instant::now(), Timeouts::default()));
            let (made, wait) = tokio::sync::watch::channel(false);
            let service = hyper::service::service_fn(|_| {
                let (kept, mut wait) = (Rc::clone(&kept), wait.clone());
                async move {
                    kept.asked().await;
                    _ = wait.wait_for(|made| *made).await;
                    kept.answered();
                    let body = http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; 8 << 20]));
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
                }
            });
            let stream = KeptStream { io: TokioIo::new(RequestSocket::plain(server)), kept: Rc::clone(&kept) };
            let mut serve =
                std::pin::pin!(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            let talk = async {
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                while kept.state.get() != State::Asked {
                    tokio::task::yield_now().await;
                }
                made.send_replace(true);
                let mut answer = vec![0; 1 << 20];
                client.read_exact(&mut answer).await.unwrap();
                // 8 MiB are more than the kernel accepts at once.
                assert_eq!(kept.state.get(), State::Answered);
                for _ in 0..7 {
                    client.read_exact(&mut answer).await.unwrap();
                }
                while kept.state.get() != State::Idle {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                served = &mut serve => served.unwrap(),
                () = talk => {}
            }
        });
    }
}
