//! A shape of rows: Parquet.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel},
    column::{reader::ColumnReader, writer::ColumnCloseResult},
    data_type::{ByteArray, ByteArrayType, DataType, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{RowGroupMetaData, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
        reader::{FileReader, SerializedFileReader},
        serialized_reader::ReadOptionsBuilder,
        statistics::Statistics,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{ColumnPath, Type, TypePtr},
};

use super::{
    How, Made, Old, Shape,
    map::{MapWriter, Place},
    not_as_mapped,
    stretch::{Digest, Stretch, Stretches, digest_of_rows},
};
use crate::{
    Error,
    archive::{chains::Chains, composer::with_contents, splice::IndexedArchive},
};

/// How many bytes of values are handed over at once: pages are ended between two such batches.
const BATCH: usize = 256 * 1024;

/// A time as the column has it; none where it cannot.
pub(super) fn millis(mtime: i64) -> Option<i64> {
    mtime.checked_mul(1000)
}

/// The rows of a row group.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) ids: Vec<ByteArray>,
    pub(super) modified: Vec<Option<i64>>,
    pub(super) json: Vec<ByteArray>,
}

impl Rows {
    fn digest(&self) -> Option<Digest> {
        let ids: Vec<&str> = self.ids.iter().map(|id| str::from_utf8(id.data()).ok()).collect::<Option<_>>()?;
        let rows = ids.iter().zip(&self.modified).zip(&self.json);
        Some(digest_of_rows(rows.map(|((id, modified), json)| (*id, *modified, json.data()))))
    }
}

fn schema() -> Result<TypePtr, ParquetError> {
    let column = |name: &str, physical, repetition, logical| {
        let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        Ok::<_, ParquetError>(Arc::new(builder.with_logical_type(Some(logical)).build()?))
    };
    let time = LogicalType::timestamp(true, TimeUnit::MILLIS);
    let fields = vec![
        column("id", PhysicalType::BYTE_ARRAY, Repetition::REQUIRED, LogicalType::String)?,
        column("modified", PhysicalType::INT64, Repetition::OPTIONAL, time)?,
        // Not as the logical type JSON, which not all readers know.
        column("json", PhysicalType::BYTE_ARRAY, Repetition::REQUIRED, LogicalType::String)?,
    ];
    Ok(Arc::new(Type::group_type_builder("item").with_fields(fields).build()?))
}

fn properties() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0) // which all readers have
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_enabled(false) // hardly a value comes twice
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_statistics_enabled(ColumnPath::from("json"), EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]))
        .set_created_by(concat!("bulk ", env!("CARGO_PKG_VERSION")).to_owned())
        .build())
}

/// Counts and sums up what is written.
struct Tally<W> {
    output: W,
    sum: Arc<Mutex<(u64, crc32fast::Hasher)>>,
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.0 += written as u64;
        sum.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Writes row groups, and tells of each how long it is and what its CRC is.
struct Writer<W: Write> {
    writer: SerializedFileWriter<Tally<W>>,
    sum: Arc<Mutex<(u64, crc32fast::Hasher)>>,
}

impl<W: Write + Send> Writer<W> {
    fn new(output: W) -> Result<Writer<W>, ParquetError> {
        let sum = Arc::default();
        let tally = Tally { output, sum: Arc::clone(&sum) };
        let mut writer = SerializedFileWriter::new(tally, schema()?, Arc::new(properties()?))?;
        writer.flush()?;
        Ok(Writer { writer, sum })
    }

