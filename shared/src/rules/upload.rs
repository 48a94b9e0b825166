//! How a file is divided into parts.

/// The smallest part size, in bytes.
pub const PART: u64 = 64 << 20;
/// The most parts that S3 accepts.
pub const MAX_PARTS: u64 = 10_000;
/// The largest file that can be pushed, in bytes: 10 000 parts of 5 GiB, S3's own limit.
pub const LONGEST_FILE: u64 = MAX_PARTS * (5 << 30);

/// Part size and number of parts for a file of `size` bytes: parts of 64 MiB, or larger ones if more than 10 000 would
/// be needed. Every part except the last has the part size. The number is `ceil(size / part size)`, at least 1.
pub fn parts(size: u64) -> (u64, u64) {
    const MIB: u64 = 1 << 20;
    let part = size.div_ceil(MAX_PARTS).div_ceil(MIB).saturating_mul(MIB).max(PART);
    (part, size.div_ceil(part).max(1))
}

/// The length of part `number` (from 1) of a file of `size` bytes; `None` if there is no such part.
pub fn part_length(size: u64, number: u64) -> Option<u64> {
    let (part, count) = parts(size);
    if number == 0 || number > count {
        return None;
    }
    Some(part.min(size - part * (number - 1)))
}

/// The most parts of a blob that is streamed through us. Their `ETag`s are in its row, which has at most 400 KB.
pub const MAX_STREAM_PARTS: usize = 4000;

/// The longest blob that can be streamed through us, in bytes: 4 000 parts of these lengths.
pub const LONGEST_STREAM: u64 = (500 * 8 + 500 * 32 + 3000 * 128) << 20;

/// The length in bytes of the part after `parts` others, for a blob that is streamed through us. Parts are short at
/// first and longer later, so that a small blob needs little memory and 4 000 parts are 395 GiB.
pub fn stream_part_length(parts: usize) -> u64 {
    match parts {
        0..500 => 8 << 20,
        500..1000 => 32 << 20,
        _ => 128 << 20,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_as_s3_and_the_clients_want_it() {
        const GIB: u64 = 1 << 30;
        for size in [1, PART - 1, PART, PART + 1, GIB, 100 * GIB, 625 * GIB, 626 * GIB, 10_000 * GIB, LONGEST_FILE] {
            let (part, count) = parts(size);
            assert_eq!(count, size.div_ceil(part), "{size}");
            assert!(count <= MAX_PARTS && (5 << 20..=5 * GIB).contains(&part), "{size}: {part} {count}");
            let lengths: u64 = (1..=count).filter_map(|number| part_length(size, number)).sum();
            assert_eq!(lengths, size);
            assert_eq!((part_length(size, 0), part_length(size, count + 1)), (None, None));
        }
    }

    #[test]
    fn the_parts_of_the_longest_stream_are_as_long_as_it() {
        assert_eq!((0..MAX_STREAM_PARTS).map(stream_part_length).sum::<u64>(), LONGEST_STREAM);
    }
}
