//! A shape of rows: Parquet.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use parquet::{
    basic::{Compression, LogicalType, Repetition, SortOrder, TimeUnit, Type as PhysicalType, ZstdLevel},
    column::{
        reader::{ColumnReader, ColumnReaderImpl},
        writer::ColumnCloseResult,
    },
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, RowGroupMetaData, SortingColumn},
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
        reader::{FileReader, SerializedFileReader},
        serialized_reader::ReadOptionsBuilder,
        statistics::Statistics,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{ColumnPath, Type, TypePtr},
};
use sha2::{Digest as _, Sha256};

use super::{
    How, Made, MadeRows, Old, Part, Shape,
    columns::{Cell, ColumnSource, ColumnType, GROUP, ParquetColumn, ParquetColumns},
    key,
    map::{MapWriter, Place, crc_of},
    not_as_mapped,
    stretch::{Digest, Stretch, Stretches, half},
};
use crate::{
    Error,
    archive::{chains::Chains, composer::with_contents, splice::IndexedArchive},
};

/// The key of the metadata in which a file says what its columns are.
const COLUMNS: &str = "bulk.columns";

/// How many bytes of values are handed over at once: pages are ended between two such batches.
const BATCH: usize = 256 * 1024;

/// The rows of a row group.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) len: usize,
    pub(super) columns: Vec<Values>,
    /// Where the file is that of a type.
    pub(super) groups: Option<Vec<ByteArray>>,
}

/// The values of a column.
pub(super) struct Values {
    /// For each row 1, or 0 where it is null; none where no value can be.
    levels: Option<Vec<i16>>,
    cells: Cells,
}

/// Values that are not null.
enum Cells {
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

impl Values {
    fn new(column: &ParquetColumn) -> Values {
        let cells = match column.kind {
            ColumnType::Bool => Cells::Bool(Vec::new()),
            ColumnType::Date => Cells::Int(Vec::new()),
            ColumnType::Bigint | ColumnType::Timestamp => Cells::Long(Vec::new()),
            ColumnType::Double => Cells::Double(Vec::new()),
            ColumnType::Text | ColumnType::Json => Cells::Bytes(Vec::new()),
        };
        Values { levels: (!column.is_required()).then(Vec::new), cells }
    }

    fn push(&mut self, cell: Option<Cell>) {
        if let Some(levels) = &mut self.levels {
            levels.push(i16::from(cell.is_some()));
        }
        match (&mut self.cells, cell) {
            (Cells::Bool(cells), Some(Cell::Bool(cell))) => cells.push(cell),
            (Cells::Int(cells), Some(Cell::Int(cell))) => cells.push(cell),
            (Cells::Long(cells), Some(Cell::Long(cell))) => cells.push(cell),
            (Cells::Double(cells), Some(Cell::Double(cell))) => cells.push(cell),
            (Cells::Bytes(cells), Some(Cell::Bytes(cell))) => cells.push(cell),
            // A cell is of its column's type.
            _ => {}
        }
    }

    /// Whether the value of a row is this one. `next` is how many before it are not null, and is moved on.
    pub(super) fn is(&self, row: usize, cell: Option<&Cell>, next: &mut usize) -> bool {
        if self.levels.as_ref().is_some_and(|levels| levels[row] == 0) {
            return cell.is_none();
        }
        let at = *next;
        *next += 1;
        match (&self.cells, cell) {
            (Cells::Bool(cells), Some(Cell::Bool(cell))) => cells[at] == *cell,
            (Cells::Int(cells), Some(Cell::Int(cell))) => cells[at] == *cell,
            (Cells::Long(cells), Some(Cell::Long(cell))) => cells[at] == *cell,
            (Cells::Double(cells), Some(Cell::Double(cell))) => cells[at].to_bits() == cell.to_bits(),
            (Cells::Bytes(cells), Some(Cell::Bytes(cell))) => cells[at].data() == cell.data(),
            _ => false,
        }
    }

