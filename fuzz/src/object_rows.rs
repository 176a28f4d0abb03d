//! Listings that stand in files: CSV, NDJSON, Parquet. What was written is read, and any bytes are read or refused.

use std::fs;

use bulk_s3::{
    Batch, CsvReader, CsvWriter, Error, NdjsonReader, NdjsonWriter, ObjectReader, ObjectRef, ObjectWriter,
    ParquetReader, ParquetWriter,
};
use jiff::Timestamp;

use crate::{Take, Trickle, scratch};

/// Objects that are read of one input, at most.
const MOST: usize = 1 << 16;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let way = take.byte();
    let bucket = if way & 0x80 == 0 { None } else { Some("b") };
    let sizes = [usize::from(take.byte()), usize::from(take.byte())];
    match way % 6 {
        0 => {
            let bytes = take.rest();
            let read = |input| CsvReader::new("f", input, bucket).and_then(read);
            same(read(Trickle::new(bytes, [1 << 20; 2])), read(Trickle::new(bytes, sizes)));
        }
        1 => {
            let bytes = take.rest();
            let read = |input| read(NdjsonReader::new("f", input, bucket));
            same(read(Trickle::new(bytes, [1 << 20; 2])), read(Trickle::new(bytes, sizes)));
        }
        2 => drop(parquet(take.rest(), bucket)),
        way => round_trip(way, take),
    }
}

/// The rows, and how many were passed over.
type Rows = (Vec<(String, Option<u64>, String)>, u64);

fn read(mut reader: impl ObjectReader) -> Result<Rows, Error> {
    let (mut rows, mut batch) = (Vec::new(), Batch::new());
    loop {
        batch.clear();
        reader.read(&mut batch, 7)?;
        if batch.is_empty() || rows.len() > MOST {
            return Ok((rows, reader.passed_over()));
        }
        assert!(batch.len() <= 7);
        rows.extend(batch.iter().map(|object| {
            let rest = format!("{:?} {:?} {:?}", object.etag, object.last_modified, object.content);
            (object.key.to_owned(), object.size, rest)
        }));
    }
}

fn parquet(bytes: &[u8], bucket: Option<&str>) -> Result<Rows, Error> {
    let folder = scratch();
    let path = folder.path().join("f.parquet");
    fs::write(&path, bytes).expect("a file");
    read(ParquetReader::open(&path, bucket)?)
}

fn same(one: Result<Rows, Error>, other: Result<Rows, Error>) {
    let plain = |rows: Result<Rows, Error>| rows.map_err(|error| error.to_string());
    assert_eq!(plain(one), plain(other));
}

fn round_trip(way: u8, mut take: Take<'_>) {
    let mut batch = Batch::new();
    while !take.is_empty() {
        let (choices, seconds, size) = (take.byte(), take.two(), u64::from(take.two()));
        let Ok(key) = str::from_utf8(take.part()) else { return };
        let Ok(etag) = str::from_utf8(take.part()) else { return };
        if key.is_empty() {
            continue;
        }
        let mut object = ObjectRef::new(key);
        object.size = (choices & 1 != 0).then_some(size);
        object.etag = (choices & 2 != 0 && !etag.is_empty()).then_some(etag);
        let time = Timestamp::from_microsecond(i64::from(seconds) * 86_400_123_456);
        object.last_modified = (choices & 4 != 0).then(|| time.expect("a time in range"));
        object.content = (choices & 8 != 0).then_some([choices; 32]);
        batch.push(object);
    }
    let rows = written(way, &batch);
    let expected = batch.iter().map(|object| {
        let rest = format!("{:?} {:?} {:?}", object.etag, object.last_modified, object.content);
        (object.key.to_owned(), object.size, rest)
    });
    assert_eq!(rows.unwrap_or_else(|error| panic!("{error}")), (expected.collect(), 0));
}

/// What is read of the file that these objects make.
fn written(way: u8, batch: &Batch) -> Result<Rows, Error> {
    match way {
        3 => {
            let mut writer = CsvWriter::new("f", Vec::new(), "b")?;
            writer.write(batch)?;
            CsvReader::new("f", &writer.finish()?[..], Some("b")).and_then(read)
        }
        4 => {
            let mut writer = NdjsonWriter::new("f", Vec::new());
            writer.write(batch)?;
            read(NdjsonReader::new("f", &writer.finish()?[..], Some("b")))
        }
        _ => {
            let mut writer = ParquetWriter::new("f", Vec::new(), "b")?;
            writer.write(batch)?;
            parquet(&writer.finish()?, Some("b"))
        }
    }
}
