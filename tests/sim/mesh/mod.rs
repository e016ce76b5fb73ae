//! Many hubs, each with several routers and one relay. Links and a bridge connect them, and are randomly cut, slow or
//! lossy.
//!
//! Time is virtual: future events are in the [agenda](agenda), and the earliest one comes next. Clients connect, move,
//! send and fall silent; hubs are killed, stopped, drained and restarted. The clients' views are checked against the
//! promises all the time, and completely when all faults have ended.

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
