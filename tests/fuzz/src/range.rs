//! Ranges: a second reader, whose numbers can't overflow, finds the same bytes.
//!
//! The first line of the input is the size of what is read, the rest the header.
#![allow(dead_code, reason = "a module of the registry, read here by itself")]

use registrys::Wanted;
use std::ops::Range;

#[path = "../../../functions/oci/src/range.rs"]
mod registrys;

/// What RFC 9110 calls a position: digits and nothing else. Positions beyond any file are a case of their own.
enum Position {
    None,
    At(u128),
    Beyond,
}

fn position(text: &str) -> Option<Position> {
    if text.is_empty() {
        return Some(Position::None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().filter(|at| *at <= u128::from(u64::MAX)).map_or(Position::Beyond, Position::At))
}

/// The bytes that a header asks for; `None` if it can't be parsed, or a number is too large.
fn expected(header: &str, size: u64) -> Option<Range<u128>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let size = u128::from(size);
    match (position(first)?, position(last)?) {
        (Position::At(first), Position::At(last)) if first <= last => Some(first..size.min(last + 1)),
        (Position::At(_), Position::At(_)) => Some(0..0),
        (Position::At(first), Position::None) => Some(first..size),
        (Position::None, Position::At(length)) => Some(size.saturating_sub(length)..size),
        _ => None,
    }
}

/// The first byte and the length that a chunk states, if both are numbers that we can represent. What follows a slash,
/// the length of the whole, is ignored.
fn expected_chunk(header: &str) -> Option<(u128, u128)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text).split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (Position::At(first), Position::At(last)) = (position(first)?, position(last)?) else { return None };
    let length = (last + 1).checked_sub(first)?;
    (1..=u128::from(u64::MAX)).contains(&length).then_some((first, length))
}

/// Checks one input.
///
/// # Panics
/// If something is wrong.
pub fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let (size, header) = text.split_once('\n').unwrap_or(("2048", text));
    let size = size.parse().unwrap_or(2048);
    assert_eq!(registrys::wanted(None, size), Wanted::Whole);
    match (registrys::wanted(Some(header), size), expected(header, size)) {
        (Wanted::Whole, None) => {}
        (Wanted::Nothing, Some(bytes)) => assert!(bytes.is_empty(), "{bytes:?} of {size} bytes were asked for"),
        (Wanted::Some(bytes), Some(expected)) => {
            assert!(bytes.start < bytes.end && bytes.end <= size, "{bytes:?} of {size} bytes");
            assert_eq!(u128::from(bytes.start)..u128::from(bytes.end), expected);
        }
        (wanted, expected) => panic!("`{header}` of {size} bytes asks for {expected:?}, and {wanted:?} was read"),
    }
    let chunk = registrys::of_chunk(header);
    assert_eq!(
        chunk.map(|(first, length)| (u128::from(first), u128::from(length))),
        expected_chunk(header),
        "{header:?}"
    );
    if let Some((first, length)) = chunk {
        let last = u128::from(first) + u128::from(length) - 1;
        assert_eq!(registrys::of_chunk(&format!("bytes {first}-{last}/*")), chunk);
    }
}
