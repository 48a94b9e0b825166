//! Byte ranges, as RFC 9110 §14 and the distribution specification write them.

use std::ops::Range;

/// The result of a `Range` header, for something of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The whole: there is no header, or one that is not understood.
    Whole,
    /// Some bytes.
    Some(Range<u64>),
    /// The range lies outside the bytes.
    Nothing,
}

/// Reads a `Range` header. A request for several ranges gets the whole, as the RFC allows.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(text) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let Some((start, end)) = text.split_once('-') else { return Wanted::Whole };
    let range = match (number(start), number(end)) {
        (Some(start), Some(end)) if start > end => return Wanted::Nothing,
        (Some(start), Some(end)) => start..end.saturating_add(1).min(size),
        (Some(start), None) if end.is_empty() => start..size,
        (None, Some(last)) if start.is_empty() => size.saturating_sub(last)..size,
        _ => return Wanted::Whole,
    };
    if range.start >= size || range.is_empty() { Wanted::Nothing } else { Wanted::Some(range) }
}

/// Reads the `Content-Range` of a chunk, `⟨first⟩-⟨last⟩`: the first byte and how many there are.
pub(crate) fn of_chunk(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

/// A number in a range, digits alone: Rust's own parser would accept a `+` before them.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_cut_to_what_is_there() {
        for (header, range) in [
            (None, Wanted::Whole),
            (Some("bytes=0-9"), Wanted::Some(0..10)),
            (Some("bytes=5-"), Wanted::Some(5..2048)),
            (Some("bytes=-500"), Wanted::Some(1548..2048)),
            (Some("bytes=-5000"), Wanted::Some(0..2048)),
            (Some("bytes=2000-5000"), Wanted::Some(2000..2048)),
            (Some("bytes=500-0"), Wanted::Nothing),
            (Some("bytes=5000-10000"), Wanted::Nothing),
            (Some("bytes=2048-"), Wanted::Nothing),
            (Some("bytes=-0"), Wanted::Nothing),
            (Some("bytes=0-1,5-6"), Wanted::Whole),
            (Some("lines=0-1"), Wanted::Whole),
            (Some("bytes=-"), Wanted::Whole),
            (Some("bytes=+0-9"), Wanted::Whole),
            (Some("bytes=0-+9"), Wanted::Whole),
            (Some("bytes=-+500"), Wanted::Whole),
        ] {
            assert_eq!(wanted(header, 2048), range, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-0"), 0), Wanted::Nothing);
    }

    #[test]
    fn chunks_say_where_they_begin() {
        for (header, read) in [
            ("0-1023", Some((0, 1024))),
            ("bytes 1024-2047/*", Some((1024, 1024))),
            ("5-4", None),
            ("0-18446744073709551615", None),
            ("x", None),
            ("+0-1023", None),
            ("0-+1023", None),
        ] {
            assert_eq!(of_chunk(header), read, "{header}");
        }
    }
}
