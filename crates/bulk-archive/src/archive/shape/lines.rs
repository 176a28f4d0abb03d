//! Shapes of lines: JSON, a line for each item.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use flate2::{Decompress, FlushDecompress};

use super::{
    How, Made, Old, Shape, frame,
    in_order::{Put, in_order},
    map::{MapWriter, Place},
    not_as_mapped,
    stretch::{Digest, Stretch, Stretches},
};
use crate::{
    Error,
    archive::{
        chains::Chains,
        composer::with_contents,
        deflate::{self, Deflate},
        splice::IndexedArchive,
    },
};

/// How lines are compressed.
enum Packer {
    Gzip(Deflate),
    Zstd,
}

impl Packer {
    fn header(&self) -> &'static [u8] {
        match self {
            Packer::Gzip(_) => &deflate::HEADER,
            Packer::Zstd => &frame::HEADER,
        }
    }

    /// What stands between two stretches.
    fn joint(&self) -> &'static [u8] {
        match self {
            Packer::Gzip(_) => &[],
            Packer::Zstd => &frame::JOINT,
        }
    }

    fn pack(&self, plain: &[u8], window: &[u8], check: bool) -> io::Result<Vec<u8>> {
        match self {
            Packer::Gzip(deflate) => {
                let packed = deflate.block(plain, window)?;
                if check && inflated(&packed, plain.len(), window)? != plain {
                    return Err(io::Error::other("compressed lines are not read back as they were"));
                }
                Ok(packed)
            }
            Packer::Zstd => frame::pack(plain, check),
        }
    }

    fn end(&self, crc: u32, plain_len: u64, is_empty: bool) -> io::Result<Vec<u8>> {
        Ok(match self {
            Packer::Gzip(deflate) => [&deflate.empty_end()?[..], &deflate::trailer(crc, plain_len)].concat(),
            Packer::Zstd if is_empty => frame::EMPTY_END.to_vec(),
            Packer::Zstd => frame::END.to_vec(),
        })
    }
}

fn inflated(packed: &[u8], len: usize, window: &[u8]) -> io::Result<Vec<u8>> {
    let mut inflate = Decompress::new(false);
    if !window.is_empty() {
        inflate.set_dictionary(window).map_err(io::Error::other)?;
    }
    let mut plain = Vec::with_capacity(len + 1);
    inflate.decompress_vec(packed, &mut plain, FlushDecompress::Sync).map_err(io::Error::other)?;
    Ok(plain)
}

/// A stretch that is to be written.
struct Job {
    first_id: String,
    digest: Digest,
    work: Work,
}

enum Work {
    Copy(Place),
    /// Its lines, and what they may refer to.
    Pack(Vec<u8>, Vec<u8>),
}

/// One that is ready.
struct Ready {
    first_id: String,
    digest: Digest,
    place: Place,
    /// None where it is copied.
    packed: Option<Vec<u8>>,
}

pub(super) fn make<A, I, W, X>(
    shape: Shape,
    archive: IndexedArchive<A, I>,
    old: Option<Old>,
    output: W,
    map: MapWriter<X>,
    how: &How<'_>,
) -> Result<(W, MapWriter<X>, Made), Error>
where
    A: Read + Seek,
    I: Read + Seek,
    W: Write,
    X: Write,
{
    let IndexedArchive { archive, mut index } = archive;
    let file = how.file;
    let packer = match shape {
        Shape::JsonlGz => Packer::Gzip(Deflate::new(index.recipe().level)),
        _ => Packer::Zstd,
    };
    let (source, mut known) = match old {
        Some(old) => (Some(old.file), Some(old.map)),
        None => (None, None),
    };
    let mut writer = Writer {
        packer: &packer,
        output,
        map,
        source,
        file,
        crc: crc32fast::Hasher::new(),
        plain_len: 0,
        made: Made::default(),
        buffer: Vec::new(),
    };
    writer.write(packer.header())?;
    let work = |Job { first_id, digest, work }: Job| {
        let (plain, window) = match work {
            Work::Copy(place) => return Ok(Ready { first_id, digest, place, packed: None }),
            Work::Pack(plain, window) => (plain, window),
        };
        let packed = packer.pack(&plain, &window, how.check)?;
        let place = Place {
            number: 0,
            before: 0,
            len: packed.len() as u64,
            crc: crc32fast::hash(&packed),
            plain_len: plain.len() as u64,
            plain_crc: crc32fast::hash(&plain),
        };
        Ok(Ready { first_id, digest, place, packed: Some(packed) })
    };
    let feed = |put: &mut Put<'_, Job>| {
        let name = index.file().to_owned();
        let mut stretches = Stretches::new(shape, &mut index);
        let mut text = Text { archive, chains: Chains::new(&name), file: name, last: None };
        while let Some(stretch) = stretches.next()? {
            if shape == Shape::JsonlGz {
                text.note(&stretch);
            }
            let place = match &mut known {
                Some(map) => map.find(stretch.first_id(), &stretch.digest)?,
                None => None,
            };
            let work = match (place, shape) {
                (Some(place), _) => Work::Copy(place),
                (None, Shape::JsonlGz) => text.of_block(&stretch)?,
                (None, _) => Work::Pack(text.of_chain(&stretch)?, Vec::new()),
            };
            put(Job { first_id: stretch.first_id().to_owned(), digest: stretch.digest, work })?;
            text.last = Some(stretch);
        }
        Ok(())
    };
    in_order(file, how.threads, work, |ready| writer.add(ready), feed)?;
    writer.finish()
}

