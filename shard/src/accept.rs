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

/// The connections of one listener that may be closed to make room for a newer one, oldest first. The list may still
/// contain connections that have ended or become WebSockets.
#[derive(Default)]
struct HttpConnections(VecDeque<(AbortHandle, Rc<Cell<bool>>)>);

impl HttpConnections {
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

/// Accepts the connections of one listener.
struct Acceptor {
    door: Rc<Door>,
    core: Rc<RefCell<Core>>,
    entrance: Entrance,
    port: u16,
    /// The tasks of all connections that are not handed over.
    tasks: JoinSet<()>,
    http: HttpConnections,
}

impl Acceptor {
    /// Decides about a connection, before anything is read from it. `None` if the connection is refused.
    fn admit(&self, stream: TcpStream, address: SocketAddr) -> Option<Admitted> {
        let Self { door, entrance, port, .. } = self;
        // On `::`, IPv4 addresses arrive as IPv6: `::ffff:10.0.0.1`.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match door.admit(*entrance, address) {
            Ok(place) => Some(Admitted(stream, address, place)),
            Err(refusal) => {
                http::count_no_entry(&door.gate, &mut self.core.borrow_mut(), refusal, address);
                if let Ok(stream) = stream.into_std() {
                    door.gate.turn_away(&stream, refusal, door.speaks_tls(*port));
                }
                None
            }
        }
    }

    /// Serves a connection.
    fn spawn(&mut self, Admitted(stream, address, place): Admitted, file: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "nodelay_failed");
        }
        let is_websocket = Rc::new(Cell::new(false));
        let (door, core) = (Rc::clone(&self.door), Rc::clone(&self.core));
        let at = (self.entrance, self.port);
        let served = http::serve(door, at, core, stream, address, (file, place), Rc::clone(&is_websocket));
        self.http.add(self.tasks.spawn_local(served), is_websocket);
    }

    fn is_full(&self) -> bool {
        self.tasks.len() >= self.door.tuning.max_requests
    }

    /// Closes the oldest connection that is not a WebSocket. Returns false if there is none.
    fn make_room(&mut self) -> bool {
        let made = self.http.drop_oldest();
        if made {
            self.core.borrow_mut().refusals_mut().count(HandshakeFailure::CrowdedOut);
        }
        made
    }

    /// Accepts connections until `open` is false, or for ever at ADMIN_PORT. Returns a connection that still waits for
    /// a file descriptor.
    async fn accept_while_open(
        &mut self,
        listener: &TcpListener,
        pool: &FilePool,
        mut open: watch::Receiver<bool>,
    ) -> Option<Admitted> {
        let FilePool { files, wanted } = pool;
        let failures = Sparse::default();
        let mut refused = 0;
        // An accepted connection that waits until this kind of listener may use another file descriptor.
        let mut admitted = None;
        // Operators observe a draining hub at this port.
        let stays_open = self.entrance == Entrance::Admin;
        while *open.borrow_and_update() || stays_open {
            let has_room = !self.is_full();
            tokio::select! {
                free = Arc::clone(files).acquire_owned(), if admitted.is_some() && has_room => {
                    if let (Ok(file), Some(admitted)) = (free, admitted.take()) {
                        self.spawn(admitted, file);
                    }
                }
                // Each tick makes room again. Otherwise silent clients could keep this connection waiting for ever.
                () = tokio::time::sleep(TICK), if admitted.is_some() => {
                    if !self.make_room() {
                        wanted.ask();
                    }
                }
                () = wanted.asked(), if admitted.is_none() => {
                    if self.http.has_any() && wanted.take() {
                        self.make_room();
                    }
                }
                accepted = listener.accept(), if admitted.is_none() => match accepted {
                    Ok((stream, address)) => {
                        admitted = self.admit(stream, address);
                        if admitted.is_none() {
                            refused += 1;
                            if refused % REFUSALS_PER_TURN == 0 {
                                tokio::task::yield_now().await;
                            }
                            continue;
                        }
                        let full = files.available_permits() == 0 || self.is_full();
                        if full && !self.make_room() {
                            wanted.ask();
                        }
                    }
                    // The client has already closed this connection. The next `accept` may succeed.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        // The process probably has no free file descriptors. Connections wait in the kernel's queue
                        // until one is free.
                        if let Some(times) = failures.count() {
                            warn!(%error, times, "accept_failed");
                        }
                        tokio::time::sleep(TICK).await;
                    }
                },
                Some(_) = self.tasks.join_next() => {}
                _ = open.changed() => {}
            }
        }
        admitted
    }

    /// Serves `admitted`, and the connections that the kernel accepted before the listener closed, as far as file
    /// descriptors suffice.
    fn accept_rest(
        &mut self,
        listener: TcpListener,
        pool: &FilePool,
        mut admitted: Option<Admitted>,
    ) -> std::io::Result<()> {
        let listener = listener.into_std()?;
        while let Ok(file) = Arc::clone(&pool.files).try_acquire_owned() {
            let next = match admitted.take() {
                Some(admitted) => admitted,
                None => {
                    let Ok((stream, address)) = listener.accept() else { break };
                    stream.set_nonblocking(true)?;
                    let Some(admitted) = self.admit(TcpStream::from_std(stream)?, address) else { continue };
                    admitted
                }
            };
            self.spawn(next, file);
        }
        Ok(())
    }
}

/// Accepts connections until `open` is false, and then connections that the kernel has already accepted. Returns when
/// each connection has ended or has become a WebSocket.
pub(crate) async fn accept(
    door: Rc<Door>,
    core: Rc<RefCell<Core>>,
    listener: StdListener,
    open: watch::Receiver<bool>,
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
    let pool = door.files.at(entrance);
    let mut acceptor = Acceptor { door, core, entrance, port, tasks: JoinSet::new(), http: HttpConnections::default() };
    let admitted = acceptor.accept_while_open(&listener, &pool, open).await;
    if let Err(error) = acceptor.accept_rest(listener, &pool, admitted) {
        debug!(%error, "accept_failed");
    }
    while acceptor.tasks.join_next().await.is_some() {}
}
