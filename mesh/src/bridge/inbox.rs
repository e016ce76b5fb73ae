//! The queue of messages that Redis has sent and the bridge has not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use proto::limits::{BRIDGE_INBOX, BRIDGE_INBOX_BYTES};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

/// An unrequested message from Redis or from the library.
pub(super) enum Push {
    /// A message on a channel.
    Message { channel: Vec<u8>, frame: Vec<u8> },
    /// A connection has ended.
    Disconnected,
    /// A subscription has ended because the slot of its channel has moved, or because an administrator ended the
    /// subscription.
    Unsubscribed,
}

impl Push {
    fn new(info: PushInfo) -> Option<Self> {
        let mut data = info.data.into_iter();
        if matches!(info.kind, PushKind::Message | PushKind::SMessage) {
            match (data.next(), data.next()) {
                (Some(Value::BulkString(channel)), Some(Value::BulkString(frame))) => {
                    Some(Self::Message { channel, frame })
                }
                _ => None,
            }
        } else if info.kind == PushKind::Disconnection {
            Some(Self::Disconnected)
        } else if matches!(info.kind, PushKind::Unsubscribe | PushKind::SUnsubscribe) {
            Some(Self::Unsubscribed)
        } else {
            None
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Message { frame, .. } => frame.len(),
            Self::Disconnected | Self::Unsubscribed => 0,
        }
    }
}

/// Counters that the connection's task and the bridge's task share.
#[derive(Default)]
struct Counts {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The sending end of the inbox, which the connection uses. This end never waits.
pub(super) struct Mouth(mpsc::Sender<Push>, Arc<Counts>);

impl Mouth {
    /// Queues a push, or counts it as lost if the queue is full.
    pub(super) fn take(&self, info: PushInfo) -> Result<(), mpsc::error::TrySendError<()>> {
        let Some(push) = Push::new(info) else { return Ok(()) };
        let bytes = push.bytes();
        if self.1.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= BRIDGE_INBOX_BYTES
            && self.0.try_send(push).is_ok()
        {
            return Ok(());
        }
        self.1.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.1.lost.fetch_add(1, Ordering::Relaxed);
        // The result is always `Ok`, because the library could do nothing about an error.
        Ok(())
    }
}

/// The receiving end of the inbox, which the bridge reads.
pub(super) struct Inbox(mpsc::Receiver<Push>, Arc<Counts>);

/// An inbox for one connection.
pub(super) fn inbox() -> (Mouth, Inbox) {
    let (sender, receiver) = mpsc::channel(BRIDGE_INBOX);
    let counts = Arc::new(Counts::default());
    (Mouth(sender, Arc::clone(&counts)), Inbox(receiver, counts))
}

impl Inbox {
    /// Waits for pushes. Returns 0 after the connection has ended.
    pub(super) async fn recv_many(&mut self, into: &mut Vec<Push>, most: usize) -> usize {
        let n = self.0.recv_many(into, most).await;
        self.taken(into);
        n
    }

    /// Takes all pushes that are queued, without waiting.
    pub(super) fn drain(&mut self, into: &mut Vec<Push>) {
        for _ in 0..self.0.len() {
            into.extend(self.0.try_recv());
        }
        self.taken(into);
    }

    fn taken(&self, pushes: &[Push]) {
        let bytes = pushes.iter().map(Push::bytes).sum();
        self.1.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns the number of messages lost since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        self.1.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> PushInfo {
        let data = vec![Value::BulkString(b"c".to_vec()), Value::BulkString(vec![0; len])];
        PushInfo { kind: PushKind::Message, data }
    }

    #[test]
    fn frames_beyond_the_bound_are_counted_until_there_is_room() {
        let (mouth, mut inbox) = inbox();
        let mut out = Vec::new();
        for len in [BRIDGE_INBOX_BYTES - 1, 2, BRIDGE_INBOX_BYTES + 1, 1] {
            mouth.take(message(len)).unwrap();
        }
        assert_eq!((inbox.take_lost(), inbox.take_lost()), (2, 0));
        inbox.drain(&mut out);
        assert_eq!(out.len(), 2);
        out.clear();
        for _ in 0..BRIDGE_INBOX + 3 {
            mouth.take(message(1)).unwrap();
        }
        assert_eq!(inbox.take_lost(), 3);
        inbox.drain(&mut out);
        assert_eq!(out.len(), BRIDGE_INBOX);
    }

    #[test]
    fn irrelevant_and_malformed_pushes_are_ignored() {
        let (mouth, mut inbox) = inbox();
        for info in [
            PushInfo { kind: PushKind::Other("x".to_owned()), data: vec![] },
            PushInfo { kind: PushKind::Message, data: vec![Value::Int(1)] },
            PushInfo { kind: PushKind::Subscribe, data: vec![] },
        ] {
            mouth.take(info).unwrap();
        }
        let mut out = Vec::new();
        inbox.drain(&mut out);
        assert!(out.is_empty());
    }
}
