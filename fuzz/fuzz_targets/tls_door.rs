#![no_main]

#[path = "../src/tls_door.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::tls_door(bytes));
