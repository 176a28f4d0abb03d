//! Makes, compresses and writes the files: units in parallel, their bytes in order.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bzip2::write::BzEncoder;
use sha2::{Digest as _, Sha256};

use super::layout::{Layout, Unit};
use super::pen::Pen;
use super::truth::RowSum;
use super::world::World;
use super::{Compression, Error, SnapshotFile, Spec, TABLES};

/// CSV bytes in one bz2 stream; a cut may fall inside a record.
const STREAM: usize = 2_000_000;

/// What a unit became.
struct Piece {
    layout: usize,
    csv: Vec<u8>,
    /// The bytes for the file, where the unit is compressed on its own.
    streams: Option<Vec<u8>>,
    rows: u64,
    sum: RowSum,
}

/// Writes the files of `layouts` to `dir`, in order. What is written does not depend on the number of threads.
pub(super) fn write_files(
    spec: &Spec,
    world: &World,
    layouts: &[Layout],
    dir: &Path,
) -> Result<Vec<SnapshotFile>, Error> {
    let threads = match spec.threads {
        Some(threads) => threads.get(),
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    // Unit n is made by worker n mod threads and comes back through that worker's own channel, so that pieces arrive
    // in order and no more than two for each worker wait.
    thread::scope(|scope| {
        let pieces: Vec<Receiver<io::Result<Piece>>> = (0..threads)
            .map(|worker| {
                let (sender, receiver) = sync_channel(1);
                scope.spawn(move || work(spec, world, layouts, worker, threads, &sender));
                receiver
            })
            .collect();
        let mut files = Vec::new();
        let mut open: Option<Output> = None;
        for (unit, (layout, _)) in units(layouts).enumerate() {
            if open.as_ref().is_none_or(|output| output.layout != layout) {
                files.extend(open.take().map(Output::finish).transpose()?);
                open = Some(Output::create(spec, &layouts[layout], layout, dir)?);
            }
            let output = open.as_mut().expect("opened above");
            let piece = pieces[unit % threads].recv().expect("a worker sends every unit that is its own");
            output.write(piece.map_err(output.at())?)?;
        }
        files.extend(open.map(Output::finish).transpose()?);
        Ok(files)
    })
}

/// The units of all files in order, each with the index of its layout.
fn units(layouts: &[Layout]) -> impl Iterator<Item = (usize, Unit)> {
    layouts.iter().enumerate().flat_map(|(index, layout)| layout.units().map(move |unit| (index, unit)))
}

fn work(
    spec: &Spec,
    world: &World,
    layouts: &[Layout],
    worker: usize,
    threads: usize,
    sender: &SyncSender<io::Result<Piece>>,
) {
    let mut pen = Pen::new(world);
    for (layout, unit) in units(layouts).skip(worker).step_by(threads) {
        let mut piece = Piece { layout, csv: Vec::new(), streams: None, rows: 0, sum: RowSum::default() };
        piece.rows = layouts[layout].print(unit, &mut pen, spec.dialect, &mut piece.sum, &mut piece.csv);
        let piece = match spec.compression {
            Compression::Bzip2 { level } => compress(&piece.csv, level).map(|streams| {
                piece.streams = Some(streams);
                piece
            }),
            Compression::None | Compression::Bzip2OneStream { .. } => Ok(piece),
        };
        // The other end is gone when the disk is full; then there is nothing left to do.
        if sender.send(piece).is_err() {
            return;
        }
    }
}

fn compress(csv: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(csv.len() / 4);
    for part in csv.chunks(STREAM) {
        let mut encoder = BzEncoder::new(&mut out, bzip2::Compression::new(level));
        encoder.write_all(part)?;
        encoder.finish()?;
    }
    Ok(out)
}

/// A file that is being written.
struct Output {
    layout: usize,
    path: PathBuf,
    sink: Sink,
    sha256: Sha256,
    file: SnapshotFile,
}

enum Sink {
    /// What comes is written as it is.
    Ready(File),
    /// One stream holds the whole file.
    OneStream(BzEncoder<File>),
}

impl Output {
    fn create(spec: &Spec, layout: &Layout, index: usize, dir: &Path) -> Result<Self, Error> {
        let table = &TABLES[layout.table as usize];
        let ending = if spec.compression == Compression::None { "" } else { ".bz2" };
        let name = format!("{}-{}.csv{ending}", table.base, spec.date);
        let path = dir.join(&name);
        let file = File::create(&path).map_err(Error::io(&path))?;
        let sink = match spec.compression {
            Compression::Bzip2OneStream { level } => {
                Sink::OneStream(BzEncoder::new(file, bzip2::Compression::new(level)))
            }
            _ => Sink::Ready(file),
        };
        let file = SnapshotFile {
            table: table.name,
            name,
            rows: 0,
            csv_bytes: 0,
            bytes: 0,
            csv_sha256: String::new(),
            row_md5_sum: 0,
        };
        Ok(Self { layout: index, path, sink, sha256: Sha256::new(), file })
    }

    fn at(&self) -> impl Fn(io::Error) -> Error + use<> {
        Error::io(&self.path)
    }

    fn write(&mut self, piece: Piece) -> Result<(), Error> {
        debug_assert_eq!(piece.layout, self.layout, "units come in order");
        self.sha256.update(&piece.csv);
        self.file.rows += piece.rows;
        self.file.csv_bytes += piece.csv.len() as u64;
        self.file.row_md5_sum += piece.sum.total();
        match &mut self.sink {
            Sink::Ready(file) => file.write_all(piece.streams.as_ref().unwrap_or(&piece.csv)),
            Sink::OneStream(encoder) => encoder.write_all(&piece.csv),
        }
        .map_err(self.at())
    }

    fn finish(self) -> Result<SnapshotFile, Error> {
        let at = self.at();
        let file = match self.sink {
            Sink::Ready(file) => file,
            Sink::OneStream(encoder) => encoder.finish().map_err(&at)?,
        };
        let bytes = file.metadata().map_err(&at)?.len();
        let csv_sha256 = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(SnapshotFile { bytes, csv_sha256, ..self.file })
    }
}