    fn group(
        &mut self,
        fill: impl FnOnce(&mut SerializedRowGroupWriter<'_, Tally<W>>) -> Result<(), ParquetError>,
    ) -> Result<(u64, u32), ParquetError> {
        *self.sum.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
        let mut group = self.writer.next_row_group()?;
        fill(&mut group)?;
        group.close()?;
        self.writer.flush()?;
        let sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((sum.0, sum.1.clone().finalize()))
    }
}

fn put(group: &mut SerializedRowGroupWriter<'_, impl Write + Send>, rows: &Rows) -> Result<(), ParquetError> {
    put_column::<ByteArrayType>(group, &rows.ids, None, ByteArray::len)?;
    let levels: Vec<i16> = rows.modified.iter().map(|time| i16::from(time.is_some())).collect();
    let times: Vec<i64> = rows.modified.iter().flatten().copied().collect();
    put_column::<Int64Type>(group, &times, Some(&levels), |_| 0)?;
    put_column::<ByteArrayType>(group, &rows.json, None, ByteArray::len)
}

fn put_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: &[T::T],
    levels: Option<&[i16]>,
    len: impl Fn(&T::T) -> usize,
) -> Result<(), ParquetError> {
    let column = group.next_column()?;
    let mut column = column.ok_or_else(|| ParquetError::General("a row group has too few columns".to_owned()))?;
    let typed = column.typed::<T>();
    let mut rest = values;
    loop {
        // It looks after each batch whether a page is full, so that none is longer than 2 GiB, as it must not be.
        let mut bytes = 0;
        let fit = rest.iter().take_while(|value| {
            let is_first = bytes == 0;
            bytes += len(value) + 4;
            is_first || bytes <= BATCH
        });
        let some = if levels.is_some() { rest.len() } else { fit.count() };
        let (batch, others) = rest.split_at(some);
        typed.write_batch(batch, levels, None)?;
        rest = others;
        if rest.is_empty() {
            return column.close();
        }
    }
}

pub(super) fn make<A, I, W, X>(
    archive: IndexedArchive<A, I>,
    old: Option<Old>,
    output: W,
    mut map: MapWriter<X>,
    how: &How<'_>,
) -> Result<(W, MapWriter<X>, Made), Error>
where
    A: Read + Seek,
    I: Read + Seek,
    W: Write + Send,
    X: Write,
{
    let IndexedArchive { mut archive, mut index } = archive;
    let name = index.file().to_owned();
    let failed = |error| failed(how.file, error);
    let mut old = old.map(|old| OldRows::open(old, how.file)).transpose()?;
    let mut stretches = Stretches::new(Shape::Parquet, &mut index);
    let mut writer = Writer::new(output).map_err(failed)?;
    let mut made = Made::default();
    while let Some(stretch) = stretches.next()? {
        let first_id = stretch.first_id().to_owned();
        let known = match &mut old {
            Some(old) => old.find(&stretch, how.file)?,
            None => None,
        };
        let (len, crc) = match &known {
            Some((file, group)) => {
                made.copied += 1;
                writer.group(|rows| copy(rows, file, group)).map_err(failed)?
            }
            None => {
                made.made.push((map.count(), stretch.digest));
                let rows = rows(&stretch, &mut archive, &name)?;
                writer.group(|group| put(group, &rows)).map_err(failed)?
            }
        };
        let place = Place { number: 0, before: 0, len, crc, plain_len: 0, plain_crc: 0 };
        map.add(&first_id, &stretch.digest, &place)?;
    }
    let tally = writer.writer.into_inner().map_err(failed)?;
    let mut output = tally.output;
    output.flush().map_err(|source| Error::Output { file: how.file.to_owned(), source })?;
    Ok((output, map, made))
}

/// The rows of a stretch.
fn rows(stretch: &Stretch, archive: &mut (impl Read + Seek), name: &str) -> Result<Rows, Error> {
    let (mut chains, mut rows) = (Chains::behind(name, stretch.first_block()), Rows::default());
    for (block, entries) in &stretch.blocks {
        chains.note(block);
        let plain = chains.inflate(block.number, archive)?;
        for (entry, content) in with_contents(entries) {
            rows.ids.push(entry.id.as_str().into());
            rows.modified.push(millis(entry.mtime));
            rows.json.push(plain[content].to_vec().into());
        }
    }
    Ok(rows)
}

/// A file of rows that is there.
struct OldRows {
    old: Old,
    groups: Vec<RowGroupMetaData>,
}

impl OldRows {
    fn open(old: Old, name: &str) -> Result<OldRows, Error> {
        let failed = |source| Error::Io { file: name.to_owned(), offset: None, source };
        let file = old.file.try_clone().map_err(failed)?;
        // Whole, so that what is copied has the same.
        let options = ReadOptionsBuilder::new().with_encoding_stats_as_mask(false).build();
        let reader = SerializedFileReader::new_with_options(file, options).map_err(|_| not_as_mapped(name))?;
        let groups = reader.metadata().row_groups().to_vec();
        Ok(OldRows { old, groups })
    }

