//! The pieces in which bodies are made and sent, in buffers that are used again and again.

use std::{
    io, mem,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

/// The size of a piece: large enough that system calls do not count, small enough to stay in a core's cache.
pub(super) const CHUNK: usize = 256 * 1024;

/// What is kept for later, 16 MiB at most.
const KEPT: usize = 64;

static FREE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// `len` bytes, at most [`CHUNK`], as `fill` leaves them; what it finds is what another piece had.
pub(super) fn chunk(len: usize, fill: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Bytes> {
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = Buffer(free.unwrap_or_else(|| vec![0; CHUNK].into()));
    fill(&mut buffer.0[..len])?;
    Ok(Bytes::from_owner(buffer).slice(..len))
}

struct Buffer(Box<[u8]>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(mem::take(&mut self.0));
        }
    }
}
