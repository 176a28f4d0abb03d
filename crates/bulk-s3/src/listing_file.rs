//! Listings that stand in files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use bulk_core::{StageMeter, WorkerMeter};
use flate2::bufread::MultiGzDecoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::lister::interrupted;
use crate::object_sorter::Sorter;
use crate::pager::{Pager, Selection, Stop};
#[cfg(feature = "parquet")]
use crate::rows::ParquetReader;
use crate::rows::{CsvReader, NdjsonReader};
use crate::{Batch, Error, KeyFilter, KeyRange, ObjectReader, Page};

/// What of the listing in files is wanted, and how they are read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileListOptions {
    /// What keys begin with. Default: nothing.
    pub prefix: String,
    /// Which stretches of the key space; they may not overlap. Default: all of it.
    pub ranges: Vec<KeyRange>,
    /// Which keys are wanted; the others are counted. Default: all.
    pub filter: KeyFilter,
    /// The bucket whose rows are wanted, where rows tell theirs. Default none: all rows.
    pub bucket: Option<String>,
    /// In what order the rows stand. Default any.
    pub order: RowOrder,
    /// Where temporary files are made, if rows have to be sorted that memory should not hold. Default: the system's folder
    /// for such files.
    pub folder: PathBuf,
    /// The meter of this stage, whose worker is the thread that reads and sorts. Its items are keys. Default none.
    pub meter: Option<StageMeter>,
}

impl Default for FileListOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            ranges: vec![KeyRange::all()],
            filter: KeyFilter::all(),
            bucket: None,
            order: RowOrder::Any,
            folder: std::env::temp_dir(),
            meter: None,
        }
    }
}

/// In what order the rows of files stand, from the first row of the first file to the last row of the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowOrder {
    /// Nobody knows. The files are read up to the first row that is out of order, and then once more: as they are if there
    /// is none, else to be sorted.
    #[default]
    Any,
    /// That of the bytes of their keys, each key once. Files are read once, and it is an error if it is not so.
    Sorted,
}

/// Reads a listing from files, such as [`NdjsonWriter`](crate::NdjsonWriter), [`CsvWriter`](crate::CsvWriter) or
/// `ParquetWriter` write them, as [`Bucket::pages`](crate::Bucket::pages) would have brought it: what
/// [`diff_pages`](crate::diff_pages) takes. What a file is, its content says: Parquet (feature `parquet`), NDJSON or CSV,
/// the latter two also compressed with gzip. A file without a byte is NDJSON, unless its name ends with `.csv`.
///
/// Pages come in the order of keys, and each stretch that is asked for is a lane. Rows that are not in order are sorted, in
/// memory up to 32 MiB, and beyond that in temporary files that vanish with the process: about 100 bytes and the key for
/// each object that is wanted. Then the keys that the filter leaves out are counted to the first page of their stretch.
/// Rows that are wholly the same count once.
///
/// Files are read on a thread of the caller's tokio runtime, ahead of the reader by a few pages. Dropping the stream stops
/// it.
///
/// # Errors
///
/// An item that is an error is the last one: [`Error::Table`] for files that cannot be used, that are not in the order that
/// they were said to be in, or that have a key twice with different properties; [`Error::Spool`] if the disk refuses.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn file_pages<P: Into<PathBuf>>(
    files: impl IntoIterator<Item = P>,
    options: FileListOptions,
) -> BoxStream<'static, Result<Page, Error>> {
    let files: Vec<PathBuf> = files.into_iter().map(Into::into).collect();
    let location = name(&files);
    on_thread(location, move |sender| {
        let selection = Selection::new(options.prefix, options.filter, options.ranges);
        let meter = options.meter.as_ref().map(StageMeter::worker);
        let rows = Rows { files: &files, bucket: options.bucket.as_deref(), sender, meter: meter.as_ref() };
        if options.order == RowOrder::Sorted || rows.are_sorted()? {
            return rows.page(&selection);
        }
        let mut collection = Collection::new(&selection, &options.folder);
        rows.each(|batch| collection.add(batch).map_err(Stop::from))?;
        collection.page(&name(&files), sender, meter.as_ref())
    })
}

fn name(files: &[PathBuf]) -> String {
    match files {
        [] => "no files".to_owned(),
        [file] => file.display().to_string(),
        [file, rest @ ..] => format!("{} and {} more", file.display(), rest.len()),
    }
}

