//! Meshes on real sockets of this machine, with each other and with hubs that follow a script.

#![allow(clippy::unwrap_used, missing_docs)]

mod ends;
mod hub;
mod legacy;
mod linking;
mod presence;
mod tls;
mod wire;
