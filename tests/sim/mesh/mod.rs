//! Many hubs, each of several routers and one relay, joined by links and a bridge that chance cuts, slows and loses.
//!
//! Time is virtual: what is to happen stands in the [agenda](agenda), and the next thing is what is due next. Clients
//! come, move, speak and fall silent; hubs are killed, stopped, drained and started anew. All the while, and most of all when
//! everything has been mended and has come to rest, what clients heard is held against the promises.

mod agenda;
mod bridge;
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
