//! See the module of the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| stackroom_fuzz::reference::run(input));
