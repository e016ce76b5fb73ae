//! x
pub mod cli;
pub mod cmd;
pub mod config;
