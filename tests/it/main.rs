//! Tests of the whole program on real sockets. Every hub is a process with its own port, except in `hang.rs`.

#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod acme;
mod admin;
mod alive;
mod certificates;
mod client;
mod dashboard;
mod discovery;
mod docs;
mod doctor;
mod door;
mod ends;
mod files;
mod flood;
mod fuzz;
mod go;
mod hang;
mod hub;
mod jwt;
mod legacy;
mod limits;
mod links;
mod log;
mod memory;
mod mesh;
mod namesakes;
mod orders;
mod panics;
mod partings;
mod ports;
mod proof;
mod proxies;
mod redis;
mod report;
mod resume;
mod signaling;
mod silent;
mod sockets;
mod stop;
mod tls;
mod tools;
mod top;
mod traces;
mod wire;
