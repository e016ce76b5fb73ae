//! Tests of meshes on real sockets, with each other and with scripted hubs.

#![allow(clippy::unwrap_used, missing_docs)]

mod ends;
mod hub;
mod legacy;
mod linking;
mod presence;
mod tls;
mod wire;
