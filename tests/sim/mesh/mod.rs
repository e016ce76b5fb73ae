//! Many hubs, each of several routers and one relay, connected by links and a bridge that are randomly cut, slowed and
//! lossy.
//!
//! Time is virtual: future events are in the [agenda](agenda), and the earliest one is next. Clients connect, move,
//! send and fall silent; hubs are killed, stopped, drained and restarted. All the time, and above all when everything
//! is repaired and at rest, the clients' views are checked against the promises.

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
