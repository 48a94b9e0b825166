//! Bytes of a stream that wait to be sent to the store.
//!
//! Memory is taken from the process's budget before bytes are accepted, so that clients wait for the store and bytes
//! don't pile up (see [`buffers`](crate::app::buffers)).
//!
//! A piece of the network's keeps all memory that was read into, of which it may be a small part. So pieces are copied
//! together, and what is held is as much memory as bytes. One buffer for a whole part would be worse: of 8 MiB and more,
//! jemalloc gives memory back to the system at once, which has to fill each page of the next buffer with zeros.

use super::Refused;
use crate::app::App;
use crate::app::buffers::{MIB, Memory};
use crate::error::Error;
use crate::store::Pieces;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// When a client that got no memory may try again.
const COME_BACK: Duration = Duration::from_secs(10);
/// How much is copied together into one piece.
const BLOCK: usize = 256 << 10;

/// Bytes in memory.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pieces: Vec<Bytes>,
    /// The bytes after those.
    block: BytesMut,
    length: u64,
    memory: Option<Memory>,
}

impl Buffer {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Appends bytes for which there is memory.
    pub(super) fn append(&mut self, mut piece: Bytes) {
        self.length += piece.len() as u64;
        while !piece.is_empty() {
            if self.block.capacity() == 0 {
                self.block = BytesMut::with_capacity(BLOCK);
            }
            let room = BLOCK.saturating_sub(self.block.len());
            self.block.extend_from_slice(&piece.split_to(piece.len().min(room)));
            if self.block.len() >= BLOCK {
                self.pieces.push(std::mem::take(&mut self.block).freeze());
            }
        }
    }

    /// The bytes, and their memory.
    pub(super) fn freeze(mut self) -> (Pieces, Option<Memory>) {
        if !self.block.is_empty() {
            self.pieces.push(self.block.freeze());
        }
        (self.pieces.into(), self.memory)
    }

    /// Waits for memory for more bytes of a part of `part` bytes, or for the `left` ones that are to come if those are
    /// fewer. A client that has sent little holds little: the first MiB needs memory for one, and only further bytes
    /// need memory for the whole part.
    pub(super) async fn reserve(&mut self, app: &App, part: u64, left: Option<u64>) -> Result<(), Refused> {
        let all = left.map_or(part, |left| self.length.saturating_add(left.max(1)).min(part));
        self.acquire(app, if self.length < MIB { all.min(MIB) } else { all }).await
    }

    /// Waits for memory for so many bytes in all.
    pub(super) async fn acquire(&mut self, app: &App, bytes: u64) -> Result<(), Refused> {
        if self.memory.as_ref().is_some_and(|memory| bytes <= memory.bytes) {
            return Ok(());
        }
        let busy = || Error::Busy { why: "too many uploads at once, continue later".to_owned(), after: COME_BACK };
        // What is held is given back afterwards.
        self.memory = Some(app.buffers().memory(bytes).await.ok_or_else(busy)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_lengths_come_out_as_they_went_in() {
        let all: Vec<u8> = (0..3 * BLOCK).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for length in [1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let (mut buffer, mut rest) = (Buffer::default(), Bytes::from(all.clone()));
            while !rest.is_empty() {
                buffer.append(rest.split_to(length.min(rest.len())));
            }
            assert_eq!(buffer.len(), all.len() as u64);
            let (pieces, _) = buffer.freeze();
            assert_eq!(pieces.len(), all.len() as u64);
            assert_eq!(pieces.iter().flatten().copied().collect::<Vec<u8>>(), all, "{length}");
        }
    }

    #[test]
    fn short_pieces_keep_no_more_memory_than_they_need() {
        let mut buffer = Buffer::default();
        for _ in 0..BLOCK {
            // Each is one byte of a page.
            buffer.append(Bytes::from(vec![7; 4096]).split_to(1));
        }
        assert_eq!(buffer.freeze().0.iter().map(Bytes::len).collect::<Vec<usize>>(), [BLOCK]);
    }
}