    /// The row group that was made of the same.
    fn find(&mut self, stretch: &Stretch, name: &str) -> Result<Option<(File, RowGroupMetaData)>, Error> {
        let Some(place) = self.old.map.find(stretch.first_id(), &stretch.digest)? else { return Ok(None) };
        let Some(group) = usize::try_from(place.number).ok().and_then(|number| self.groups.get(number)) else {
            return Err(not_as_mapped(name));
        };
        let io = |source| Error::Io { file: name.to_owned(), offset: None, source };
        // Row groups stand one behind another, behind the magic number.
        let (mut at, end) = (4 + place.before, 4 + place.before + place.len);
        let (mut crc, mut buffer) = (crc32fast::Hasher::new(), vec![0; 128 * 1024]);
        while at < end {
            let some = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            self.old.file.read_exact_at(&mut buffer[..some], at).map_err(|_| not_as_mapped(name))?;
            crc.update(&buffer[..some]);
            at += some as u64;
        }
        if crc.finalize() != place.crc {
            return Err(not_as_mapped(name));
        }
        Ok(Some((self.old.file.try_clone().map_err(io)?, group.clone())))
    }
}

/// Copies the columns of a row group as they are.
fn copy(
    rows: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    file: &File,
    group: &RowGroupMetaData,
) -> Result<(), ParquetError> {
    for column in group.columns() {
        let mut metadata = column.clone();
        // Of numbers, bounds stand in the fields of old readers, too, which is not told when they are read.
        if let Some(Statistics::Int64(bounds)) = column.statistics() {
            let bounds = Statistics::Int64(bounds.clone().with_backwards_compatible_min_max(true));
            metadata = metadata.into_builder().set_statistics(bounds).build()?;
        }
        let close = ColumnCloseResult {
            bytes_written: u64::try_from(column.compressed_size()).unwrap_or_default(),
            rows_written: u64::try_from(group.num_rows()).unwrap_or_default(),
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        rows.append_column(file, close)?;
    }
    Ok(())
}

/// Reads a row group.
pub(super) fn read(reader: &SerializedFileReader<File>, number: usize) -> Result<Rows, ParquetError> {
    let group = reader.get_row_group(number)?;
    let count = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
    let other = || ParquetError::General("it has other columns".to_owned());
    let bytes = |at| -> Result<Vec<ByteArray>, ParquetError> {
        let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(at)? else { return Err(other()) };
        let mut values = Vec::new();
        while column.read_records(count - values.len().min(count), None, None, &mut values)?.0 > 0 {}
        Ok(values)
    };
    if group.num_columns() != 3 {
        return Err(other());
    }
    let ColumnReader::Int64ColumnReader(mut column) = group.get_column_reader(1)? else { return Err(other()) };
    let (mut levels, mut times) = (Vec::new(), Vec::new());
    while column.read_records(count - levels.len().min(count), Some(&mut levels), None, &mut times)?.0 > 0 {}
    let mut times = times.into_iter();
    let modified = levels.iter().map(|&level| if level > 0 { times.next() } else { None }).collect::<Vec<_>>();
    let rows = Rows { ids: bytes(0)?, modified, json: bytes(2)? };
    let is_whole = [rows.ids.len(), rows.modified.len(), rows.json.len()] == [count; 3];
    if is_whole { Ok(rows) } else { Err(ParquetError::General("a column is cut short".to_owned())) }
}

/// Opens a file of rows to read it.
pub(super) fn open(path: &Path) -> Result<SerializedFileReader<File>, Error> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| Error::Io { file: name.clone(), offset: None, source })?;
    SerializedFileReader::new(file).map_err(|error| unreadable(&name, &error))
}

pub(super) fn unreadable(file: &str, error: &ParquetError) -> Error {
    Error::Set { file: file.to_owned(), reason: format!("it cannot be read as Parquet: {error}") }
}

/// Reads row groups, and compares them with what they were made of.
///
/// # Errors
/// [`Error::Set`] where they differ; [`Error::Io`].
pub(crate) fn check(path: &Path, groups: &[(u64, Digest)]) -> Result<(), Error> {
    let name = path.display().to_string();
    let reader = open(path)?;
    for (number, digest) in groups {
        let number = usize::try_from(*number).unwrap_or(usize::MAX);
        let rows = read(&reader, number).map_err(|error| unreadable(&name, &error))?;
        if rows.digest() != Some(*digest) {
            let reason = format!("its row group {number} is not what was written");
            return Err(Error::Set { file: name, reason });
        }
    }
    Ok(())
}

/// A mark of how this version of the library writes: the CRC of a file of samples.
pub(super) fn mark() -> io::Result<u32> {
    static MARK: OnceLock<u32> = OnceLock::new();
    if let Some(&mark) = MARK.get() {
        return Ok(mark);
    }
    let samples = crate::archive::deflate::samples();
    let mut rows = Rows::default();
    for (number, sample) in samples.chunks(1000).enumerate() {
        rows.ids.push(number.to_string().as_str().into());
        rows.modified.push((number % 7 > 0).then_some(number as i64 * 1000));
        rows.json.push(sample.to_vec().into());
    }
    let written = || {
        let mut writer = Writer::new(Vec::new())?;
        writer.group(|group| put(group, &rows))?;
        writer.writer.into_inner()
    };
    let mark = crc32fast::hash(&written().map_err(io::Error::other)?.output);
    Ok(*MARK.get_or_init(|| mark))
}

fn failed(file: &str, error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    };
    Error::Output { file: file.to_owned(), source }
}
