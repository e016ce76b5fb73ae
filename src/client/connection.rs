//! An open connection, with a sending half and a receiving half.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::ready;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocketError};
use mesh::MaybeTlsStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Chain, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// Maximum number of bytes queued for the writer of one connection. When the queue is full, senders get
/// [`SendError::Full`].
///
/// The queue has room for four times the longest message that a hub accepts by default (1 MiB).
pub(super) const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;

/// Maximum length of a message from a hub, in bytes. By default, a hub accepts messages of up to 1 MiB.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Maximum time to write the queued bytes when the connection ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Splits a connection whose handshake is complete. `read_ahead` contains the bytes that were received after the
/// answer.
pub(super) fn open(stream: MaybeTlsStream, read_ahead: Bytes) -> (MessageSender, Receiver) {
    let (read, write) = halves(stream);
    let read = io::Cursor::new(read_ahead).chain(read);
    // fastwebsockets would write each frame separately, so it gets no socket to write to.
    let (mut read, _) = fastwebsockets::after_handshake_split(read, tokio::io::sink(), Role::Client);
    read.set_max_message_size(MAX_MESSAGE_BYTES);
    let queue = Rc::new(SendQueue::default());
    tokio::task::spawn_local(write_queued(write, queue.clone()));
    (MessageSender(queue.clone()), Receiver { frames: FragmentCollectorRead::new(read), queue })
}

/// Splits a stream into a half for reading and a half for writing. The halves of a plain socket share no lock.
fn halves(stream: MaybeTlsStream) -> (ReadSide, WriteSide) {
    match stream {
        MaybeTlsStream::Plain(stream) => {
            let (read, write) = stream.into_split();
            (ReadSide::Plain(read), WriteSide::Plain(write))
        }
        stream @ (MaybeTlsStream::Tls(_) | MaybeTlsStream::Accepted(_)) => {
            let (read, write) = tokio::io::split(stream);
            (ReadSide::Tls(read), WriteSide::Tls(write))
        }
    }
}

enum ReadSide {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<MaybeTlsStream>),
}

impl AsyncRead for ReadSide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(read) => Pin::new(read).poll_read(cx, into),
            Self::Tls(read) => Pin::new(read).poll_read(cx, into),
        }
    }
}

enum WriteSide {
    Plain(OwnedWriteHalf),
    Tls(WriteHalf<MaybeTlsStream>),
}

impl WriteSide {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(write) => write.write_all(bytes).await,
            Self::Tls(write) => {
                write.write_all(bytes).await?;
                write.flush().await
            }
        }
    }

    fn reset(self) {
        if let Self::Plain(write) = self {
            // The write half is forgotten, because dropping it would shut the stream down normally before the reset.
            let _ = write.as_ref().set_zero_linger();
            write.forget();
        }
    }
}

/// The frames that the writer task has not written yet.
#[derive(Default)]
pub(super) struct SendQueue {
    pub(super) queued: RefCell<Vec<u8>>,
    wake: Notify,
    end: Cell<WriterState>,
    mask: Cell<u32>,
    pongs: Cell<u64>,
    close_queued: Cell<bool>,
}

/// Whether the writer task still writes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum WriterState {
    #[default]
    Open,
    /// Queued bytes are still written.
    Flush,
    /// Nothing more is written; the socket is reset.
    Reset,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The connection is over, or its close frame is queued.
    Closed,
    /// The queue is full, because the hub reads more slowly than this program sends.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the connection is closed",
            Self::Full => "the hub does not read the messages",
        })
    }
}

impl std::error::Error for SendError {}

impl SendQueue {
    pub(super) fn push(&self, opcode: OpCode, payload: &[u8]) -> Result<(), SendError> {
        if self.end.get() != WriterState::Open || self.close_queued.get() {
            return Err(SendError::Closed);
        }
        let mut queued = self.queued.borrow_mut();
        if queued.len() + payload.len() > MAX_QUEUED_BYTES {
            return Err(SendError::Full);
        }
        let mask = self.next_mask();
        let mut head = [0; 16];
        let head_len = Frame::new(true, opcode, Some(mask), payload.into()).fmt_head(&mut head);
        queued.extend_from_slice(&head[..head_len]);
        let begin = queued.len();
        queued.extend_from_slice(payload);
        fastwebsockets::unmask(&mut queued[begin..], mask);
        self.close_queued.set(opcode == OpCode::Close);
        self.wake.notify_one();
        Ok(())
    }

    /// Returns the mask of the next frame. WebSocket masks protect proxies from bytes that a script in a browser
    /// chooses. A command-line tool runs no foreign scripts, so its masks can come from a counter.
    fn next_mask(&self) -> [u8; 4] {
        let mask = self.mask.get().wrapping_add(0x9e37_79b9);
        self.mask.set(mask);
        mask.to_be_bytes()
    }

