//! Rewrites the seeds of the target `sif`, from images that the tests build:
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz --example seeds`.
#![allow(dead_code, reason = "a module of the tests, only partly used here")]

#[path = "../../src/sif.rs"]
mod sif;

use sif::SifBuilder;
use stackroom_fuzz::sparse::{Sparse, pack};
use std::path::Path;

/// Where every image has its table, and the table's length.
const TABLE: usize = 4_096;
const TABLE_LENGTH: usize = 48 * 585;
/// Where the header states that offset.
const TABLE_OFFSET: usize = 96;

/// The image with its table after all objects, beyond the first read.
fn moved(mut image: Vec<u8>) -> Vec<u8> {
    let end = image.len().next_multiple_of(4_096).max(100_000);
    image.resize(end, 0);
    image.extend_from_within(TABLE..TABLE + TABLE_LENGTH);
    image[TABLE..TABLE + TABLE_LENGTH].fill(0);
    image[TABLE_OFFSET..TABLE_OFFSET + 8].copy_from_slice(&(end as u64).to_le_bytes());
    image
}

fn main() -> std::io::Result<()> {
    let small = |arch| SifBuilder::new(arch).payload(&b"squashfs"[..]);
    let described = || {
        let labels = [("org.label-schema.build-arch", "arm64"), ("Author", "Alice")];
        small("arm64").definition("Bootstrap: scratch\n").labels(&labels)
    };
    let fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567";
    let signed = small("amd64").signature(fingerprint).signature(&"0".repeat(40));
    let oci = SifBuilder::oci_sif("riscv64").payload(&b"layer"[..]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/sif");
    std::fs::create_dir_all(&folder)?;
    for (name, image) in [
        ("plain", small("amd64").build()),
        ("described", described().build()),
        ("signed", signed.build()),
        ("encrypted", small("s390x").encrypted().build()),
        ("unknown-architecture", small("z80").build()),
        ("oci", oci.build()),
        ("table-at-the-end", moved(described().build())),
        ("cut-off", small("amd64").build()[..32_770].to_vec()),
        ("not-a-sif", b"hsqs, a bare squashfs\n".to_vec()),
    ] {
        let packed = pack(&image);
        let size = image.len() as u64;
        assert_eq!(Sparse::read(&packed).map(|file| file.bytes(&(0..size))), Some(image), "{name}");
        std::fs::write(folder.join(name), packed)?;
    }
    Ok(())
}
