//! How a file is cut into parts.

/// The smallest part that is asked for, in bytes.
pub const PART: u64 = 64 << 20;
/// The most parts that S3 takes.
pub const MAX_PARTS: u64 = 10_000;
/// The largest file that can be pushed, in bytes: 10 000 parts of 5 GiB, S3's own end.
pub const MAX_SIZE: u64 = MAX_PARTS * (5 << 30);

/// Part size and number of parts for a file of `size` bytes: parts of 64 MiB, larger ones where 10 000 would not do.
/// Every part but the last has the part size, and the number is `ceil(size / part size)`, at least 1.
pub fn parts(size: u64) -> (u64, u64) {
    const MIB: u64 = 1 << 20;
    let part = size.div_ceil(MAX_PARTS).div_ceil(MIB).saturating_mul(MIB).max(PART);
    (part, size.div_ceil(part).max(1))
}

/// The length of part `number` (from 1) of a file of `size` bytes; `None` where there is no such part.
pub fn part_length(size: u64, number: u64) -> Option<u64> {
    let (part, count) = parts(size);
    if number == 0 || number > count {
        return None;
    }
    Some(part.min(size - part * (number - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_as_s3_and_the_clients_want_it() {
        const GIB: u64 = 1 << 30;
        for size in [1, PART - 1, PART, PART + 1, GIB, 100 * GIB, 625 * GIB, 626 * GIB, 10_000 * GIB, MAX_SIZE] {
            let (part, count) = parts(size);
            assert_eq!(count, size.div_ceil(part), "{size}");
            assert!(count <= MAX_PARTS && (5 << 20..=5 * GIB).contains(&part), "{size}: {part} {count}");
            let lengths: u64 = (1..=count).filter_map(|number| part_length(size, number)).sum();
            assert_eq!(lengths, size);
            assert_eq!((part_length(size, 0), part_length(size, count + 1)), (None, None));
        }
    }
}
