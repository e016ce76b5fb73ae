//! x
pub mod cli;
pub mod cmd;
pub mod config;
pub mod lifecycle;
pub mod pages;
pub mod telemetry;
