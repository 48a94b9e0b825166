//! The smallest image that a library accepts, made anew for each push, and digests.

use sha2::{Digest as _, Sha256};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

/// Where the table of descriptors begins, and the first object.
const TABLE: usize = 4_096;
const DATA: usize = 32_768;
/// How many descriptors the table has room for, and the bytes of one.
const ROWS: usize = 48;
const ROW: usize = 585;

/// A number that nobody else draws.
pub(super) fn drawn() -> u64 {
    // Each of these states has keys of its own, from the system's randomness.
    RandomState::new().build_hasher().finish()
}

/// That many bytes that nobody else has.
pub(super) fn junk(len: usize) -> Vec<u8> {
    let mut state = drawn() | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// An image for amd64 with a partition of `payload` random bytes. No program can run it.
pub(super) fn image(payload: usize) -> Vec<u8> {
    let number = |bytes: usize| (bytes as u64).to_le_bytes();
    let mut image = b"#!/usr/bin/env run-singularity\n\0".to_vec();
    image.extend(b"SIF_MAGIC\x0001\x0002\0");
    image.extend(junk(16));
    image.extend([0; 16]);
    for field in [ROWS - 1, ROWS, TABLE, ROWS * ROW, DATA, payload] {
        image.extend(number(field));
    }
    image.resize(TABLE, 0);
    // One partition: a squashfs, the primary one, for amd64.
    image.extend(0x4004_i32.to_le_bytes());
    image.push(1);
    for field in [1_u32, 0xF000_0001, 0] {
        image.extend(field.to_le_bytes());
    }
    for field in [DATA, payload, payload] {
        image.extend(number(field));
    }
    image.resize(TABLE + 201, 0);
    image.extend(b"\x01\0\0\0\x02\0\0\x0002\0");
    image.resize(DATA, 0);
    image.extend(junk(payload));
    image
}

/// The SHA-256 of bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// The digest of bytes as the registry writes it.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}
