//! Opens connections to a hub.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST, HeaderName};
use mesh::{ConnectError, Tls};
use proto::PeerId;

use super::connection::{self, MessageSender, Receiver};
use super::url::HubUrl;

impl HubUrl {
    /// Resolves the hub's addresses, once for all its connections. With `wss`, the public roots and `extra_roots` (PEM)
    /// are trusted.
    ///
    /// # Errors
    ///
    /// If there is no address, or `extra_roots` is invalid.
    pub async fn resolve(&self, extra_roots: Option<&[u8]>) -> io::Result<Endpoint> {
        let addresses = mesh::resolve(self.host(), self.port()).await?;
        let tls = self.is_tls().then(|| Tls::new(extra_roots)).transpose()?;
        Ok(self.at(addresses, tls))
    }

    /// The hub at these addresses.
    pub(crate) fn at(&self, addresses: Vec<SocketAddr>, tls: Option<Tls>) -> Endpoint {
        Endpoint { url: self.clone(), addresses, worked: Rc::default(), tls }
    }
}

/// A hub with resolved addresses.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: HubUrl,
    pub(super) addresses: Vec<SocketAddr>,
    /// The address of the last successful connection.
    pub(super) worked: Rc<Cell<Option<SocketAddr>>>,
    tls: Option<Tls>,
}

impl Endpoint {
    /// The hub's URL.
    pub fn url(&self) -> &HubUrl {
        &self.url
    }

    /// The address of the last successful connection, or else the first resolved address. `None` if the hub speaks TLS.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        let address = self.worked.get().or_else(|| self.addresses.first().copied());
        address.filter(|_| self.tls.is_none())
    }

    /// Keeps up to this number of TLS tickets for later connections. With 0, no connection resumes a session. The
    /// default is eight, enough for a single peer.
    #[must_use]
    pub fn keeping_tickets(self, most: usize) -> Self {
        Self { tls: self.tls.map(|tls| tls.keeping_tickets(most)), ..self }
    }

    /// The same hub, at one address.
    pub(crate) fn only(&self, address: SocketAddr) -> Self {
        Self { addresses: vec![address], worked: Rc::default(), ..self.clone() }
    }

    /// The same hub, with a token in the URL.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { url: self.url.with_token(token), ..self.clone() }
    }

    /// Connects as this peer, within `patience`.
    ///
    /// The address that worked last is tried first.
    pub async fn connect(
        &self,
        peer: &PeerId,
        token: Option<&str>,
        patience: Duration,
    ) -> Result<(MessageSender, Receiver), ConnectError> {
        let token = token.map(|token| (AUTHORIZATION, format!("Bearer {token}")));
        self.connect_with(peer, token, patience).await
    }

    /// Like [`Self::connect`], with these headers in the request.
    pub(crate) async fn connect_with(
        &self,
        peer: &PeerId,
        headers: impl IntoIterator<Item = (HeaderName, String)>,
        patience: Duration,
    ) -> Result<(MessageSender, Receiver), ConnectError> {
        let request = Request::get(self.url.request_target(peer)).header(HOST, self.url.authority());
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(Empty::<Bytes>::new()).map_err(ConnectError::Request)?;
        let addresses = mesh::order(self.addresses.iter().copied(), self.worked.get());
        let tls = self.tls.as_ref().map(|tls| (tls, self.url.host()));
        let opened = Box::pin(mesh::open(addresses, tls, &request, patience)).await?;
        self.worked.set(Some(opened.address));
        Ok(connection::open(opened.stream, opened.leftover))
    }
}
