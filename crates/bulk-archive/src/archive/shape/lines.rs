//! Shapes of lines: JSON, a line for each item.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use flate2::{Decompress, FlushDecompress};

use super::{
    How, Made, Old, Part, Shape, frame,
    in_order::{Put, in_order},
    key,
    map::{Map, MapWriter, Place},
    mark, not_as_mapped,
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
#[derive(Clone, Copy)]
enum Packer {
    Gzip,
    Zstd,
}

impl Packer {
    fn of(shape: Shape) -> Packer {
        if shape == Shape::JsonlGz { Packer::Gzip } else { Packer::Zstd }
    }

    fn header(self) -> &'static [u8] {
        match self {
            Packer::Gzip => Shape::JsonlGz.header(),
            Packer::Zstd => Shape::JsonlZst.header(),
        }
    }

    /// What stands between two stretches.
    fn joint(self) -> &'static [u8] {
        match self {
            Packer::Gzip => &[],
            Packer::Zstd => &frame::JOINT,
        }
    }

    /// Where a stretch begins; none where there can be no such place.
    fn start(self, place: &Place) -> Option<u64> {
        let joints = place.number.checked_mul(self.joint().len() as u64)?;
        joints.checked_add(self.header().len() as u64)?.checked_add(place.before)
    }

    fn pack(self, lines: &Lines, check: bool) -> io::Result<Vec<u8>> {
        let Lines { plain, window, level } = lines;
        match self {
            Packer::Gzip => {
                let packed = Deflate::new(*level).block(plain, window);
                if check && inflated(&packed, plain.len(), window)? != *plain {
                    return Err(io::Error::other("compressed lines are not read back as they were"));
                }
                Ok(packed)
            }
            Packer::Zstd => frame::pack(plain, check),
        }
    }

    fn end(self, crc: u32, plain_len: u64, is_empty: bool) -> Vec<u8> {
        match self {
            // Of nothing all levels make the same.
            Packer::Gzip => [&Deflate::new(1).empty_end()[..], &deflate::trailer(crc, plain_len)].concat(),
            Packer::Zstd if is_empty => frame::EMPTY_END.to_vec(),
            Packer::Zstd => frame::END.to_vec(),
        }
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

/// The lines of a stretch.
struct Lines {
    plain: Vec<u8>,
    /// What they may refer to.
    window: Vec<u8>,
    /// That of the archive.
    level: u32,
}

/// A file that may have stretches.
struct Source {
    file: Arc<File>,
    map: Map,
}

impl Source {
    fn new(old: Old) -> Source {
        Source { file: Arc::new(old.file), map: old.map }
    }

    fn find(source: &mut Option<Source>, key: &str, digest: &Digest) -> Result<Option<Work>, Error> {
        let Some(source) = source else { return Ok(None) };
        Ok(source.map.find(key, digest)?.map(|place| Work::Copy(Arc::clone(&source.file), place)))
    }
}

/// A stretch that is to be written.
struct Job {
    key: String,
    digest: Digest,
    work: Work,
}

enum Work {
    Copy(Arc<File>, Place),
    Pack(Lines),
}

/// One that is ready.
struct Ready {
    key: String,
    digest: Digest,
    place: Place,
    bytes: Bytes,
}

/// What is written of it.
enum Bytes {
    Of(Arc<File>),
    Packed(Vec<u8>),
}

pub(super) fn make<'a, A, I, W, X>(
    shape: Shape,
    parts: impl Iterator<Item = Result<Part<'a, A, I>, Error>>,
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
    let file = how.file;
    let packer = Packer::of(shape);
    let mut writer = Writer {
        packer,
        output,
        map,
        file,
        crc: crc32fast::Hasher::new(),
        plain_len: 0,
        made: Made::default(),
        buffer: Vec::new(),
    };
    writer.write(packer.header())?;
    let work = |Job { key, digest, work }: Job| {
        let lines = match work {
            Work::Copy(source, place) => return Ok(Ready { key, digest, place, bytes: Bytes::Of(source) }),
            Work::Pack(lines) => lines,
        };
        let packed = packer.pack(&lines, how.check)?;
        let place = Place {
            number: 0,
            before: 0,
            len: packed.len() as u64,
            crc: crc32fast::hash(&packed),
            plain_len: lines.plain.len() as u64,
            plain_crc: crc32fast::hash(&lines.plain),
        };
        Ok(Ready { key, digest, place, bytes: Bytes::Packed(packed) })
    };
    let mut old = old.map(Source::new);
    let feed = |put: &mut Put<'_, Job>| {
        for part in parts {
            let Part { archive: IndexedArchive { archive, mut index }, mut member } = part?;
            let level = index.recipe().level;
            let name = index.file().to_owned();
            let mut stretches = Stretches::new(shape, mark(shape, level, how)?, &mut index);
            let mut text = Text { archive, chains: Chains::new(&name), file: name, level, last: None };
            let mut own = None;
            while let Some(stretch) = stretches.next()? {
                if shape == Shape::JsonlGz {
                    text.note(&stretch);
                }
                let key = key(member.as_ref(), &stretch);
                let mut work = Source::find(&mut old, &key, &stretch.digest)?;
                if work.is_none()
                    && let Some(member) = &mut member
                {
                    own = own.or(member.open()?.map(Source::new));
                    work = Source::find(&mut own, stretch.first_id(), &stretch.digest)?;
                }
                let work = match (work, shape) {
                    (Some(work), _) => work,
                    (None, Shape::JsonlGz) => Work::Pack(text.of_block(&stretch)?),
                    (None, _) => Work::Pack(text.of_chain(&stretch)?),
                };
                put(Job { key, digest: stretch.digest, work })?;
                text.last = Some(stretch);
            }
        }
        Ok(())
    };
    in_order(file, how.threads, work, |ready| writer.add(ready), feed)?;
    writer.finish()
}

