//! Bytes of a stream that wait to be sent to the store, and the memory that they may use.
//!
//! Memory is taken from the process's budget before bytes are accepted, so that clients wait for the store and bytes
//! don't pile up.
//!
//! Bytes are kept in the pieces in which the listener read them, if these are long. A piece keeps all memory that was
//! read into, of which it may be a small part; so short ones are copied together. What is held is then at most about
//! twice as much memory as bytes. One buffer for a whole part would be worse: of 8 MiB and more, jemalloc gives memory
//! back to the system at once, which has to fill each page of the next buffer with zeros.

use super::Refused;
use crate::app::App;
use crate::error::Error;
use crate::store::Pieces;
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

pub(super) const MIB: u64 = 1 << 20;
/// When a client that got no memory may try again.
const COME_BACK: Duration = Duration::from_secs(10);
/// A client that holds memory for a part may take the patience for each of its MiB, so others wait for memory at least
/// that long.
const LEAST_WAIT: u32 = 8;
/// The shortest piece that is kept as it came: half of what hyper reads at most in one go.
const LONG: usize = 204 << 10;
/// How much short pieces are copied into at a time.
const BLOCK: usize = 256 << 10;

/// Bytes in memory.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pieces: Vec<Bytes>,
    /// The short pieces after those.
    block: BytesMut,
    length: u64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// How many bytes there are.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Appends bytes for which there is memory.
    pub(super) fn append(&mut self, mut piece: Bytes) {
        self.length += piece.len() as u64;
        if piece.len() >= LONG {
            self.end_block();
            self.pieces.push(piece);
            return;
        }
        while !piece.is_empty() {
            if self.block.capacity() == 0 {
                self.block = BytesMut::with_capacity(BLOCK);
            }
            let room = BLOCK.saturating_sub(self.block.len());
            self.block.extend_from_slice(&piece.split_to(piece.len().min(room)));
            if self.block.len() >= BLOCK {
                self.end_block();
            }
        }
    }

    /// Makes a piece of what was copied together.
    fn end_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        if self.block.len() < BLOCK / 2 {
            self.pieces.push(Bytes::copy_from_slice(&self.block));
            self.block.clear();
        } else {
            self.pieces.push(std::mem::take(&mut self.block).freeze());
        }
    }

    /// The bytes, and the permit for their memory, which lasts until it is dropped.
    pub(super) fn freeze(mut self) -> (Pieces, Option<OwnedSemaphorePermit>) {
        self.end_block();
        (self.pieces.into(), self.permit)
    }

    /// Waits for memory for a part, or for `length` more bytes if that is less. A client that has sent little holds
    /// little: the first MiB of a part takes memory for one, and only further bytes take memory for the whole part.
    pub(super) async fn reserve(&mut self, app: &App, part: u64, length: Option<u64>) -> Result<(), Refused> {
        let held = self.len();
        let most = length.map_or(part, |length| held.saturating_add(length).min(part));
        self.acquire(app, if held < MIB { MIB } else { most }).await
    }

    /// Waits for memory for so many bytes in all, in whole MiB, for as long as the current holders may keep it; more
    /// means a longer wait.
    pub(super) async fn acquire(&mut self, app: &App, bytes: u64) -> Result<(), Refused> {
        let has = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX).clamp(1, app.config.buffers);
        if has as u64 >= u64::from(wanted) {
            return Ok(());
        }
        // Memory is given back before more is requested: if all kept what they have, nobody might get what they need.
        drop(self.permit.take());
        let patience = app.config.patience.saturating_mul(wanted.max(LEAST_WAIT));
        let permit = tokio::time::timeout(patience, app.buffers().acquire_many_owned(wanted)).await;
        let busy = |_| Error::Busy { why: "too many uploads at once, continue later".to_owned(), after: COME_BACK };
        let permit = permit.map_err(busy)?;
        self.permit = Some(permit.map_err(|error| Error::Internal(error.to_string()))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_lengths_come_out_as_they_went_in() {
        let all: Vec<u8> = (0..3 * BLOCK).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for length in [1000, LONG - 1, LONG, LONG + 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            for short in [0, 1, BLOCK / 2, LONG - 1] {
                let (mut buffer, mut rest) = (Buffer::default(), Bytes::from(all.clone()));
                while !rest.is_empty() {
                    buffer.append(rest.split_to(short.min(rest.len())));
                    buffer.append(rest.split_to(length.min(rest.len())));
                }
                assert_eq!(buffer.len(), all.len() as u64);
                let (pieces, _) = buffer.freeze();
                assert_eq!(pieces.len(), all.len() as u64);
                assert_eq!(pieces.iter().flatten().copied().collect::<Vec<u8>>(), all, "{length} {short}");
            }
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
        let mut buffer = Buffer::default();
        for _ in 0..4 {
            buffer.append(Bytes::from_static(b"short"));
            buffer.append(Bytes::from(vec![7; LONG]));
        }
        // Of the copied pieces, only one kept the block that they were copied into.
        assert_eq!(buffer.block.capacity(), BLOCK);
        assert_eq!(buffer.freeze().0.iter().map(Bytes::len).collect::<Vec<usize>>(), [5, LONG].repeat(4));
    }
}