/// Makes pages on a thread that may wait for the disk.
pub(crate) fn on_thread(
    location: String,
    work: impl FnOnce(&mpsc::Sender<Result<Page, Error>>) -> Result<(), Stop> + Send + 'static,
) -> BoxStream<'static, Result<Page, Error>> {
    let (sender, pages) = mpsc::channel(2);
    let task = tokio::task::spawn_blocking(move || {
        if let Err(Stop::Failed(error)) = work(&sender) {
            // If nobody reads any more, nobody misses it.
            let _ = sender.blocking_send(Err(error));
        }
    });
    let state = Some((pages, task, location));
    let stream = futures::stream::unfold(state, |state| async move {
        let (mut pages, task, location) = state?;
        match pages.recv().await {
            Some(Ok(page)) => Some((Ok(page), Some((pages, task, location)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => match task.await.map_err(tokio::task::JoinError::try_into_panic) {
                Ok(()) => None,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Err(Err(_)) => Some((Err(interrupted(&location)), None)),
            },
        }
    });
    stream.boxed()
}

/// Rows that are read at a time.
const BATCH: usize = 1024;

/// Reads all of a reader.
pub(crate) fn each_batch(
    mut reader: Box<dyn ObjectReader>,
    sender: &mpsc::Sender<Result<Page, Error>>,
    mut take: impl FnMut(&Batch) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut batch = Batch::new();
    loop {
        if sender.is_closed() {
            return Err(Stop::Dropped);
        }
        batch.clear();
        reader.read(&mut batch, BATCH)?;
        if batch.is_empty() {
            return Ok(());
        }
        take(&batch)?;
    }
}

struct Rows<'a> {
    files: &'a [PathBuf],
    bucket: Option<&'a str>,
    sender: &'a mpsc::Sender<Result<Page, Error>>,
    meter: Option<&'a WorkerMeter>,
}

impl Rows<'_> {
    fn each(&self, mut take: impl FnMut(&Batch) -> Result<(), Stop>) -> Result<(), Stop> {
        self.files.iter().try_for_each(|file| each_batch(open_objects(file, self.bucket)?, self.sender, &mut take))
    }

    /// Whether each key sorts behind the one before it.
    fn are_sorted(&self) -> Result<bool, Stop> {
        let mut last: Option<String> = None;
        for file in self.files {
            let mut reader = open_objects(file, self.bucket)?;
            let mut batch = Batch::new();
            loop {
                if self.sender.is_closed() {
                    return Err(Stop::Dropped);
                }
                batch.clear();
                reader.read(&mut batch, BATCH)?;
                let Some(end) = batch.last() else { break };
                let keys = || batch.iter().map(|object| object.key);
                let is_behind = last.as_deref().is_none_or(|last| keys().next().is_some_and(|first| first > last));
                if !is_behind || !keys().is_sorted_by(|before, key| before < key) {
                    return Ok(false);
                }
                let last = last.get_or_insert_default();
                last.clear();
                last.push_str(end.key);
            }
        }
        Ok(true)
    }

    /// Makes pages of rows that are in order.
    fn page(&self, selection: &Selection) -> Result<(), Stop> {
        let mut pager = Pager::new(selection, self.sender, self.meter);
        let mut last: Option<String> = None;
        for file in self.files {
            each_batch(open_objects(file, self.bucket)?, self.sender, |batch| {
                for object in batch.iter() {
                    if let Some(last) = last.as_deref().filter(|last| *last >= object.key) {
                        let what =
                            format!("it is not in the order of its keys: {:?} comes behind {last:?}", object.key);
                        return Err(table(&file.display().to_string(), what, None).into());
                    }
                    let last = last.get_or_insert_default();
                    last.clear();
                    last.push_str(object.key);
                    if let Some((place, is_meant)) = selection.find(object.key) {
                        pager.push(place, object, is_meant)?;
                    }
                }
                Ok(())
            })?;
        }
        pager.finish()
    }
}

/// Objects in any order.
pub(crate) struct Collection<'a> {
    selection: &'a Selection,
    sorter: Sorter,
    /// For each stretch, how many keys the filter leaves out.
    left_out: Vec<u64>,
}

impl<'a> Collection<'a> {
    /// Nothing yet. Temporary files will be in `folder`.
    pub(crate) fn new(selection: &'a Selection, folder: &Path) -> Self {
        Self { selection, sorter: Sorter::new(folder), left_out: vec![0; selection.ranges()] }
    }

