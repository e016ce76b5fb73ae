//! Counts and logs the refusals of one shard.

use std::net::SocketAddr;

use tracing::{debug, info, warn};

use super::prove::NoProof;
use super::secure::NoTls;
use crate::proxies::NoHead;
use crate::sparse::Sparse;
use crate::stats::{FailureCounts, HandshakeFailure, TokenRefusalCounts};
use crate::tokens::TokenRefusal;

/// The refusals of one shard: their numbers, and the limits of their log lines.
#[derive(Default)]
pub(crate) struct Refusals {
    counts: FailureCounts,
    token_counts: TokenRefusalCounts,
    links: Sparse,
    origins: Sparse,
    proxies: Sparse,
    tokens: Sparse,
    /// Limits the log lines about peers without a proof of their id.
    proofs: Sparse,
    /// Limits the log lines about failed TLS handshakes whose cause an operator can remove.
    tls: Sparse,
}

impl Refusals {
    /// Numbers of refused requests and connections, by their reason.
    pub(crate) fn counts(&self) -> &FailureCounts {
        &self.counts
    }

    /// Numbers of refused tokens, by their reason.
    pub(crate) fn token_counts(&self) -> &TokenRefusalCounts {
        &self.token_counts
    }

    /// Counts a refusal without a log line.
    pub(crate) fn count(&mut self, failure: HandshakeFailure) {
        self.counts[failure as usize] += 1;
    }

    /// Counts a refused token without a log line.
    pub(crate) fn count_token(&mut self, no: TokenRefusal) {
        self.token_counts[no as usize] += 1;
    }

    /// Counts a refused request. Logs it at a limited rate if an operator may want to know its cause.
    pub(super) fn count_request(
        &mut self,
        (failure, token): (HandshakeFailure, Option<TokenRefusal>),
        address: SocketAddr,
        detail: &str,
    ) {
        self.count(failure);
        let reason = failure.label();
        if failure.is_of_a_link()
            && let Some(times) = self.links.count()
        {
            warn!(%address, reason, times, "link_refused");
        }
        if failure == HandshakeFailure::Forwarded
            && let Some(times) = self.proxies.count()
        {
            warn!(%address, reason, detail, times, "proxy_refused");
        }
        if let Some(no) = token {
            self.count_token(no);
            if let Some(times) = self.tokens.count() {
                info!(%address, reason = no.label(), times, "token_refused");
            }
        }
        if failure == HandshakeFailure::Origin
            && let Some(times) = self.origins.count()
        {
            warn!(%address, detail, times, "origin_refused");
        }
    }

    /// Counts and logs a failed TLS handshake. The log line is a warning, at a limited rate, if an operator can remove
    /// the cause.
    pub(super) fn count_no_tls(&mut self, no: &NoTls, address: SocketAddr) {
        let Some(failure) = no.failure else { return };
        self.count(failure);
        let (reason, detail) = (failure.label(), &no.detail);
        let is_ours = matches!(
            failure,
            HandshakeFailure::LinkCertificate
                | HandshakeFailure::TlsAtPlainPort
                | HandshakeFailure::TlsRefused
                | HandshakeFailure::TlsNothingInCommon
        );
        match is_ours.then(|| self.tls.count()).flatten() {
            Some(times) => warn!(%address, reason, detail, times, "tls_refused"),
            None => debug!(%address, reason, detail, "tls_refused"),
        }
    }

    /// Counts a connection of a trusted proxy that did not begin with a PROXY head. Such connections are logged at a
    /// limited rate.
    pub(super) fn count_no_head(&mut self, no: &NoHead, address: SocketAddr) {
        self.count(HandshakeFailure::ProxyHead);
        if let Some(times) = self.proxies.count() {
            let reason = HandshakeFailure::ProxyHead.label();
            warn!(%address, reason, detail = no.explain(), times, "proxy_refused");
        }
    }

    /// Counts a peer that has not proven its id. Such peers are logged at a limited rate.
    pub(super) fn count_no_proof(&mut self, no: NoProof, address: SocketAddr) {
        self.count(HandshakeFailure::IdProof);
        if let Some(times) = self.proofs.count() {
            info!(%address, reason = no.label(), detail = no.explain(), times, "id_proof_refused");
        }
    }
}
