//! The one Zstandard frame (RFC 8878) of a shape of lines.
//!
//! A stretch is compressed as a frame by itself, of which the blocks are taken. In a frame, a block depends on those before
//! it in three ways: by what its matches refer to, which a frame of its own never has before its beginning; by tables of
//! codes that it may use again, which the first blocks of a frame define before they do; and by the three offsets that were
//! used last, which are 1, 4 and 8 at a frame's beginning (3.1.1.5). So between two stretches stands a block, the joint, that
//! leaves them as they are there, whatever they were: its matches have the offsets 8, 4 and 1. What comes out of it has to be
//! the same whatever came before, so it brings the spaces that its matches repeat.
//!
//! The frame has no checksum of the content, since there is none that could be put together of those of its parts.

use std::{io, sync::OnceLock};

use zstd::zstd_safe::CParameter;

/// The magic number; a descriptor: no dictionary, no checksum, the length is not known; a window of 2 MiB.
pub(super) const HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, (WINDOW_LOG as u8 - 10) << 3];

/// How far back a match refers, at most: 2 to this power.
const WINDOW_LOG: u32 = 21;

/// Of 1 to 22: the default of the library.
const LEVEL: i32 = 3;

/// The joint, a compressed block. Its 3 bytes of header are followed by literals (raw, 11 of them: ten spaces, a line end) and
/// sequences (3, by the predefined codes): 8 literals and a match of 4 bytes, 8 back; 1 and 4, 4 back; 1 and 4, 1 back; what
/// is left of the literals is the line end. A compressed block has to be smaller than what it stands for (3.1.1.2.4), which
/// it would not be with matches of 3.
pub(super) const JOINT: [u8; 24] = *b"\xac\x00\x00\x58          \n\x03\x00\xb8\x90\x5d\xdc\x05\x85\x0b";

/// What comes out of the joint.
#[cfg(test)]
const JOINT_PLAIN: &[u8] = b"                      \n";

/// The last block, a raw one: the end of the last line. And where there is none.
pub(super) const END: [u8; 4] = [1 << 3 | 1, 0, 0, b'\n'];
pub(super) const EMPTY_END: [u8; 3] = [1, 0, 0];

/// The blocks of a stretch. `check`: whether they are decompressed again.
pub(super) fn pack(plain: &[u8], check: bool) -> io::Result<Vec<u8>> {
    // A new one each time: what came before must leave no trace.
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    compressor.set_parameter(CParameter::ContentSizeFlag(false))?;
    compressor.set_parameter(CParameter::ChecksumFlag(false))?;
    let frame = compressor.compress(plain)?;
    let packed = blocks(&frame).ok_or_else(|| io::Error::other("a frame of Zstandard that was just made is none"))?;
    if check {
        let alone = [&HEADER[..], &packed, &EMPTY_END].concat();
        if zstd::bulk::decompress(&alone, plain.len() + 1)? != plain {
            return Err(io::Error::other("compressed lines are not read back as they were"));
        }
    }
    Ok(packed)
}

/// The blocks of a frame, none of which is the last one now.
fn blocks(frame: &[u8]) -> Option<Vec<u8>> {
    let (&descriptor, mut rest) = frame.strip_prefix(&HEADER[..4])?.split_first()?;
    let is_single = descriptor & 0x20 != 0;
    if descriptor & 0x04 != 0 {
        return None; // a checksum
    }
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = match descriptor >> 6 {
        0 => usize::from(is_single),
        log => 1 << log,
    };
    rest = rest.get(usize::from(!is_single) + dictionary + size..)?;
    let mut blocks = Vec::with_capacity(rest.len());
    loop {
        let (head, after) = rest.split_first_chunk::<3>()?;
        let number = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        // A block that repeats one byte has that alone.
        let len = if number >> 1 & 3 == 1 { 1 } else { (number >> 3) as usize };
        blocks.extend_from_slice(&[head[0] & !1, head[1], head[2]]);
        blocks.extend_from_slice(after.get(..len)?);
        rest = &after[len..];
        if number & 1 == 1 {
            return rest.is_empty().then_some(blocks);
        }
    }
}

/// A mark of how this version of the library compresses: the CRC of what it makes of a sample, and of the joint.
pub(super) fn mark() -> io::Result<u32> {
    static MARK: OnceLock<u32> = OnceLock::new();
    if let Some(&mark) = MARK.get() {
        return Ok(mark);
    }
    let packed = [&pack(&crate::archive::deflate::samples(), false)?[..], &JOINT].concat();
    let mark = crc32fast::hash(&packed) ^ zstd::zstd_safe::version_number();
    Ok(*MARK.get_or_init(|| mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: &[u8]) -> Vec<u8> {
        zstd::stream::decode_all(frame).unwrap()
    }

    #[test]
    fn a_joint_comes_out_the_same_and_leaves_offsets_as_at_the_beginning() {
        // The first sequence of each part has the offset used last, 1, and others that were.
        let part = |seed: usize| {
            let mut part = vec![b'x'; 40];
            part.extend((0..6000).flat_map(|at| format!("{:x} ", at * (seed + 7919) % 613).into_bytes()));
            part.extend_from_within(..3000);
            part
        };
        let parts: Vec<Vec<u8>> = (0..20).map(part).collect();
        let (mut frame, mut plain) = (HEADER.to_vec(), Vec::new());
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                frame.extend_from_slice(&JOINT);
                plain.extend_from_slice(JOINT_PLAIN);
            }
            frame.extend_from_slice(&pack(part, true).unwrap());
            plain.extend_from_slice(part);
        }
        frame.extend_from_slice(&END);
        plain.push(b'\n');
        assert!(read(&frame) == plain);
        let size = u32::from_le_bytes([JOINT[0], JOINT[1], JOINT[2], 0]) >> 3;
        assert_eq!((size as usize, JOINT_PLAIN.len()), (JOINT.len() - 3, 23));
        // Without joints, it is something else, or nothing.
        let packed: Vec<u8> = parts.iter().flat_map(|part| pack(part, true).unwrap()).collect();
        let without = [&HEADER[..], &packed, &EMPTY_END].concat();
        assert!(!zstd::stream::decode_all(&without[..]).is_ok_and(|read| read == parts.concat()));
    }

    #[test]
    fn what_does_not_compress_and_what_is_one_byte_fits() {
        let noise: Vec<u8> = (0..3_000_000u64).map(|at| (at.wrapping_mul(at * 31 + 7919) >> 11) as u8).collect();
        for plain in [&noise[..], &[b'a'; 500_000], b"", b"{}"] {
            let frame = [&HEADER[..], &pack(plain, true).unwrap(), &END].concat();
            assert!(read(&frame) == [plain, b"\n"].concat());
        }
        assert_eq!(read(&[&HEADER[..], &EMPTY_END].concat()), b"");
    }
}
