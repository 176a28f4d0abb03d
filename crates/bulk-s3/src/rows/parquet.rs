use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use super::{COLUMNS, ObjectReader, ObjectWriter, check_names, check_versions, other_bucket, unhex};
use crate::{Batch, Error, ObjectRef};

/// Writes objects as Parquet: the columns `bucket` and `key` (required strings), `etag` (string), `size` (int64),
/// `last_modified` (timestamp of microseconds, UTC) and `content` (32 bytes), compressed by zstd. A row group has 131,072
/// rows, or fewer if their keys are long: memory is bounded by one, some tens of megabytes.
#[derive(Debug)]
pub struct ParquetWriter<W: Write + Send> {
    file: String,
    writer: SerializedFileWriter<W>,
    bucket: String,
    group: Batch,
    /// Bytes of the group's texts.
    text: usize,
}

const GROUP_ROWS: usize = 128 << 10;
const GROUP_BYTES: usize = 32 << 20;

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a file. `file` names the output in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Table`].
    pub fn new(file: &str, output: W, bucket: &str) -> Result<Self, Error> {
        let begin = || {
            let properties = WriterProperties::builder()
                .set_writer_version(WriterVersion::PARQUET_1_0) // which all readers have
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                .set_created_by(concat!("bulk ", env!("CARGO_PKG_VERSION")).to_owned());
            SerializedFileWriter::new(output, schema()?, Arc::new(properties.build()))
        };
        let writer = begin().map_err(|error| failed(file, "it cannot be written", error))?;
        Ok(Self { file: file.to_owned(), writer, bucket: bucket.to_owned(), group: Batch::new(), text: 0 })
    }

    fn end_group(&mut self) -> Result<(), Error> {
        let Self { file, writer, bucket, group, text } = self;
        if group.is_empty() {
            return Ok(());
        }
        let mut sizes = Vec::with_capacity(group.len());
        for object in group.iter() {
            sizes.push(object.size.map(i64::try_from).transpose().map_err(|_| {
                let what = format!("an object's size is more than int64 can hold: {:?}", object.key);
                Error::Table { file: file.clone(), row: None, byte: None, what, source: None }
            })?);
        }
        let written = write_group(writer, bucket, group, sizes);
        written.map_err(|error| failed(file, "it cannot be written", error))?;
        group.clear();
        *text = 0;
        Ok(())
    }
}

fn schema() -> Result<TypePtr, ParquetError> {
    let column = |name: &str, physical, repetition, logical| {
        let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        Ok::<_, ParquetError>(Arc::new(builder.with_logical_type(logical).build()?))
    };
    let content = Type::primitive_type_builder("content", PhysicalType::FIXED_LEN_BYTE_ARRAY);
    let time = LogicalType::timestamp(true, TimeUnit::MICROS);
    let fields = vec![
        column("bucket", PhysicalType::BYTE_ARRAY, Repetition::REQUIRED, Some(LogicalType::String))?,
        column("key", PhysicalType::BYTE_ARRAY, Repetition::REQUIRED, Some(LogicalType::String))?,
        column("etag", PhysicalType::BYTE_ARRAY, Repetition::OPTIONAL, Some(LogicalType::String))?,
        column("size", PhysicalType::INT64, Repetition::OPTIONAL, None)?,
        column("last_modified", PhysicalType::INT64, Repetition::OPTIONAL, Some(time))?,
        Arc::new(content.with_repetition(Repetition::OPTIONAL).with_length(32).build()?),
    ];
    Ok(Arc::new(Type::group_type_builder("object").with_fields(fields).build()?))
}

fn write_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    bucket: &str,
    group: &Batch,
    sizes: Vec<Option<i64>>,
) -> Result<(), ParquetError> {
    let mut rows = writer.next_row_group()?;
    let objects = || group.iter();
    let mut put = Columns(&mut rows);
    let bucket = ByteArray::from(bucket);
    put.required(vec![bucket; group.len()])?;
    put.required(objects().map(|object| ByteArray::from(object.key)).collect())?;
    put.optional::<ByteArrayType>(objects().map(|object| object.etag.map(ByteArray::from)))?;
    put.optional::<Int64Type>(sizes.into_iter())?;
    put.optional::<Int64Type>(objects().map(|object| object.last_modified.map(Timestamp::as_microsecond)))?;
    let content = |content: [u8; 32]| FixedLenByteArray::from(content.to_vec());
    put.optional::<FixedLenByteArrayType>(objects().map(|object| object.content.map(content)))?;
    rows.close().map(drop)
}

/// Writes the columns of a row group, one after the other.
struct Columns<'a, 'b, W: Write>(&'a mut parquet::file::writer::SerializedRowGroupWriter<'b, W>);

impl<W: Write + Send> Columns<'_, '_, W> {
    fn required(&mut self, values: Vec<ByteArray>) -> Result<(), ParquetError> {
        self.put::<ByteArrayType>(&values, None)
    }

    fn optional<T: DataType>(&mut self, values: impl Iterator<Item = Option<T::T>>) -> Result<(), ParquetError> {
        let (mut levels, mut there) = (Vec::new(), Vec::new());
        for value in values {
            levels.push(i16::from(value.is_some()));
            there.extend(value);
        }
        self.put::<T>(&there, Some(&levels))
    }

    fn put<T: DataType>(&mut self, values: &[T::T], levels: Option<&[i16]>) -> Result<(), ParquetError> {
        let column = self.0.next_column()?;
        let mut column = column.ok_or_else(|| ParquetError::General("a row group has too few columns".to_owned()))?;
        column.typed::<T>().write_batch(values, levels, None)?;
        column.close()
    }
}

impl<W: Write + Send> ObjectWriter for ParquetWriter<W> {
    type Output = W;

    fn write(&mut self, objects: &Batch) -> Result<(), Error> {
        for object in objects.iter() {
            self.group.push(object);
            self.text += object.key.len() + object.etag.map_or(0, str::len);
            if self.group.len() >= GROUP_ROWS || self.text >= GROUP_BYTES {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<W, Error> {
        self.end_group()?;
        self.writer.into_inner().map_err(|error| failed(&self.file, "it cannot be written", error))
    }
}

#[cold]
fn failed(file: &str, what: &str, error: ParquetError) -> Error {
    Error::Table { file: file.to_owned(), row: None, byte: None, what: what.to_owned(), source: Some(Box::new(error)) }
}

/// Reads objects of a Parquet file as [`ParquetWriter`] writes it, or another program: columns in any order, of which
/// `key` must be there. Strings may be plain byte arrays; `size` is an int64, `last_modified` an int64 that is a timestamp
/// of any unit, `content` 32 bytes or 64 hexadecimal digits.
///
/// Memory is that of a page and the dictionary of each column.
pub struct ParquetReader {
    file: String,
    reader: SerializedFileReader<File>,
    /// Whether it is a file of an inventory.
    is_inventory: bool,
    /// The place of each column, in the order of [`NAMES`], among all of the file.
    places: [Option<usize>; NAMES.len()],
    unit: TimeUnit,
    group: Option<Group>,
    next_group: usize,
    /// Rows of the groups before.
    rows_before: u64,
    bucket: Option<String>,
    passed_over: u64,
}

/// [`COLUMNS`], and what else an inventory has.
const NAMES: [&str; 8] = ["bucket", "key", "etag", "size", "last_modified", "content", "is_latest", "is_delete_marker"];
/// Their names in an inventory.
const INVENTORY: [&str; 8] =
    ["bucket", "key", "e_tag", "size", "last_modified_date", "", "is_latest", "is_delete_marker"];

/// The columns of a row group.
struct Group {
    columns: [Option<Column>; NAMES.len()],
    rows: u64,
    read: u64,
}

enum Column {
    Bytes(ColumnReaderImpl<ByteArrayType>),
    Fixed(ColumnReaderImpl<FixedLenByteArrayType>),
    Numbers(ColumnReaderImpl<Int64Type>),
    Flags(ColumnReaderImpl<BoolType>),
}

enum Values {
    Bytes(Vec<Option<ByteArray>>),
    Numbers(Vec<Option<i64>>),
}

/// Rows that are decoded at once.
const ROWS: usize = 4096;

impl ParquetReader {
    /// Opens a file. With a bucket, rows of others are passed over, if there is a column that tells; without one all rows
    /// are read.
    ///
    /// # Errors
    ///
    /// [`Error::Table`].
    pub fn open(path: impl AsRef<Path>, bucket: Option<&str>) -> Result<Self, Error> {
        Self::open_as(path.as_ref(), path.as_ref().display().to_string(), bucket, false)
    }

    /// Opens a file of an inventory of `bucket`. Versions that are not the current one, and delete markers, are passed
    /// over; a row of another bucket is an error. `file` is what errors call it.
    pub(crate) fn open_inventory(path: &Path, file: String, bucket: &str) -> Result<Self, Error> {
        Self::open_as(path, file, Some(bucket), true)
    }

    fn open_as(path: &Path, file: String, bucket: Option<&str>, is_inventory: bool) -> Result<Self, Error> {
        let bad = |what: String| Error::Table { file: file.clone(), row: None, byte: None, what, source: None };
        let opened = File::open(path).map_err(|error| {
            let what = "it cannot be read".to_owned();
            Error::Table { file: file.clone(), row: None, byte: None, what, source: Some(Box::new(error)) }
        })?;
        let reader =
            SerializedFileReader::new(opened).map_err(|error| failed(&file, "it is no whole Parquet file", error))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names = schema.columns().iter().map(|column| column.path().string());
        let names: Vec<String> = names.collect();
        let wanted = if is_inventory {
            INVENTORY
        } else {
            check_names(names.iter().map(String::as_str)).map_err(&bad)?;
            std::array::from_fn(|place| COLUMNS.get(place).copied().unwrap_or_default())
        };
        let places = wanted.map(|column| names.iter().position(|name| name == column));
        if is_inventory {
            let has = |column: &str| names.iter().any(|name| name == column);
            check_versions(has("key"), has("version_id"), has("is_latest")).map_err(&bad)?;
        }
        let mut unit = TimeUnit::MICROS;
        for (number, (column, name)) in schema.columns().iter().zip(&names).enumerate() {
            let Some(place) = places.iter().position(|place| *place == Some(number)) else { continue };
            let physical = column.physical_type();
            let is_right = match NAMES[place] {
                "size" => physical == PhysicalType::INT64,
                "last_modified" => match column.logical_type_ref() {
                    Some(LogicalType::Timestamp(time)) if physical == PhysicalType::INT64 => {
                        unit = time.unit;
                        true
                    }
                    _ => false,
                },
                "content" => [PhysicalType::BYTE_ARRAY, PhysicalType::FIXED_LEN_BYTE_ARRAY].contains(&physical),
                "is_latest" | "is_delete_marker" => physical == PhysicalType::BOOLEAN,
                _ => physical == PhysicalType::BYTE_ARRAY,
            };
            if !is_right || column.max_rep_level() > 0 || column.max_def_level() > 1 {
                let wanted = match NAMES[place] {
                    "size" => "int64",
                    "last_modified" => "a timestamp of int64",
                    "content" => "bytes",
                    "is_latest" | "is_delete_marker" => "boolean",
                    _ => "a string",
                };
                return Err(bad(format!("its column {name:?} is of {physical}, and must be {wanted}")));
            }
        }
        Ok(Self {
            file,
            reader,
            is_inventory,
            places,
            unit,
            group: None,
            next_group: 0,
            rows_before: 0,
            bucket: bucket.map(str::to_owned),
            passed_over: 0,
        })
    }

    fn group(&self, place: usize) -> Result<Group, ParquetError> {
        let group = self.reader.get_row_group(place)?;
        let mut columns = [const { None }; NAMES.len()];
        for (column, place) in columns.iter_mut().zip(self.places) {
            let Some(place) = place else { continue };
            *column = Some(match group.get_column_reader(place)? {
                ColumnReader::ByteArrayColumnReader(reader) => Column::Bytes(reader),
                ColumnReader::FixedLenByteArrayColumnReader(reader) => Column::Fixed(reader),
                ColumnReader::Int64ColumnReader(reader) => Column::Numbers(reader),
                ColumnReader::BoolColumnReader(reader) => Column::Flags(reader),
                _ => return Err(ParquetError::General("a column is of another type in this row group".to_owned())),
            });
        }
        Ok(Group { columns, rows: u64::try_from(group.metadata().num_rows()).unwrap_or_default(), read: 0 })
    }

    /// Decodes the next rows of the group, no more than `limit`, and pushes those of the bucket.
    fn push(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        let Some(group) = &mut self.group else { return Ok(()) };
        let count = usize::try_from(group.rows - group.read).unwrap_or(usize::MAX).min(limit).min(ROWS);
        let mut columns = [const { None }; NAMES.len()];
        for (values, column) in columns.iter_mut().zip(&mut group.columns) {
            let Some(column) = column else { continue };
            let read = column.read(count);
            *values = Some(read.map_err(|error| failed(&self.file, "its pages are damaged", error))?);
        }
        let first = self.rows_before + group.read + 1;
        group.read += count as u64;
        let [bucket, key, etag, size, last_modified, content, is_latest, is_delete_marker] = &columns;
        for row in 0..count {
            let bytes = |values: &'_ Option<Values>| match values {
                Some(Values::Bytes(values)) => values[row].clone(),
                _ => None,
            };
            let number = |values: &Option<Values>| match values {
                Some(Values::Numbers(values)) => values[row],
                _ => None,
            };
            let bad = |what: String| Error::Table {
                file: self.file.clone(),
                row: Some(first + row as u64),
                byte: None,
                what,
                source: None,
            };
            let bucket_of_row = bytes(bucket);
            let bucket_of_row = bucket_of_row.as_ref().map_or(&b""[..], ByteArray::data);
            if let (Some(wanted), Some(_)) = (&self.bucket, bucket)
                && bucket_of_row != wanted.as_bytes()
            {
                if self.is_inventory {
                    return Err(bad(other_bucket(bucket_of_row, wanted)));
                }
                self.passed_over += 1;
                continue;
            }
            if number(is_latest) == Some(0) || number(is_delete_marker) == Some(1) {
                self.passed_over += 1;
                continue;
            }
            if is_latest.is_some() && number(is_latest).is_none() {
                return Err(bad("it does not say whether it is the current version".to_owned()));
            }
            let no_text = |column: &str| bad(format!("its {column} is no UTF-8"));
            let (key, etag) = (bytes(key), bytes(etag));
            let key = key.as_ref().map_or(&b""[..], ByteArray::data);
            let mut object = ObjectRef::new(std::str::from_utf8(key).map_err(|_| no_text("key"))?);
            if object.key.is_empty() {
                return Err(bad("it has no key".to_owned()));
            }
            let text = |etag| std::str::from_utf8(etag).map_err(|_| no_text("etag"));
            object.etag = etag.as_ref().map(|etag| text(etag.data())).transpose()?;
            let negative = |size| bad(format!("its size is {size}"));
            object.size = number(size).map(|size| u64::try_from(size).map_err(|_| negative(size))).transpose()?;
            let time = |time: i64| match self.unit {
                TimeUnit::MILLIS => Timestamp::from_millisecond(time),
                TimeUnit::MICROS => Timestamp::from_microsecond(time),
                TimeUnit::NANOS => Timestamp::from_nanosecond(time.into()),
            };
            let beyond = |_| bad("its last_modified is beyond the year 9999".to_owned());
            object.last_modified = number(last_modified).map(time).transpose().map_err(beyond)?;
            let digest = |digest: ByteArray| {
                let raw = digest.data().try_into().ok();
                raw.or_else(|| unhex(digest.data()))
                    .ok_or_else(|| bad("its content is no digest of 32 bytes".to_owned()))
            };
            object.content = bytes(content).map(digest).transpose()?;
            batch.push(object);
        }
        Ok(())
    }
}

impl Column {
    fn read(&mut self, count: usize) -> Result<Values, ParquetError> {
        Ok(match self {
            Self::Bytes(reader) => Values::Bytes(read(reader, count)?),
            Self::Fixed(reader) => {
                let values = read(reader, count)?.into_iter().map(|value| value.map(ByteArray::from));
                Values::Bytes(values.collect())
            }
            Self::Numbers(reader) => Values::Numbers(read(reader, count)?),
            Self::Flags(reader) => {
                Values::Numbers(read(reader, count)?.into_iter().map(|flag| flag.map(i64::from)).collect())
            }
        })
    }
}

fn read<T: DataType>(reader: &mut ColumnReaderImpl<T>, count: usize) -> Result<Vec<Option<T::T>>, ParquetError> {
    let (mut values, mut levels) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut records = 0;
    while records < count {
        let (read, _, _) = reader.read_records(count - records, Some(&mut levels), None, &mut values)?;
        if read == 0 {
            return Err(ParquetError::General("a column has fewer rows than its row group".to_owned()));
        }
        records += read;
    }
    if levels.is_empty() {
        // A required column has no levels.
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level == 0 { None } else { values.next() }).collect())
}

impl ObjectReader for ParquetReader {
    fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        let end = batch.len() + limit.max(1);
        while batch.len() < end {
            match &self.group {
                Some(group) if group.read < group.rows => self.push(batch, end - batch.len())?,
                done => {
                    self.rows_before += done.as_ref().map_or(0, |group| group.rows);
                    self.group = None;
                    if self.next_group >= self.reader.num_row_groups() {
                        break;
                    }
                    let group = self.group(self.next_group);
                    self.group = Some(group.map_err(|error| failed(&self.file, "its pages are damaged", error))?);
                    self.next_group += 1;
                }
            }
        }
        Ok(())
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

impl std::fmt::Debug for ParquetReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetReader").field("file", &self.file).finish_non_exhaustive()
    }
}