/// Where a stretch begins in a file of lines; none where there can be no such place.
pub(super) fn start(shape: Shape, place: &Place) -> Option<u64> {
    Packer::of(shape).start(place)
}

struct Writer<'a, W, X> {
    packer: Packer,
    output: W,
    map: MapWriter<X>,
    file: &'a str,
    crc: crc32fast::Hasher,
    plain_len: u64,
    made: Made,
    buffer: Vec<u8>,
}

impl<W: Write, X: Write> Writer<'_, W, X> {
    fn add(&mut self, ready: Ready) -> Result<(), Error> {
        let Ready { key, digest, place, bytes } = ready;
        if self.map.count() > 0 {
            self.write(self.packer.joint())?;
        }
        match bytes {
            Bytes::Packed(packed) => {
                self.write(&packed)?;
                self.made.made += 1;
            }
            Bytes::Of(source) => {
                self.read(&source, &place)?;
                let bytes = std::mem::take(&mut self.buffer);
                self.write(&bytes)?;
                self.buffer = bytes;
                self.made.copied += 1;
            }
        }
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(place.plain_crc, place.plain_len));
        self.plain_len += place.plain_len;
        self.map.add(&key, &digest, &place)
    }

    /// Reads a stretch of a file that has it.
    fn read(&mut self, source: &File, place: &Place) -> Result<(), Error> {
        let start = self.packer.start(place).ok_or_else(|| not_as_mapped(self.file))?;
        let len = usize::try_from(place.len).map_err(|_| not_as_mapped(self.file))?;
        self.buffer.resize(len, 0);
        match source.read_exact_at(&mut self.buffer, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(not_as_mapped(self.file)),
            read => {
                read.map_err(|source| Error::Io { file: self.file.to_owned(), offset: Some(start), source })?;
            }
        }
        if crc32fast::hash(&self.buffer) == place.crc { Ok(()) } else { Err(not_as_mapped(self.file)) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write_all(bytes).map_err(|source| Error::Output { file: self.file.to_owned(), source })
    }

    fn finish(mut self) -> Result<(W, MapWriter<X>, Made), Error> {
        let is_empty = self.map.count() == 0;
        let failed = |source| Error::Output { file: self.file.to_owned(), source };
        let end = self.packer.end(self.crc.clone().finalize(), self.plain_len, is_empty);
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
    level: u32,
    /// The stretch before.
    last: Option<Stretch>,
}

impl<A: Read + Seek> Text<A> {
    fn note(&mut self, stretch: &Stretch) {
        stretch.blocks.iter().for_each(|(block, _)| self.chains.note(block));
    }

    /// A block that was noted, with what it may refer to: the end of the lines of the one before.
    fn of_block(&mut self, stretch: &Stretch) -> Result<Lines, Error> {
        let mut window = Vec::new();
        let begins_chain = stretch.blocks.first().is_none_or(|(block, _)| block.begins_chain());
        if !begins_chain && let Some(before) = self.last.take() {
            window = deflate::window(&self.lines(&before)?).to_vec();
        }
        Ok(Lines { plain: self.lines(stretch)?, window, level: self.level })
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
    fn of_chain(&mut self, stretch: &Stretch) -> Result<Lines, Error> {
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
        Ok(Lines { plain: lines, window: Vec::new(), level: self.level })
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
