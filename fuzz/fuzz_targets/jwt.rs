#![no_main]

#[path = "../src/jwt.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::jwt(bytes));