    fn end(&self, end: WriterState) {
        self.end.set(end);
        self.wake.notify_one();
    }
}

/// Writes the queue until the connection is over.
async fn write_queued(mut socket: WriteSide, queue: Rc<SendQueue>) {
    let mut batch = Vec::new();
    loop {
        match queue.end.get() {
            WriterState::Open if queue.queued.borrow().is_empty() => {
                queue.wake.notified().await;
                continue;
            }
            WriterState::Open => {}
            WriterState::Flush => {
                batch.clear();
                std::mem::swap(&mut batch, &mut queue.queued.borrow_mut());
                // An error is ignored, because the connection ends anyway.
                let _ = tokio::time::timeout(FLUSH_TIMEOUT, socket.send(&batch)).await;
                return;
            }
            WriterState::Reset => {
                socket.reset();
                return;
            }
        }
        batch.clear();
        std::mem::swap(&mut batch, &mut queue.queued.borrow_mut());
        let mut write = std::pin::pin!(socket.send(&batch));
        let written = loop {
            tokio::select! {
                biased;
                written = &mut write => break written,
                () = queue.wake.notified() => if queue.end.get() != WriterState::Open { break Ok(()) },
            }
        };
        // The reader gets the same error and reports it.
        if written.is_err() {
            queue.end.set(WriterState::Flush);
            return;
        }
    }
}

/// The sending half of a connection. Clones send on the same connection.
#[derive(Clone)]
pub struct MessageSender(Rc<SendQueue>);

impl MessageSender {
    /// Queues a text message. It must be UTF-8.
    pub fn send(&self, text: &[u8]) -> Result<(), SendError> {
        self.0.push(OpCode::Text, text)
    }

    /// Queues a close frame after all queued frames. The hub answers with a close frame, and [`Receiver::next`] then
    /// returns [`Ended::Closed`].
    pub fn close(&self, code: u16, reason: &str) -> Result<(), SendError> {
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
        self.0.push(OpCode::Close, &payload)
    }

    /// Ends the sending half without a close frame. With `reset`, a plain socket is reset, and a TLS connection ends
    /// without close_notify. The socket is closed when the receiver has been dropped as well.
    pub fn cut(&self, reset: bool) {
        self.0.end(if reset { WriterState::Reset } else { WriterState::Flush });
    }

    /// Number of answered WebSocket pings of the hub.
    pub fn pongs(&self) -> u64 {
        self.0.pongs.get()
    }
}

/// The receiving half of a connection. Dropping the receiver ends the connection, but queued bytes are still written.
pub struct Receiver {
    frames: FragmentCollectorRead<Chain<io::Cursor<Bytes>, ReadSide>>,
    queue: Rc<SendQueue>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The connection ended with a close frame.
    Closed {
        /// The code in the close frame, or 1005 if the frame has no code.
        code: u16,
        /// The reason in the close frame.
        reason: String,
    },
    /// The connection ended without a close frame.
    Lost(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code, reason } if reason.is_empty() => write!(f, "closed with {code}"),
            Self::Closed { code, reason } => write!(f, "closed with {code} {reason:?}"),
            Self::Lost(reason) => write!(f, "lost: {reason}"),
        }
    }
}

impl Receiver {
    /// Waits for the next complete text or binary message. Answers pings and the hub's close frame meanwhile.
    ///
    /// This future is not cancel-safe. If the future is dropped before it completes, drop the receiver, too.
    pub async fn next(&mut self) -> Result<Payload<'static>, Ended> {
        let queue = &self.queue;
        let mut answer = |frame: Frame<'_>| {
            queue.pongs.update(|pongs| pongs + u64::from(frame.opcode == OpCode::Pong));
            // If the queue is full, the answer is dropped. The hub would not read it anyway.
            let _ = queue.push(frame.opcode, &frame.payload);
            ready(Ok::<(), SendError>(()))
        };
        loop {
            let frame: Frame<'static> =
                self.frames.read_frame(&mut answer).await.map_err(|error| Ended::Lost(describe(&error)))?;
            match frame.opcode {
                OpCode::Text | OpCode::Binary => return Ok(frame.payload),
                OpCode::Close => return Err(closed(&frame.payload)),
                OpCode::Continuation | OpCode::Ping | OpCode::Pong => {}
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.queue.end.get() == WriterState::Open {
            self.queue.end(WriterState::Flush);
        }
    }
}

pub(super) fn closed(payload: &[u8]) -> Ended {
    let (code, reason) = match payload {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [] | [_] => (1005, &[][..]),
    };
    Ended::Closed { code, reason: String::from_utf8_lossy(reason).into_owned() }
}

fn describe(error: &WebSocketError) -> String {
    if let WebSocketError::UnexpectedEOF = error { "no close frame".to_owned() } else { error.to_string() }
}
