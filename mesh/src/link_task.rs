//! The task of one link. The task owns the link's socket, and borrows the core for one turn at a time.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proto::LinkId;
use thread::{TurnGuard, planted, poll_read};
use tokio::io::AsyncWrite;

use crate::core::Core;
use crate::link::Phase;
use crate::stream::MaybeTlsStream;

/// Maximum number of successive reads of one link before other links have a turn.
const READS_PER_TURN: usize = 4;

/// Runs a link until its socket is closed.
pub(crate) async fn run(core: Rc<RefCell<Core>>, id: LinkId, mut stream: MaybeTlsStream) {
    std::future::poll_fn(|cx| {
        let _turn = TurnGuard::of("link", id);
        let done = drive(&core, id, &mut stream, cx);
        if done.is_ready() {
            // Sends the end of the stream if possible. Otherwise closing the socket sends it.
            _ = Pin::new(&mut stream).poll_shutdown(cx);
        }
        done
    })
    .await;
}

fn drive(core: &RefCell<Core>, id: LinkId, stream: &mut MaybeTlsStream, cx: &mut Context<'_>) -> Poll<()> {
    let mut core = core.borrow_mut();
    core.begin_turn();
    planted("link");
    // If the write fails, bytes that were received before are processed first.
    if write(&mut core, id, stream, cx).is_err() && !core.link_mut(id).is_some_and(|link| link.replay) {
        core.lost(id);
        return Poll::Ready(());
    }
    for _ in 0..READS_PER_TURN {
        if core.is_turn_over() {
            break;
        }
        let busy = core.is_stalled();
        let Some(link) = core.link_mut(id) else { return Poll::Ready(()) };
        if link.other_done {
            return Poll::Pending;
        }
        if busy && !matches!(link.phase(), Phase::Closing) {
            core.park(id);
            return Poll::Pending;
        }
        if std::mem::take(&mut link.replay) {
            core.received(id, &mut []);
            continue;
        }
        let mut buffer = core.take_read_buffer();
        let read = poll_read(stream, cx, &mut buffer).map(|read| match read {
            Ok(0) | Err(_) => core.lost(id),
            Ok(n) => core.received(id, &mut buffer[..n]),
        });
        core.restore_read_buffer(buffer);
        ready!(read);
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Writes the queue until it is empty or the socket accepts no more.
fn write(core: &mut Core, id: LinkId, stream: &mut MaybeTlsStream, cx: &mut Context<'_>) -> std::io::Result<()> {
    loop {
        let Some(link) = core.link_mut(id) else { return Ok(()) };
        link.set_waker(cx.waker());
        let bytes = link.queue.unwritten();
        if bytes.is_empty() {
            break;
        }
        match Pin::new(&mut *stream).poll_write(cx, bytes) {
            Poll::Pending => break,
            Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => core.wrote(id, n),
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    if let Poll::Ready(Err(error)) = Pin::new(&mut *stream).poll_flush(cx) {
        return Err(error);
    }
    core.after_write(id);
    Ok(())
}
