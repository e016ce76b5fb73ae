//! Accepts the connections of one listener, and makes room for new connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;

use proto::limits::{REFUSALS_PER_TURN, TICK};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use crate::core::Core;
use crate::crowd::Place;
use crate::http::{self, Door, Entrance, FilePool};
use crate::sparse::Sparse;
use crate::stats::HandshakeFailure;

/// An accepted connection that may be served.
struct Admitted(TcpStream, SocketAddr, Option<Place>);

/// Connections of one listener that are not WebSockets, oldest first. The listener may close such a connection to make
/// room for a newer one.
#[derive(Default)]
struct Newcomers(VecDeque<(AbortHandle, Rc<Cell<bool>>)>);

impl Newcomers {
    fn add(&mut self, task: AbortHandle, is_websocket: Rc<Cell<bool>>) {
        // Ended connections are removed only when the list is full, so the average cost per connection is constant.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|(task, _)| !task.is_finished());
            self.0.shrink_to(2 * self.0.len());
        }
        self.0.push_back((task, is_websocket));
    }

    /// Whether there is a connection that may be closed.
    fn has_any(&mut self) -> bool {
        while let Some((task, is_websocket)) = self.0.front() {
            if !task.is_finished() && !is_websocket.get() {
                return true;
            }
            self.0.pop_front();
        }
        false
    }

    /// Closes the oldest connection that is not a WebSocket, if there is one.
    fn drop_oldest(&mut self) -> bool {
        let has_any = self.has_any();
        if let Some((task, _)) = self.0.pop_front() {
            task.abort();
        }
        has_any
    }
}

/// Accepts connections until `open` becomes false. The function then serves the connections that wait in the kernel's
/// queue.
pub(crate) async fn accept(
    door: Rc<Door>,
    core: Rc<RefCell<Core>>,
    listener: StdListener,
    mut open: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listener_failed"),
    };
    let port = match listener.local_addr() {
        Ok(address) => address.port(),
        Err(error) => return tracing::error!(%error, "listener_failed"),
    };
    let entrance = Entrance::at(port, door.links.as_ref(), door.admin_port, door.redirect);
    let mut connections = JoinSet::new();
    let mut newcomers = Newcomers::default();
    let spawn =
        |connections: &mut JoinSet<()>, newcomers: &mut Newcomers, admitted: Admitted, file: OwnedSemaphorePermit| {
            let Admitted(stream, address, place) = admitted;
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "nodelay_failed");
            }
            let is_websocket = Rc::new(Cell::new(false));
            let (door, core) = (Rc::clone(&door), Rc::clone(&core));
            let served =
                http::serve(door, (entrance, port), core, stream, address, (file, place), Rc::clone(&is_websocket));
            newcomers.add(connections.spawn_local(served), is_websocket);
        };
    // Decides whether a connection is served, before anything is read from it.
    let admit = |stream: TcpStream, address: SocketAddr| {
        // On `::`, IPv4 addresses arrive as IPv6: `::ffff:10.0.0.1`.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let refusal = match door.admit(entrance, address) {
            Ok(place) => return Some(Admitted(stream, address, place)),
            Err(refusal) => refusal,
        };
        http::count_no_entry(&door.gate, &mut core.borrow_mut(), refusal, address);
        if let Ok(stream) = stream.into_std() {
            door.gate.turn_away(&stream, refusal, door.speaks_tls(port));
        }
        None
    };
    let mut refused = 0;
    let make_room = |newcomers: &mut Newcomers| {
        let made = newcomers.drop_oldest();
        if made {
            core.borrow_mut().refusals_mut().count(HandshakeFailure::CrowdedOut);
        }
        made
    };
    let failures = Sparse::default();
    let FilePool { files, wanted } = door.files.at(entrance);
    // An accepted connection that waits until this kind of listener may use another file descriptor.
    let mut admitted = None;
    // The port of the operators' pages stays open while the hub drains, so that operators can observe the drain.
    let stays_open = entrance == Entrance::Admin;
    while *open.borrow_and_update() || stays_open {
        let has_room = connections.len() < door.tuning.max_requests;
        tokio::select! {
            free = Arc::clone(&files).acquire_owned(), if admitted.is_some() && has_room => {
                if let (Ok(file), Some(admitted)) = (free, admitted.take()) {
                    spawn(&mut connections, &mut newcomers, admitted, file);
                }
            }
            // At each tick, the oldest connection is closed to make room. Without this step, silent clients could keep
            // the accepted connection waiting for ever.
            () = tokio::time::sleep(TICK), if admitted.is_some() => {
                if !make_room(&mut newcomers) {
                    wanted.ask();
                }
            }
            () = wanted.asked(), if admitted.is_none() => {
                if newcomers.has_any() && wanted.take() {
                    make_room(&mut newcomers);
                }
            }
            accepted = listener.accept(), if admitted.is_none() => match accepted {
                Ok((stream, address)) => {
                    admitted = admit(stream, address);
                    if admitted.is_none() {
                        refused += 1;
                        if refused % REFUSALS_PER_TURN == 0 {
                            tokio::task::yield_now().await;
                        }
                        continue;
                    }
                    let full = files.available_permits() == 0 || connections.len() >= door.tuning.max_requests;
                    if full && !make_room(&mut newcomers) {
                        wanted.ask();
                    }
                }
                // The client has already closed the connection. The next `accept` may succeed.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // The process probably has no free file descriptors. Connections wait in the kernel's queue until a
                    // file descriptor is free.
                    if let Some(times) = failures.count() {
                        warn!(%error, times, "accept_failed");
                    }
                    tokio::time::sleep(TICK).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = open.changed() => {}
        }
    }
    let waiting = listener.into_std().and_then(|listener| {
        while let Ok(file) = Arc::clone(&files).try_acquire_owned() {
            let next = match admitted.take() {
                Some(admitted) => admitted,
                None => {
                    let Ok((stream, address)) = listener.accept() else { break };
                    stream.set_nonblocking(true)?;
                    let Some(admitted) = admit(TcpStream::from_std(stream)?, address) else { continue };
                    admitted
                }
            };
            spawn(&mut connections, &mut newcomers, next, file);
        }
        Ok(())
    });
    if let Err(error) = waiting {
        debug!(%error, "accept_failed");
    }
    while connections.join_next().await.is_some() {}
}
