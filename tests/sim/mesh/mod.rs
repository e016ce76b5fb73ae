//! A simulator of many hubs, each with several routers and one relay. The hubs are connected by links and a bridge,
//! which are randomly cut, slow or lossy.
//!
//! Time is virtual: future events are in the [agenda](agenda), and the earliest event comes next. Clients connect, send
//! messages, change hubs and stop answering. Hubs are killed, stopped, drained and restarted. Oracles check each
//! message to a client when it is sent. When all faults have ended, the oracles also check that each client knows the
//! right members of its networks.

mod agenda;
mod bridge;
mod claims;
mod clients;
mod describe;
mod epilogue;
mod hubs;
mod links;
mod plan;
mod presence;
mod rest;
mod saboteur;
mod seeds;
mod signals;
mod trouble;
mod world;