struct Writer<'a, W, X> {
    packer: &'a Packer,
    output: W,
    map: MapWriter<X>,
    /// The older file.
    source: Option<File>,
    file: &'a str,
    crc: crc32fast::Hasher,
    plain_len: u64,
    made: Made,
    buffer: Vec<u8>,
}

impl<W: Write, X: Write> Writer<'_, W, X> {
    fn add(&mut self, ready: Ready) -> Result<(), Error> {
        let Ready { first_id, digest, place, packed } = ready;
        let number = self.map.count();
        if number > 0 {
            self.write(self.packer.joint())?;
        }
        match packed {
            Some(packed) => {
                self.write(&packed)?;
                self.made.made.push((number, digest));
            }
            None => {
                self.read(&place)?;
                let bytes = std::mem::take(&mut self.buffer);
                self.write(&bytes)?;
                self.buffer = bytes;
                self.made.copied += 1;
            }
        }
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(place.plain_crc, place.plain_len));
        self.plain_len += place.plain_len;
        self.map.add(&first_id, &digest, &place)
    }

    /// Reads a stretch of the older file.
    fn read(&mut self, place: &Place) -> Result<(), Error> {
        let Some(source) = &mut self.source else { return Err(not_as_mapped(self.file)) };
        let joints = place.number * self.packer.joint().len() as u64;
        let start = self.packer.header().len() as u64 + joints + place.before;
        let failed = |source| Error::Io { file: self.file.to_owned(), offset: Some(start), source };
        self.buffer.clear();
        source.seek(SeekFrom::Start(start)).map_err(failed)?;
        source.take(place.len).read_to_end(&mut self.buffer).map_err(failed)?;
        let is_same = self.buffer.len() as u64 == place.len && crc32fast::hash(&self.buffer) == place.crc;
        if is_same { Ok(()) } else { Err(not_as_mapped(self.file)) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write_all(bytes).map_err(|source| Error::Output { file: self.file.to_owned(), source })
    }

    fn finish(mut self) -> Result<(W, MapWriter<X>, Made), Error> {
        let is_empty = self.map.count() == 0;
        let failed = |source| Error::Output { file: self.file.to_owned(), source };
        let end = self.packer.end(self.crc.clone().finalize(), self.plain_len, is_empty).map_err(failed)?;
        self.write(&end)?;
        self.output.flush().map_err(failed)?;
        Ok((self.output, self.map, self.made))
    }
}

/// The lines of an archive.
struct Text<A> {
    archive: A,
    chains: Chains,
    file: String,
    /// The stretch before.
    last: Option<Stretch>,
}

impl<A: Read + Seek> Text<A> {
    fn note(&mut self, stretch: &Stretch) {
        stretch.blocks.iter().for_each(|(block, _)| self.chains.note(block));
    }

    /// A block that was noted, with what it may refer to: the end of the lines of the one before.
    fn of_block(&mut self, stretch: &Stretch) -> Result<Work, Error> {
        let mut window = Vec::new();
        let begins_chain = stretch.blocks.first().is_none_or(|(block, _)| block.begins_chain());
        if !begins_chain && let Some(before) = self.last.take() {
            window = deflate::window(&self.lines(&before)?).to_vec();
        }
        Ok(Work::Pack(self.lines(stretch)?, window))
    }

    fn lines(&mut self, stretch: &Stretch) -> Result<Vec<u8>, Error> {
        let mut lines = Vec::new();
        for (block, entries) in &stretch.blocks {
            let plain = self.chains.inflate(block.number, &mut self.archive)?;
            for (_, content) in with_contents(entries) {
                push_line(&mut lines, &plain[content]);
            }
        }
        Ok(lines)
    }

    /// A whole chain, without the end of its last line.
    fn of_chain(&mut self, stretch: &Stretch) -> Result<Vec<u8>, Error> {
        self.chains = Chains::behind(&self.file, stretch.first_block());
        let mut lines = Vec::new();
        for (block, entries) in &stretch.blocks {
            self.chains.note(block);
            let plain = self.chains.inflate(block.number, &mut self.archive)?;
            for (_, content) in with_contents(entries) {
                push_line(&mut lines, &plain[content]);
            }
        }
        lines.pop();
        Ok(lines)
    }
}

/// Appends a line. JSON has line breaks between its tokens alone.
fn push_line(lines: &mut Vec<u8>, json: &[u8]) {
    lines.extend(json.iter().map(|&byte| one_line(byte)));
    lines.push(b'\n');
}

/// What a byte of an item becomes in a line.
pub(super) fn one_line(byte: u8) -> u8 {
    if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }
}
