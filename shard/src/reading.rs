//! The state of a session's input.

use proto::ws::{FrameReader, Speaker};

/// What a session has received and not processed, and whether more of it is read.
#[derive(Debug)]
pub(crate) struct ReadState {
    reader: FrameReader,
    /// Memory of the session's incomplete message, as counted in the shard's budget.
    kept_bytes: usize,
    /// Whether the reader has unprocessed bytes: bytes that arrived with the hand-off, or bytes for which the last turn
    /// had no time.
    replay: bool,
    /// Whether the session waits until the shard reads frames again.
    parked: bool,
    /// Whether received data can no longer be parsed. The session only waits for its end.
    deaf: bool,
    /// Whether the client has sent a close frame. The socket closes when the queue is empty.
    client_done: bool,
}

impl ReadState {
    /// The state of a new session. `leftover` is the data that arrived with the hand-off.
    pub(crate) fn new(max_message_bytes: usize, leftover: Vec<u8>) -> Self {
        Self {
            replay: !leftover.is_empty(),
            reader: FrameReader::new(Speaker::Client, max_message_bytes, leftover),
            kept_bytes: 0,
            parked: false,
            deaf: false,
            client_done: false,
        }
    }

    /// Whether no more frames of the client are parsed.
    pub(crate) fn is_over(&self) -> bool {
        self.client_done || self.deaf
    }

    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Records that received data can no longer be parsed.
    pub(crate) fn deafen(&mut self) {
        self.deaf = true;
    }

    /// Whether the client has sent a close frame.
    pub(crate) fn is_client_done(&self) -> bool {
        self.client_done
    }

    /// Records that the client has sent a close frame.
    pub(crate) fn client_closed(&mut self) {
        self.client_done = true;
    }

    /// Takes the reader for one turn.
    pub(crate) fn take_reader(&mut self) -> FrameReader {
        std::mem::take(&mut self.reader)
    }

    /// Puts the reader back after a turn. `is_cut` says whether the turn has ended before all bytes were processed. The
    /// remaining bytes are processed in the session's next turn.
    pub(crate) fn put_back(&mut self, reader: FrameReader, is_cut: bool) {
        self.replay = is_cut && reader.waiting_bytes() > 0;
        self.reader = reader;
    }

    /// Whether the reader has unprocessed bytes. The next call returns false, unless a turn has left bytes again.
    pub(crate) fn take_replay(&mut self) -> bool {
        std::mem::take(&mut self.replay)
    }

    #[cfg(test)]
    pub(crate) fn has_replay(&self) -> bool {
        self.replay
    }

    /// Memory of the session's incomplete message, as counted in the shard's budget.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Records the memory of the session's incomplete message. Returns the previous number.
    pub(crate) fn keep(&mut self, bytes: usize) -> usize {
        std::mem::replace(&mut self.kept_bytes, bytes)
    }

    /// Frees the session's incomplete message, after which no data can be parsed.
    pub(crate) fn give_up(&mut self) {
        (self.deaf, self.kept_bytes, self.reader) = (true, 0, FrameReader::default());
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked
    }

    /// Parks the session. Returns false if it is already parked.
    pub(crate) fn park(&mut self) -> bool {
        !std::mem::replace(&mut self.parked, true)
    }

    pub(crate) fn unpark(&mut self) {
        self.parked = false;
    }
}
