#![no_main]

#[path = "../src/http_head.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::http_head(bytes));