    fn add_to(&self, sha256: &mut Sha256) {
        for level in self.levels.iter().flatten() {
            sha256.update([u8::from(*level > 0)]);
        }
        match &self.cells {
            Cells::Bool(cells) => cells.iter().for_each(|cell| sha256.update([u8::from(*cell)])),
            Cells::Int(cells) => cells.iter().for_each(|cell| sha256.update(cell.to_le_bytes())),
            Cells::Long(cells) => cells.iter().for_each(|cell| sha256.update(cell.to_le_bytes())),
            Cells::Double(cells) => cells.iter().for_each(|cell| sha256.update(cell.to_le_bytes())),
            Cells::Bytes(cells) => cells.iter().for_each(|cell| {
                sha256.update((cell.len() as u64).to_le_bytes());
                sha256.update(cell.data());
            }),
        }
    }
}

impl Rows {
    fn new(columns: &ParquetColumns) -> Rows {
        Rows { len: 0, columns: columns.columns().iter().map(Values::new).collect(), groups: None }
    }

    /// Adds an item of an archive.
    fn push(&mut self, item: (&str, i64, &[u8]), columns: &ParquetColumns, archive: &str) -> Result<(), Error> {
        self.len += 1;
        let pushed = columns.cells(item, |at, cell| self.columns[at].push(cell));
        pushed.map_err(|(column, value)| Error::Column {
            file: archive.to_owned(),
            id: item.0.to_owned(),
            column,
            value,
        })
    }

