//! A WebRTC signaling hub: the program around [`proto`], [`tls`], [`shard`] and [`mesh`].
//!
//! [`cli`] parses the command line and [`config`] the settings. [`serve`] runs a hub: it binds the ports, connects the
//! shards with each other ([`hub`]) and with the mesh ([`linking`]), and provides [`pages`] and [`certificates`], which
//! [`acme`] can order. Operators give a running hub their orders through the pages: [`admin`].
//! [`cmd`] contains the tools; they are clients of a hub.

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
