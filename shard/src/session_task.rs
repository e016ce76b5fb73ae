//! The task of one session. The task owns the reading half of the socket, and borrows the core for one turn at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proto::limits::TURN_NANOS;
use proto::{CloseReason, SessionId, SessionPhase, isolated};
use thread::{TurnGuard, planted, poll_read};
use tls::Received;
use tokio::net::tcp::OwnedReadHalf;

use crate::core::Core;
use crate::session::why_lost;

/// Maximum number of successive reads of one session before other sessions have a turn.
const READS_PER_TURN: usize = 4;

/// Runs a session until its socket is closed.
pub(crate) async fn run(core: Rc<RefCell<Core>>, id: SessionId, mut read: OwnedReadHalf) {
    std::future::poll_fn(|cx| {
        let mut core = core.borrow_mut();
        let session = core.session_mut(id).map(|session| (session.peer, session.address));
        let _turn = TurnGuard::of("session", session);
        core.begin_turn(TURN_NANOS);
        let mut had_turn = false;
        let driven = drive(&mut core, id, &mut read, cx, &mut had_turn);
        if had_turn {
            core.charge(id);
        }
        driven
    })
    .await;
}

/// Sets `had_turn` if the session was admitted to a turn, which then is charged even if nothing was read.
fn drive(
    core: &mut Core,
    id: SessionId,
    read: &mut OwnedReadHalf,
    cx: &mut Context<'_>,
    had_turn: &mut bool,
) -> Poll<()> {
    for _ in 0..READS_PER_TURN {
        if core.is_turn_over() {
            break;
        }
        let busy = core.is_busy();
        let Some(session) = core.session_mut(id) else { return Poll::Ready(()) };
        session.set_waker(cx.waker());
        if session.writes.is_blocked() && read.as_ref().poll_write_ready(cx).is_ready() {
            core.unblocked(id);
            continue;
        }
        if !session.reads() {
            return Poll::Pending;
        }
        if busy && session.phase() != SessionPhase::Closing {
            core.park(id);
            return Poll::Pending;
        }
        if !*had_turn && !core.admits(id) {
            return Poll::Pending;
        }
        *had_turn = true;
        let Some(session) = core.session_mut(id) else { return Poll::Ready(()) };
        if session.read.take_replay() {
            core.received(id, &mut []);
            continue;
        }
        if session.write.tls.is_some() {
            ready!(decrypt(core, id, read, cx));
            continue;
        }
        let mut buffer = core.take_read_buffer();
        let most = core.read_bytes();
        let polled = poll_read(read, cx, &mut buffer[..most]).map(|read| match read {
            Ok(0) => core.lost(id, CloseReason::ConnectionLost),
            Ok(n) => core.received(id, &mut buffer[..n]),
            Err(error) => core.lost(id, why_lost(&error)),
        });
        core.restore_read_buffer(buffer);
        ready!(polled);
    }
    drive_again(cx)
}

/// Reads once from a socket with TLS, and processes the decrypted data.
fn decrypt(core: &mut Core, id: SessionId, read: &mut OwnedReadHalf, cx: &mut Context<'_>) -> Poll<()> {
    let mut plain = core.take_plaintext();
    let most = core.read_bytes();
    let polled = match core.session_mut(id).and_then(|session| session.write.tls.as_mut()) {
        Some(tls) => isolated(|| {
            planted("tls");
            tls.receive(most, &mut plain, |buffer| poll_read(read, cx, buffer))
        }),
        None => Some(Poll::Pending),
    };
    let Some(polled) = polled else {
        // The TLS code has panicked on the bytes of this connection. No close frame can be sent on this connection any
        // more.
        core.lost(id, CloseReason::Internal);
        core.restore_plaintext(plain);
        return Poll::Ready(());
    };
    if !plain.is_empty() {
        core.received(id, &mut plain);
    }
    let polled = polled.map(|received| match received {
        Ok(Received::More) => core.flush_tls(id),
        Ok(Received::End) => core.lost(id, CloseReason::ConnectionLost),
        Err(error) => core.tls_failed(id, &error),
    });
    core.restore_plaintext(plain);
    polled
}

fn drive_again(cx: &mut Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}
