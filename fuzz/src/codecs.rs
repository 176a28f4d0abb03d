//! Compressed inputs: what is decoded is what another decoder makes of it (bzip2), or what was compressed, and a file that was
//! cut or changed is never taken for a whole one with other bytes.

use std::io::{self, Cursor, Read, Write};

use bulk_archive::{Codec, DecodeOptions, Decoder};
use bzip2::{Action, Compress, Compression, Decompress, Status};

use crate::Take;

/// What is decoded of one input, at most: a few bytes may stand for very many.
const MOST: u64 = 4 << 20;
/// What a block is made of, at most: repetitions take libbzip2 long.
const MOST_REPEATED: usize = 16 << 10;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let way = take.byte();
    match way % 8 {
        0 => foreign_bzip2(take.byte(), take.rest()),
        1 => own_bzip2(take),
        2 => any(take.one_of(&["a.gz", "a.xz", "a.zst", "a.bz2", "a.csv"]), take.rest()),
        3..=5 => own(take.one_of(&[Codec::Gzip, Codec::Xz, Codec::Zstd]), take),
        _ => any("", take.rest()),
    }
}

fn decode(bytes: &[u8], name: &str, threads: usize) -> Result<Vec<u8>, String> {
    let mut options = DecodeOptions::default();
    options.threads = threads;
    let decoder = Decoder::new(Cursor::new(bytes.to_vec()), name, &options).map_err(|error| error.to_string())?;
    let mut plain = Vec::new();
    decoder.take(MOST).read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

/// Whatever is read in small pieces is the same as in large ones.
fn any(name: &str, bytes: &[u8]) {
    let whole = decode(bytes, name, 1);
    let options = DecodeOptions::default();
    let input = Small(Cursor::new(bytes.to_vec()));
    let mut decoder = match Decoder::new(input, name, &options) {
        Ok(decoder) => decoder.take(MOST),
        Err(error) => {
            assert_eq!(Err(error.to_string()), whole);
            return;
        }
    };
    let (mut plain, mut piece) = (Vec::new(), [0; 777]);
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => plain.extend_from_slice(&piece[..len]),
            // How much had been read when it was met may differ.
            Err(_) => {
                assert!(whole.is_err());
                return;
            }
        }
    }
    assert!(whole == Ok(plain));
}

/// Gives few bytes at a time.
struct Small(Cursor<Vec<u8>>);

impl Read for Small {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min(13);
        self.0.read(&mut into[..len])
    }
}

/// Bytes that may be bzip2, decoded by both.
fn foreign_bzip2(threads: u8, bytes: &[u8]) {
    let found = decode(bytes, "a.bz2", 1 + usize::from(threads % 3));
    match reference(bytes) {
        // More comes than is looked at, so the end was not seen.
        Some((plain, _)) if plain.len() as u64 >= MOST => {
            if let Ok(found) = found {
                assert!(plain[..MOST as usize] == found);
            }
        }
        Some((plain, true)) => assert!(found == Ok(plain), "{:?}", found.map(|found| found.len())),
        // The other one reads what stands behind a stream, and is none, as the end.
        Some((_, false)) | None => assert!(found.is_err(), "{:?}", found.map(|found| found.len())),
    }
}

/// What libbzip2 makes of one stream behind another, and whether nothing but zeros follows. `None` if it is damaged or cut.
fn reference(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (mut plain, mut rest) = (Vec::new(), bytes);
    loop {
        let mut stream = Decompress::new(false);
        loop {
            plain.reserve(64 << 10);
            let (taken, given) = (stream.total_in(), stream.total_out());
            let status = stream.decompress_vec(rest, &mut plain).ok()?;
            rest = &rest[(stream.total_in() - taken) as usize..];
            if plain.len() as u64 >= MOST {
                return Some((plain, false));
            }
            match status {
                Status::StreamEnd => break,
                _ if stream.total_in() == taken && stream.total_out() == given => return None,
                _ => {}
            }
        }
        if rest.iter().all(|byte| *byte == 0) {
            return Some((plain, true));
        }
        if !rest.starts_with(b"BZh") {
            return Some((plain, false));
        }
    }
}

/// Streams that libbzip2 makes of the input, with some bits of it changed. A byte of 255 ends a stream, one of 254 a block.
fn own_bzip2(mut take: Take<'_>) {
    let level = 1 + u32::from(take.byte() % 9);
    let changes: Vec<(u16, u8)> = (0..take.byte() % 4).map(|_| (take.two(), take.byte())).collect();
    let (threads, repeats) = (take.byte(), 1 + usize::from(take.two() % 2048));
    let mut bytes = Vec::new();
    for part in take.rest().split(|byte| *byte == 0xff) {
        let mut stream = Compress::new(Compression::new(level), 0);
        let start = bytes.len();
        let mut blocks = part.split(|byte| *byte == 0xfe).peekable();
        while let Some(block) = blocks.next() {
            let plain = block.repeat(repeats.min(MOST_REPEATED / block.len().max(1)));
            let (action, done) = match blocks.peek() {
                Some(_) => (Action::Flush, Status::RunOk),
                None => (Action::Finish, Status::StreamEnd),
            };
            let before = stream.total_in();
            loop {
                bytes.reserve(64 << 10);
                let left = &plain[(stream.total_in() - before) as usize..];
                match stream.compress_vec(left, &mut bytes, action) {
                    Ok(status) if status == done => break,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(bytes[start..].starts_with(b"BZh"));
    }
    for (at, byte) in changes {
        let len = bytes.len();
        bytes[usize::from(at) % len] ^= byte;
    }
    foreign_bzip2(threads, &bytes);
}

/// What was compressed comes back; changed or cut, it does not come back as anything else.
fn own(codec: Codec, mut take: Take<'_>) {
    let change = (take.two(), take.byte());
    let (cut, repeats) = (take.two(), 1 + usize::from(take.byte()));
    let plain = take.rest().repeat(repeats);
    let (name, bytes) = match codec {
        Codec::Gzip => {
            let mut output =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(u32::from(change.1 % 10)));
            output.write_all(&plain).expect("memory");
            ("a.gz", output.finish().expect("memory"))
        }
        Codec::Xz => {
            let mut output = liblzma::write::XzEncoder::new(Vec::new(), u32::from(change.1 % 3));
            output.write_all(&plain).expect("memory");
            ("a.xz", output.finish().expect("memory"))
        }
        _ => {
            let mut output = zstd::Encoder::new(Vec::new(), i32::from(change.1 % 4)).expect("a level");
            output.include_checksum(true).expect("an option");
            output.write_all(&plain).expect("memory");
            ("a.zst", output.finish().expect("memory"))
        }
    };
    assert!(decode(&bytes, name, 1).as_ref() == Ok(&plain));
    assert!(decode(&bytes[..usize::from(cut) % bytes.len()], name, 1).is_err());
    let mut damaged = bytes;
    let at = usize::from(change.0) % damaged.len();
    damaged[at] ^= change.1;
    if let Ok(found) = decode(&damaged, name, 1) {
        assert!(found == plain);
    }
}