    /// What tells them from others.
    fn digest(&self) -> Digest {
        let mut sha256 = Sha256::new();
        sha256.update((self.len as u64).to_le_bytes());
        self.columns.iter().for_each(|values| values.add_to(&mut sha256));
        half(sha256)
    }
}

/// What stands in the columns. That of the group comes last, since the others are copied from files without it.
fn schema(columns: &ParquetColumns, is_whole: bool) -> Result<TypePtr, ParquetError> {
    let column = |name: &str, physical, repetition, logical| {
        let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        Ok::<_, ParquetError>(Arc::new(builder.with_logical_type(logical).build()?))
    };
    let own = |own: &ParquetColumn| {
        let (physical, logical) = match own.kind {
            ColumnType::Bool => (PhysicalType::BOOLEAN, None),
            ColumnType::Bigint => (PhysicalType::INT64, None),
            ColumnType::Double => (PhysicalType::DOUBLE, None),
            ColumnType::Text | ColumnType::Json => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnType::Date => (PhysicalType::INT32, Some(LogicalType::Date)),
            ColumnType::Timestamp => (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        };
        let repetition = if own.is_required() { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        column(&own.name, physical, repetition, logical)
    };
    let mut fields: Vec<_> = columns.columns().iter().map(own).collect::<Result<_, _>>()?;
    if is_whole {
        fields.push(column(GROUP, PhysicalType::BYTE_ARRAY, Repetition::REQUIRED, Some(LogicalType::String))?);
    }
    Ok(Arc::new(Type::group_type_builder("item").with_fields(fields).build()?))
}

fn properties(columns: &ParquetColumns) -> Result<WriterProperties, ParquetError> {
    let path = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let is_id = |column: &ParquetColumn| column.from == ColumnSource::Id && column.kind == ColumnType::Text;
    let sorted = columns.columns().iter().position(is_id).and_then(|at| i32::try_from(at).ok());
    let sorted = sorted.map(|column_idx| vec![SortingColumn { column_idx, descending: false, nulls_first: false }]);
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0) // which all readers have
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_enabled(false) // hardly an id or an item comes twice
        .set_column_dictionary_enabled(path(GROUP), true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_sorting_columns(sorted)
        .set_key_value_metadata(Some(vec![KeyValue::new(COLUMNS.to_owned(), columns.text().to_owned())]))
        .set_created_by(concat!("bulk ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in columns.columns() {
        if column.kind == ColumnType::Json {
            properties = properties.set_column_statistics_enabled(path(&column.name), EnabledStatistics::None);
        }
    }
    Ok(properties.build())
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
    fn new(output: W, columns: &ParquetColumns, is_whole: bool) -> Result<Writer<W>, ParquetError> {
        let sum = Arc::default();
        let tally = Tally { output, sum: Arc::clone(&sum) };
        let mut writer = SerializedFileWriter::new(tally, schema(columns, is_whole)?, Arc::new(properties(columns)?))?;
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
    for Values { levels, cells } in &rows.columns {
        let levels = levels.as_deref();
        match cells {
            Cells::Bool(cells) => put_column::<BoolType>(group, cells, levels, |_| 1)?,
            Cells::Int(cells) => put_column::<Int32Type>(group, cells, levels, |_| 4)?,
            Cells::Long(cells) => put_column::<Int64Type>(group, cells, levels, |_| 8)?,
            Cells::Double(cells) => put_column::<DoubleType>(group, cells, levels, |_| 8)?,
            Cells::Bytes(cells) => put_column::<ByteArrayType>(group, cells, levels, ByteArray::len)?,
        }
    }
    Ok(())
}

/// Writes the column of the group, if there is one.
fn put_group(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    name: Option<&str>,
    rows: usize,
) -> Result<(), ParquetError> {
    let Some(name) = name else { return Ok(()) };
    put_column::<ByteArrayType>(group, &vec![ByteArray::from(name); rows], None, ByteArray::len)
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
    let (mut rest, mut levels) = (values, levels);
    loop {
        // It looks after each batch whether a page is full, so that none is longer than 2 GiB, as it must not be.
        let mut bytes = 0;
        let fit = rest.iter().take_while(|value| {
            let is_first = bytes == 0;
            bytes += len(value) + 4;
            is_first || bytes <= BATCH
        });
        let (batch, others) = rest.split_at(fit.count());
        // The nulls behind these values are of the same batch.
        let mut values = 0;
        let of_batch = levels.map(|all| {
            let is_of_batch = |level: &&i16| {
                values += usize::from(**level > 0);
                values <= batch.len()
            };
            all.split_at(all.iter().take_while(is_of_batch).count())
        });
        typed.write_batch(batch, of_batch.map(|(batch, _)| batch), None)?;
        (rest, levels) = (others, of_batch.map(|(_, others)| others));
        if rest.is_empty() {
            return column.close();
        }
    }
}

pub(super) fn make<'a, A, I, W, X>(
    parts: impl Iterator<Item = Result<Part<'a, A, I>, Error>>,
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
    let failed = |error| failed(how.file, error);
    let mut old = old.map(|old| OldRows::open(old, how.file)).transpose()?;
    let mut writer = Writer::new(output, how.columns, how.is_whole).map_err(failed)?;
    let mut made = Made::default();
    for part in parts {
        let Part { archive: IndexedArchive { mut archive, mut index }, mut member } = part?;
        let name = index.file().to_owned();
        let mark = super::mark(Shape::Parquet, index.recipe().level, how)?;
        let mut stretches = Stretches::new(Shape::Parquet, mark, &mut index);
        let mut own = None;
        while let Some(stretch) = stretches.next()? {
            let key = key(member.as_ref(), &stretch);
            let group = member.as_ref().map(|member| Arc::clone(&member.group));
            let mut known = OldRows::find(&mut old, &key, &stretch.digest, how.file)?;
            if known.is_none()
                && let Some(member) = &mut member
            {
                own = own.or(member.open()?.map(|own| OldRows::open(own, how.file)).transpose()?);
                known = OldRows::find(&mut own, stretch.first_id(), &stretch.digest, how.file)?;
            }
            let (len, crc) = match &known {
                Some((file, from)) => {
                    made.copied += 1;
                    let rows = usize::try_from(from.num_rows()).unwrap_or_default();
                    writer.group(|to| {
                        copy(to, file, from, how.columns).and_then(|()| put_group(to, group.as_deref(), rows))
                    })
                }
                None => {
                    let rows = rows(&stretch, &mut archive, &name, how.columns)?;
                    let (number, content) = (map.count(), rows.digest());
                    made.made += 1;
                    made.rows.push(MadeRows { number, content, group: group.clone() });
                    writer.group(|to| put(to, &rows).and_then(|()| put_group(to, group.as_deref(), rows.len)))
                }
            }
            .map_err(failed)?;
            let place = Place { number: 0, before: 0, len, crc, plain_len: 0, plain_crc: 0 };
            map.add(&key, &stretch.digest, &place)?;
        }
    }
    let tally = writer.writer.into_inner().map_err(failed)?;
    let mut output = tally.output;
    output.flush().map_err(|source| Error::Output { file: how.file.to_owned(), source })?;
    Ok((output, map, made))
}

/// The rows of a stretch.
fn rows(
    stretch: &Stretch,
    archive: &mut (impl Read + Seek),
    name: &str,
    columns: &ParquetColumns,
) -> Result<Rows, Error> {
    let (mut chains, mut rows) = (Chains::behind(name, stretch.first_block()), Rows::new(columns));
    for (block, entries) in &stretch.blocks {
        chains.note(block);
        let plain = chains.inflate(block.number, archive)?;
        for (entry, content) in with_contents(entries) {
            rows.push((&entry.id, entry.mtime, &plain[content]), columns, name)?;
        }
    }
    Ok(rows)
}

/// A file of rows that is there.
struct OldRows {
    old: Old,
    /// With what the footer says of each column of each row group.
    reader: SerializedFileReader<File>,
}

impl OldRows {
    fn open(old: Old, name: &str) -> Result<OldRows, Error> {
        let failed = |source| Error::Io { file: name.to_owned(), offset: None, source };
        let file = old.file.try_clone().map_err(failed)?;
        // Whole, so that what is copied has the same.
        let options = ReadOptionsBuilder::new().with_encoding_stats_as_mask(false).build();
        let reader = SerializedFileReader::new_with_options(file, options).map_err(|_| not_as_mapped(name))?;
        Ok(OldRows { old, reader })
    }

    /// The row group that was made of the same.
    fn find<'a>(
        rows: &'a mut Option<OldRows>,
        key: &str,
        digest: &Digest,
        name: &str,
    ) -> Result<Option<(File, &'a RowGroupMetaData)>, Error> {
        let Some(rows) = rows else { return Ok(None) };
        let Some(place) = rows.old.map.find(key, digest)? else { return Ok(None) };
        let groups = rows.reader.metadata().row_groups();
        let Some(group) = usize::try_from(place.number).ok().and_then(|number| groups.get(number)) else {
            return Err(not_as_mapped(name));
        };
        let io = |source| Error::Io { file: name.to_owned(), offset: None, source };
        let start = super::start(Shape::Parquet, &place).ok_or_else(|| not_as_mapped(name))?;
        if crc_of(&rows.old.file, start, place.len).map_err(|_| not_as_mapped(name))? != Some(place.crc) {
            return Err(not_as_mapped(name));
        }
        Ok(Some((rows.old.file.try_clone().map_err(io)?, group)))
    }
}

/// Copies the columns of a row group as they are, but for that of the group.
fn copy(
    rows: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    file: &File,
    group: &RowGroupMetaData,
    columns: &ParquetColumns,
) -> Result<(), ParquetError> {
    for column in group.columns().iter().take(columns.columns().len()) {
        let mut metadata = column.clone();
        // Of signed numbers, bounds stand in the fields of old readers, too, which is not told when they are read.
        let is_signed = column.column_descr().sort_order() == SortOrder::SIGNED;
        let bounds: Option<Statistics> = match column.statistics() {
            Some(Statistics::Int32(it)) if is_signed => Some(it.clone().with_backwards_compatible_min_max(true).into()),
            Some(Statistics::Int64(it)) if is_signed => Some(it.clone().with_backwards_compatible_min_max(true).into()),
            Some(Statistics::Double(it)) if is_signed => {
                Some(it.clone().with_backwards_compatible_min_max(true).into())
            }
            _ => None,
        };
        if let Some(bounds) = bounds {
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

/// Reads a row group. `is_whole`: of the file of a type.
pub(super) fn read(
    reader: &SerializedFileReader<File>,
    number: usize,
    columns: &ParquetColumns,
    is_whole: bool,
) -> Result<Rows, ParquetError> {
    let group = reader.get_row_group(number)?;
    let len = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
    let other = || ParquetError::General("it has other columns".to_owned());
    let count = columns.columns().len();
    if group.num_columns() != count + usize::from(is_whole) {
        return Err(other());
    }
    let mut rows = Rows::new(columns);
    rows.len = len;
    for (at, Values { levels, cells }) in rows.columns.iter_mut().enumerate() {
        match (cells, group.get_column_reader(at)?) {
            (Cells::Bool(cells), ColumnReader::BoolColumnReader(reader)) => read_column(reader, len, levels, cells)?,
            (Cells::Int(cells), ColumnReader::Int32ColumnReader(reader)) => read_column(reader, len, levels, cells)?,
            (Cells::Long(cells), ColumnReader::Int64ColumnReader(reader)) => read_column(reader, len, levels, cells)?,
            (Cells::Double(cells), ColumnReader::DoubleColumnReader(reader)) => {
                read_column(reader, len, levels, cells)?;
            }
            (Cells::Bytes(cells), ColumnReader::ByteArrayColumnReader(reader)) => {
                read_column(reader, len, levels, cells)?;
            }
            _ => return Err(other()),
        }
    }
    if is_whole {
        let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(count)? else { return Err(other()) };
        let mut groups = Vec::new();
        read_column(reader, len, &mut None, &mut groups)?;
        rows.groups = Some(groups);
    }
    Ok(rows)
}

fn read_column<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    len: usize,
    levels: &mut Option<Vec<i16>>,
    cells: &mut Vec<T::T>,
) -> Result<(), ParquetError> {
    let mut read = 0;
    while read < len {
        match reader.read_records(len - read, levels.as_mut(), None, cells)?.0 {
            0 => break,
            records => read += records,
        }
    }
    let values = levels.as_ref().map_or(len, |levels| levels.iter().filter(|level| **level > 0).count());
    let is_whole = read == len && cells.len() == values && levels.as_ref().is_none_or(|levels| levels.len() == len);
    if is_whole { Ok(()) } else { Err(ParquetError::General("a column is cut short".to_owned())) }
}

/// What a file says that its columns are.
pub(crate) fn columns_of(reader: &SerializedFileReader<File>) -> Option<ParquetColumns> {
    let metadata = reader.metadata().file_metadata().key_value_metadata()?;
    let text = metadata.iter().find(|pair| pair.key == COLUMNS)?.value.as_deref()?;
    ParquetColumns::parse(text)
}

/// Opens a file of rows to read it.
pub(crate) fn open(path: &Path) -> Result<SerializedFileReader<File>, Error> {
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
pub(crate) fn check(path: &Path, made: &[MadeRows], columns: &ParquetColumns) -> Result<(), Error> {
    let name = path.display().to_string();
    let reader = open(path)?;
    for MadeRows { number, content, group } in made {
        let number = usize::try_from(*number).unwrap_or(usize::MAX);
        let rows = read(&reader, number, columns, group.is_some()).map_err(|error| unreadable(&name, &error))?;
        let is_of_group = |name: &ByteArray| group.as_ref().is_some_and(|group| name.data() == group.as_bytes());
        if rows.digest() != *content || !rows.groups.iter().flatten().all(is_of_group) {
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
    let column = |name: &str, kind, from| {
        let mut column = ParquetColumn::new(name, kind);
        column.from = from;
        column
    };
    // A column of each type, and nulls.
    let columns = [
        column("id", ColumnType::Text, ColumnSource::Id),
        column("json", ColumnType::Json, ColumnSource::Item),
        ParquetColumn::new("bool", ColumnType::Bool),
        ParquetColumn::new("bigint", ColumnType::Bigint),
        ParquetColumn::new("double", ColumnType::Double),
        ParquetColumn::new("date", ColumnType::Date),
        ParquetColumn::new("timestamp", ColumnType::Timestamp),
        ParquetColumn::new("text", ColumnType::Text),
    ];
    let columns = ParquetColumns::new(columns.into()).map_err(io::Error::other)?;
    let mut rows = Rows::new(&columns);
    for (number, sample) in (0i32..).zip(samples.chunks(1000)) {
        rows.len += 1;
        let text = || Cell::Bytes(number.to_string().as_str().into());
        let cells = [
            text(),
            Cell::Bytes(sample.to_vec().into()),
            Cell::Bool(number % 3 == 0),
            Cell::Long(i64::from(number) * 7919),
            Cell::Double(f64::from(number) / 7.0),
            Cell::Int(number),
            Cell::Long(i64::from(number) * 1_000_000),
            text(),
        ];
        for (values, cell) in rows.columns.iter_mut().zip(cells) {
            let is_null = values.levels.is_some() && number % 7 == 0;
            values.push((!is_null).then_some(cell));
        }
    }
    let written = || {
        let mut writer = Writer::new(Vec::new(), &columns, false)?;
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
