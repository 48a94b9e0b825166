//! Files that are mostly zeros, in a compact form, so that a fuzzer's changes seldom hit a zero between two objects:
//! the size of the file in 8 bytes, then runs, each with its offset in 4, its length in 2, and its bytes. All numbers
//! are little-endian.

use std::ops::Range;

/// A run of zeros of this length ends a run of bytes.
const GAP: usize = 8;

/// A file of any size whose bytes are zero except for some runs.
#[derive(Debug)]
pub struct Sparse<'a> {
    /// Its size in bytes.
    pub size: u64,
    runs: Vec<(u64, &'a [u8])>,
}

impl<'a> Sparse<'a> {
    /// Reads a file that [`pack`] wrote, or something like it: the last run may be cut off.
    pub fn read(input: &'a [u8]) -> Option<Self> {
        let (size, mut rest) = input.split_first_chunk()?;
        let mut runs = Vec::new();
        while let Some((offset, after)) = rest.split_first_chunk() {
            let Some((length, after)) = after.split_first_chunk() else { break };
            let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
            let (run, after) = after.split_at(length);
            runs.push((u64::from(u32::from_le_bytes(*offset)), run));
            rest = after;
        }
        Some(Self { size: u64::from_le_bytes(*size), runs })
    }

    /// The bytes of a range. Beyond the end, they are zero.
    pub fn bytes(&self, range: &Range<u64>) -> Vec<u8> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        for (offset, run) in &self.runs {
            let end = (offset + run.len() as u64).min(self.size).min(range.end);
            let start = (*offset).max(range.start);
            if start < end {
                let place = |at: u64, from: u64| usize::try_from(at - from).unwrap_or(usize::MAX);
                let to = bytes.get_mut(place(start, range.start)..place(end, range.start));
                let from = run.get(place(start, *offset)..place(end, *offset));
                if let (Some(to), Some(from)) = (to, from) {
                    to.copy_from_slice(from);
                }
            }
        }
        bytes
    }
}

/// Writes a file in the compact form.
///
/// # Panics
/// If it is 4 GiB or longer.
pub fn pack(file: &[u8]) -> Vec<u8> {
    let mut packed = (file.len() as u64).to_le_bytes().to_vec();
    let mut at = 0;
    while let Some(start) = file.iter().skip(at).position(|byte| *byte != 0).map(|zeros| at + zeros) {
        let rest = file.get(start..).unwrap_or_default();
        let rest = rest.get(..usize::from(u16::MAX)).unwrap_or(rest);
        let length = rest.windows(GAP).position(|window| window == [0; GAP]).unwrap_or(rest.len());
        packed.extend(u32::try_from(start).unwrap_or_else(|_| panic!("{start} is too far")).to_le_bytes());
        packed.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
        packed.extend(rest.iter().take(length));
        at = start + length;
    }
    packed
}