    /// Takes what is asked for.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        for object in batch.iter() {
            match self.selection.find(object.key) {
                Some((_, true)) => self.sorter.push(object)?,
                Some((place, false)) => self.left_out[place] += 1,
                None => {}
            }
        }
        Ok(())
    }

    /// Makes pages. `name` is what the objects were read from.
    pub(crate) fn page(
        self,
        name: &str,
        sender: &mpsc::Sender<Result<Page, Error>>,
        meter: Option<&WorkerMeter>,
    ) -> Result<(), Stop> {
        let mut pager = Pager::new(self.selection, sender, meter);
        let mut left_out = self.left_out.into_iter().enumerate().peekable();
        let mut sorted = self.sorter.finish()?;
        let (mut batch, mut last) = (Batch::new(), Batch::new());
        loop {
            if sender.is_closed() {
                return Err(Stop::Dropped);
            }
            batch.clear();
            sorted.read(&mut batch, BATCH)?;
            if batch.is_empty() {
                break;
            }
            for object in batch.iter() {
                if let Some(last) = last.last().filter(|last| last.key == object.key) {
                    if last == object {
                        continue;
                    }
                    let what = format!("the key {:?} stands in it twice, with different properties", object.key);
                    return Err(table(name, what, None).into());
                }
                last.clear();
                last.push(object);
                let Some((place, _)) = self.selection.find(object.key) else { continue };
                while let Some((before, keys)) = left_out.next_if(|(before, _)| *before <= place) {
                    pager.count(before, keys)?;
                }
                pager.push(place, object, true)?;
            }
        }
        left_out.try_for_each(|(place, keys)| pager.count(place, keys))?;
        pager.finish()
    }
}

#[cold]
pub(crate) fn table(file: &str, what: impl Into<String>, source: Option<io::Error>) -> Error {
    let source = source.map(|error| Box::new(error) as _);
    Error::Table { file: file.to_owned(), row: None, byte: None, what: what.into(), source }
}

/// Opens a file of objects, whatever its format: its content tells, as it does for [`file_pages`]. Of rows that tell their
/// bucket those of `bucket` are read; none: all.
///
/// # Errors
///
/// [`Error::Table`] if it cannot be read, or is of none of those formats.
pub fn open_objects(path: &Path, bucket: Option<&str>) -> Result<Box<dyn ObjectReader>, Error> {
    let name = path.display().to_string();
    let failed = |error| table(&name, "it cannot be read", Some(error));
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    file.by_ref().take(6).read_to_end(&mut head).map_err(failed)?;
    file.rewind().map_err(failed)?;
    match head.as_slice() {
        [b'P', b'A', b'R', b'1', ..] => open_parquet(path, bucket, &name),
        [0x1f, 0x8b, ..] => rows(&name, MultiGzDecoder::new(BufReader::with_capacity(64 << 10, file)), bucket),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(no_codec(&name, "zstd")),
        [b'B', b'Z', b'h', ..] => Err(no_codec(&name, "bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(no_codec(&name, "xz")),
        _ => rows(&name, file, bucket),
    }
}

#[cfg(feature = "parquet")]
fn open_parquet(path: &Path, bucket: Option<&str>, _: &str) -> Result<Box<dyn ObjectReader>, Error> {
    Ok(Box::new(ParquetReader::open(path, bucket)?))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(_: &Path, _: Option<&str>, name: &str) -> Result<Box<dyn ObjectReader>, Error> {
    Err(table(name, "it is a Parquet file, and this program was built without the feature parquet", None))
}

#[cold]
fn no_codec(name: &str, codec: &str) -> Error {
    let what = format!(
        "it is compressed with {codec}, and listings are read plain or compressed with gzip: decompress it first"
    );
    table(name, what, None)
}

/// A reader of NDJSON or CSV.
fn rows(name: &str, input: impl Read + Send + 'static, bucket: Option<&str>) -> Result<Box<dyn ObjectReader>, Error> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let head = input.fill_buf().map_err(|error| table(name, "it cannot be read", Some(error)))?;
    let text = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head).trim_ascii_start();
    let is_csv = match text.first() {
        Some(first) => *first != b'{',
        None => name.strip_suffix(".gz").unwrap_or(name).ends_with(".csv"),
    };
    if is_csv {
        return Ok(Box::new(CsvReader::new(name, input, bucket)?));
    }
    Ok(Box::new(NdjsonReader::new(name, input, bucket)))
}
