//! A WebRTC signaling hub, made from the crates [`proto`], [`tls`], [`shard`] and [`mesh`].
//!
//! [`cli`] parses the command line and [`config`] the settings. [`serve`] runs a hub. [`serve`] binds the ports, and
//! connects the shards with each other ([`hub`]) and with the mesh ([`linking`]). [`pages`] answers HTTP requests,
//! [`certificates`] reloads the hub's certificates, and [`acme`] can order certificates. [`admin`] receives the orders
//! of operators for a running hub. [`cmd`] contains the tools, which are clients of a hub.

pub mod acme;
pub mod admin;
pub mod certificates;
pub mod cli;
pub mod client;
pub mod cmd;
pub mod config;
pub mod files;
mod https;
pub mod hub;
pub mod lifecycle;
pub mod linking;
pub mod pages;
pub mod serve;
pub mod sockets;
pub mod telemetry;
pub mod token_keys;
pub mod traces;
pub mod watchdog;
