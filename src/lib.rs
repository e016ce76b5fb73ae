//! A WebRTC signaling hub: the program around [`proto`], [`tls`], [`shard`] and [`mesh`].
//!
//! [`cli`] reads what is asked for and [`config`] what holds; [`serve`] runs a hub from there: it binds, introduces
//! the shards to each other ([`hub`]) and to the mesh ([`linking`]) and gives them their [`pages`] and their [`certificates`]. [`cmd`] has the tools, which are clients.

pub mod certificates;
pub mod cli;
pub mod client;
pub mod cmd;
pub mod config;
pub mod files;
pub mod hub;
pub mod lifecycle;
pub mod linking;
pub mod pages;
pub mod serve;
pub mod telemetry;
pub mod watchdog;
