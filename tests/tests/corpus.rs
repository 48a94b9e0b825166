//! The committed inputs of the fuzz targets, checked as the targets check them.
//!
//! Each module of `tests/fuzz/src` belongs to a target, whose build needs libFuzzer; here they are plain modules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test panics"
)]
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "modules of another crate, which uses and describes all of them"
)]

#[path = "../fuzz/src/manifest.rs"]
mod manifest;
#[path = "../fuzz/src/range.rs"]
mod range;
#[path = "../fuzz/src/reference.rs"]
mod reference;
#[path = "../fuzz/src/sif.rs"]
mod sif;
#[path = "../fuzz/src/sparse.rs"]
mod sparse;
#[path = "../fuzz/src/template.rs"]
mod template;
#[path = "../fuzz/src/token.rs"]
mod token;

use std::path::Path;

/// Checks every committed input of a target, and some that are broken.
fn each(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        check(&input);
        for cut in [0, 1, input.len() / 2, input.len().saturating_sub(1)] {
            check(input.get(..cut).unwrap_or_default());
        }
        count += 1;
    }
    assert!(count > 5, "{target} has only {count} inputs");
}

fn text(check: impl Fn(&str)) -> impl Fn(&[u8]) {
    move |input| {
        if let Ok(text) = str::from_utf8(input) {
            check(text);
        }
    }
}

#[test]
fn every_committed_input_passes() {
    each("manifest", manifest::run);
    each("range", range::run);
    each("reference", text(reference::run));
    each("sif", sif::run);
    each("template", text(template::run));
    each("token", token::run);
}

#[test]
fn every_target_has_inputs_and_is_checked_here() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::fs::read_to_string(manifest.join("tests/corpus.rs")).unwrap();
    for entry in std::fs::read_dir(manifest.join("fuzz/targets")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(own.contains(&format!("each(\"{name}\"")), "{name}");
    }
}
