//! See `quipu_fuzz::log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    quipu_fuzz::log(data);
});
