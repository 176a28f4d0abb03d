//! Objects to files and back.

use std::io::Read;

use bulk_s3::conformance::KnownConformance;
use bulk_s3::{
    Batch, CsvReader, CsvWriter, Error, KeyRange, KnownChange, KnownObjects, MemoryKnown, NdjsonReader, NdjsonWriter,
    ObjectReader, ObjectRef, ObjectWriter, ParquetReader, ParquetWriter, SqliteKnown, SqliteOptions, export_known,
    import_known,
};
use jiff::Timestamp;
use proptest::prelude::*;

/// Objects with odd keys, and all kinds of what is known of them.
fn objects(keys: &[String]) -> Batch {
    let objects = keys.iter().enumerate().map(|(number, key)| {
        let mut object = ObjectRef::new(key);
        object.etag = [None, Some(""), Some("d41d-2"), Some("say \"x\""), Some("\\N")][number % 5];
        object.size = [None, Some(0), Some(i64::MAX.cast_unsigned()), Some(17)][number % 4];
        let time = [None, Some(0), Some(1_700_000_000_123_456)][number % 3];
        object.last_modified = time.map(|time| Timestamp::from_microsecond(time).unwrap());
        object.content = [None, Some([0; 32]), Some([0xa5; 32])][number % 3];
        object
    });
    objects.collect()
}

fn odd() -> Batch {
    let mut keys = KnownConformance::default().keys;
    keys.sort();
    objects(&keys)
}

fn read_all(mut reader: impl ObjectReader, limit: usize) -> Result<Batch, Error> {
    let mut all = Batch::new();
    loop {
        let before = all.len();
        reader.read(&mut all, limit)?;
        assert!(all.len() <= before + limit);
        if all.len() == before {
            return Ok(all);
        }
    }
}

fn csv(objects: &Batch, bucket: &str) -> Vec<u8> {
    let mut writer = CsvWriter::new("objects.csv", Vec::new(), bucket).unwrap();
    writer.write(objects).unwrap();
    writer.finish().unwrap()
}

fn read_csv(csv: &[u8], bucket: Option<&str>) -> Result<Batch, Error> {
    read_all(CsvReader::new("objects.csv", csv, bucket)?, 7)
}

#[test]
fn odd_objects_come_back_from_csv() {
    let objects = odd();
    for bucket in ["data", "", "a,\"b\"\n"] {
        let csv = csv(&objects, bucket);
        assert_eq!(read_csv(&csv, None).unwrap(), objects);
        assert_eq!(read_csv(&csv, Some(bucket)).unwrap(), objects);
        let text = String::from_utf8(csv).unwrap();
        // As spreadsheets write it: with a mark, other line ends, and quotes around everything.
        let windows = "\u{feff}\"key\",etag\r\n\"a,b\",\"1\"\r\nc,2\r\n";
        assert_eq!(read_csv(windows.as_bytes(), None).unwrap().last().unwrap().etag, Some("2"));
        assert!(text.starts_with("bucket,key,etag,size,last_modified,content\n"));
    }
}

#[test]
fn a_mark_of_the_byte_order_may_come_byte_by_byte() {
    let read = |csv: &[u8], at: usize| {
        let (head, rest) = csv.split_at(at);
        let objects = CsvReader::new("objects.csv", head.chain(rest), None).and_then(|reader| read_all(reader, 7));
        objects.map_err(|error| error.to_string())
    };
    // What only begins like one is a part of a name, also where the file ends with it.
    for csv in [&b"\xef\xbb\xbf\"key\",etag\na,1\n"[..], b"\xef\xbbkey\na\n", b"\xef\xbb", b"\xef\xbb\xbf"] {
        let expected = read(csv, csv.len());
        for at in 0..csv.len() {
            assert_eq!(read(csv, at), expected, "{at}");
        }
    }
    let objects = read(b"\xef\xbb\xbf\"key\",etag\na,1\n", 1).unwrap();
    assert_eq!(objects.last().unwrap().etag, Some("1"));
    assert!(read(b"\xef\xbbkey\na\n", 1).unwrap_err().contains("nobody knows what its column \"\u{fffd}key\" is"));
    assert_eq!(read(b"\xef\xbb\xbf", 1).unwrap_err(), "objects.csv: there is nothing in it, not even a header");
}

#[test]
fn another_reader_reads_the_same_csv() {
    // Python's, which knows nothing of what is none.
    let script =
        "import csv, sys, json; print(json.dumps([row[1] for row in csv.reader(open(sys.argv[1], newline=''))][1:]))";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("objects.csv");
    let objects = odd();
    // Before 3.11 it refuses U+0000.
    let objects: Batch = objects.iter().filter(|object| !object.key.contains('\0')).collect();
    std::fs::write(&path, csv(&objects, "data")).unwrap();
    let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).env("PYTHONUTF8", "1").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let keys: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(objects.iter().map(|object| object.key).eq(keys.iter()));
}

#[test]
fn bad_csv_is_named_with_row_and_byte() {
    for (csv, message) in [
        ("", "objects.csv: there is nothing in it, not even a header"),
        ("etag\nx\n", "objects.csv: it has no column \"key\""),
        ("key,key\n", "objects.csv: two of its columns are named \"key\""),
        ("key,\n", "objects.csv: a column has no name"),
        (
            "key,tag\n",
            "objects.csv: nobody knows what its column \"tag\" is; those that are read are bucket, key, etag, size, last_modified, content",
        ),
        ("key,etag\na,1\nb\n", "objects.csv, row 2, byte 13: it has 1 field, and the header 2"),
        ("key,etag\na,1\nb,2,3\n", "objects.csv, row 2, byte 13: it has 3 fields, and the header 2"),
        ("key,etag\na,1\n,2\n", "objects.csv, row 2, byte 13: it has no key"),
        ("key\na\"b\n", "objects.csv, row 1, byte 4: a quote stands within a field that has none around it"),
        ("key\n\"a\"b\n", "objects.csv, row 1, byte 4: something stands behind the quotes of a field"),
        ("key\n\"a\nb\n", "objects.csv, row 1, byte 4: the file ends within quotes: it is cut off"),
        (
            "key\na\rb\n",
            "objects.csv, row 1, byte 4: a carriage return stands without quotes, and without a line feed behind it",
        ),
        ("key,size\na,1e3\n", "objects.csv, row 1, byte 9: its size is \"1e3\", and must be a number of bytes"),
        ("key,size\na,-1\n", "objects.csv, row 1, byte 9: its size is \"-1\", and must be a number of bytes"),
        (
            "key,last_modified\na,yesterday\n",
            "objects.csv, row 1, byte 18: its last_modified is \"yesterday\", and must be a time such as 2024-01-31T12:00:00Z",
        ),
        (
            "key,content\na,00\n",
            "objects.csv, row 1, byte 12: its content is \"00\", and must be 64 hexadecimal digits",
        ),
        ("key\n\"\n\nx\"\n\n", "objects.csv, row 2, byte 10: it has no key"),
    ] {
        let error = read_csv(csv.as_bytes(), None).unwrap_err();
        assert_eq!(error.to_string(), message, "{csv:?}");
    }
    let error = read_csv(b"key\na\xff\n", None).unwrap_err();
    assert_eq!(error.to_string(), "objects.csv, row 1, byte 4: its key is no UTF-8: a\\xff");
    let endless = [b"key\n\"".as_slice(), &b"x".repeat(1 << 20)].concat();
    let error = read_csv(&endless, None).unwrap_err();
    assert_eq!(error.to_string(), "objects.csv, row 1, byte 4: it is longer than 64 KiB, and so no object");
}

#[test]
fn rows_of_other_buckets_are_passed_over() {
    let text = "key,bucket,seen_at\na,x,\nb,y,2024\nc,x,\n";
    let mut reader = CsvReader::new("objects.csv", text.as_bytes(), Some("x")).unwrap();
    let mut batch = Batch::new();
    reader.read(&mut batch, 10).unwrap();
    assert!(batch.iter().eq([ObjectRef::new("a"), ObjectRef::new("c")]));
    assert_eq!(reader.passed_over(), 1);
    assert_eq!(read_csv(text.as_bytes(), None).unwrap().len(), 3);
    assert_eq!(read_csv(b"key\na\n", Some("x")).unwrap().len(), 1, "no column tells of buckets");
}

fn parquet(objects: &Batch) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = ParquetWriter::new("objects.parquet", file.reopen().unwrap(), "data").unwrap();
    writer.write(objects).unwrap();
    writer.finish().unwrap();
    file
}

#[test]
fn odd_objects_come_back_from_parquet() {
    let objects = odd();
    let file = parquet(&objects);
    assert_eq!(read_all(ParquetReader::open(file.path(), None).unwrap(), 7).unwrap(), objects);
    assert_eq!(read_all(ParquetReader::open(file.path(), Some("data")).unwrap(), 1000).unwrap(), objects);
    let mut other = ParquetReader::open(file.path(), Some("other")).unwrap();
    let mut batch = Batch::new();
    other.read(&mut batch, 10).unwrap();
    assert_eq!((batch.len(), other.passed_over()), (0, objects.len() as u64));
    let none = parquet(&Batch::new());
    assert_eq!(read_all(ParquetReader::open(none.path(), None).unwrap(), 10).unwrap(), Batch::new());
}

#[test]
fn several_row_groups_are_read() {
    let keys: Vec<String> = (0..300_000).map(|number| format!("{number:07}")).collect();
    let objects = objects(&keys);
    let file = parquet(&objects);
    assert!(read_all(ParquetReader::open(file.path(), None).unwrap(), 10_000).unwrap() == objects);
}

#[test]
fn bad_parquet_is_named() {
    let file = parquet(&odd());
    let bytes = std::fs::read(file.path()).unwrap();
    let name = file.path().display().to_string();
    for cut in [0, 3, 100, bytes.len() - 1] {
        std::fs::write(file.path(), &bytes[..cut]).unwrap();
        let error = ParquetReader::open(file.path(), None).unwrap_err();
        assert_eq!(error.to_string(), format!("{name}: it is no whole Parquet file"));
    }
    let error = ParquetReader::open("/absent/file", None).unwrap_err();
    assert_eq!(error.to_string(), "/absent/file: it cannot be read");
    let mut large = ObjectRef::new("a");
    large.size = Some(u64::MAX);
    let mut writer = ParquetWriter::new("objects.parquet", Vec::new(), "data").unwrap();
    writer.write(&Batch::from_iter([large])).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), "objects.parquet: an object's size is more than int64 can hold: \"a\"");
}

#[tokio::test]
async fn a_store_goes_to_a_file_and_into_another_store() {
    let from = MemoryKnown::new();
    let keys: Vec<String> = (0..25_000).map(|number| format!("{number:07}\n")).collect();
    let objects = objects(&keys);
    from.apply(&objects.iter().map(KnownChange::Set).collect::<Vec<_>>()).await.unwrap();
    let all = async |store: &MemoryKnown| store.scan(&KeyRange::all(), 100_000).await.unwrap();

    let (csv, count) =
        export_known(&from, &KeyRange::all(), CsvWriter::new("k.csv", Vec::new(), "data").unwrap()).await.unwrap();
    assert_eq!(count, 25_000);
    let to = MemoryKnown::new();
    to.apply(&[KnownChange::Set(ObjectRef::new("0000000\n")), KnownChange::Set(ObjectRef::new("zzz"))]).await.unwrap();
    let reader = CsvReader::new("k.csv", std::io::Cursor::new(csv), Some("data")).unwrap();
    assert_eq!(import_known(&to, reader).await.unwrap().objects, 25_000);
    to.apply(&[KnownChange::Remove("zzz")]).await.unwrap();
    assert!(all(&to).await == objects);

    let file = tempfile::NamedTempFile::new().unwrap();
    let range = KeyRange::new(Some(keys[9_999].clone()), None);
    let writer = ParquetWriter::new("k.parquet", file.reopen().unwrap(), "data").unwrap();
    assert_eq!(export_known(&from, &range, writer).await.unwrap().1, 15_000);
    let to = MemoryKnown::new();
    assert_eq!(import_known(&to, ParquetReader::open(file.path(), None).unwrap()).await.unwrap().objects, 15_000);
    assert!(all(&to).await.iter().eq(objects.iter().skip(10_000)));
}

#[tokio::test]
async fn whoever_fails_ends_it() {
    /// Takes so many bytes.
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let known = MemoryKnown::new();
    let keys: Vec<String> = (0..50_000).map(|number| format!("{number:07}")).collect();
    known.apply(&objects(&keys).iter().map(KnownChange::Set).collect::<Vec<_>>()).await.unwrap();
    let writer = CsvWriter::new("k.csv", Full(1 << 20), "data").unwrap();
    let error = export_known(&known, &KeyRange::all(), writer).await.map(|(_, count)| count).unwrap_err();
    assert_eq!(error.to_string(), "k.csv: it cannot be written");

    // What came before the bad row is known.
    let mut csv = csv(&objects(&keys), "data");
    csv.extend_from_slice(b"data,x,,no,,\n");
    let at = csv.len() - 13;
    let to = MemoryKnown::new();
    let reader = CsvReader::new("k.csv", std::io::Cursor::new(csv), None).unwrap();
    let error = import_known(&to, reader).await.unwrap_err();
    let message = format!("k.csv, row 50001, byte {at}: its size is \"no\", and must be a number of bytes");
    assert_eq!(error.to_string(), message);
    assert_eq!(to.scan(&KeyRange::all(), 100_000).await.unwrap().len(), 50_000);

    // A store that refuses what the first batch brings stops the reader, which has more to read than may wait.
    let folder = tempfile::tempdir().unwrap();
    let known = SqliteKnown::open(folder.path().join("k"), "data", SqliteOptions::default()).await.unwrap();
    let text = format!("key,size\nx,{}\n{}", u64::MAX, "y,1\n".repeat(200_000));
    let reader = CsvReader::new("k.csv", std::io::Cursor::new(text), None).unwrap();
    let error = import_known(&known, reader).await.unwrap_err();
    assert!(matches!(&error, Error::Unfit { key, .. } if key == "x"), "{error:?}");
    assert_eq!(known.scan(&KeyRange::all(), 10).await.unwrap(), Batch::new());
}

proptest! {
    #[test]
    fn any_key_comes_back(keys in proptest::collection::btree_set(".{1,8}|[\",\r\n\0a]{1,5}", 0..40)) {
        let keys: Vec<String> = keys.into_iter().collect();
        let objects = objects(&keys);
        prop_assert_eq!(read_csv(&csv(&objects, "data"), None).unwrap(), objects.clone());
        let file = parquet(&objects);
        prop_assert_eq!(read_all(ParquetReader::open(file.path(), None).unwrap(), 7).unwrap(), objects);
    }

    #[test]
    fn no_csv_makes_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..60)) {
        let csv = [b"key,etag\n".as_slice(), &bytes].concat();
        let _ = read_csv(&csv, None);
    }
}

fn ndjson(objects: &Batch) -> Vec<u8> {
    let mut writer = NdjsonWriter::new("objects.ndjson", Vec::new());
    writer.write(objects).unwrap();
    writer.finish().unwrap()
}

fn read_ndjson(lines: &[u8], bucket: Option<&str>) -> Result<Batch, Error> {
    read_all(NdjsonReader::new("objects.ndjson", lines, bucket), 7)
}

#[test]
fn odd_objects_come_back_from_ndjson() {
    let objects = odd();
    let lines = ndjson(&objects);
    assert_eq!(read_ndjson(&lines, None).unwrap(), objects);
    assert_eq!(read_ndjson(&lines, Some("data")).unwrap(), objects, "no member tells of buckets");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), objects.len());
    assert_eq!(read_ndjson(b"", None).unwrap(), Batch::new());
    // As other programs write it.
    let other = "\u{feff}{ \"seen_at\" : {\"a\":[1]}, \"size\":null, \"key\" : \"\\ud83d\\ude00\\/\\u0000\" }\r\n\n \n{\"key\":\"b\"}";
    let keys = ["😀/\0", "b"].map(ObjectRef::new);
    assert!(read_ndjson(other.as_bytes(), None).unwrap().iter().eq(keys));
}

#[test]
fn another_reader_reads_the_same_ndjson() {
    let script = "import sys, json
for line in open(sys.argv[1], newline='\\n'):
    row = json.loads(line)
    print(json.dumps([row.get(name) for name in ('key', 'etag', 'size', 'last_modified', 'content')]))";
    let objects = odd();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ndjson(&objects)).unwrap();
    let output = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(file.path())
        .env("PYTHONUTF8", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    for object in objects.iter() {
        let hex = |digest: [u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let time = object.last_modified.map(|time| time.to_string());
        let wanted = serde_json::json!([object.key, object.etag, object.size, time, object.content.map(hex)]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(lines.next().unwrap()).unwrap(), wanted);
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn bad_ndjson_is_named_with_row_and_byte() {
    let digest = "its content is \"00\", and must be 64 hexadecimal digits";
    let bad = [
        ("{\"key\":\"a\"}\n\n{\"key\":\"b\"", "row 3, byte 23", "the line ends within the object: it is cut off"),
        ("{\"key\":\"a\"}\n{\"key\":\"b\"\n", "row 2, byte 22", "the line ends within the object: it is cut off"),
        ("{\"key\":\"a\"}\n{\"key\":\"\"}\n", "row 2, byte 12", "it has no key"),
        ("{\"etag\":\"a\"}\n", "row 1, byte 11", "missing field `key`"),
        ("{\"key\":\"a\",\"key\":\"a\"}\n", "row 1, byte 15", "duplicate field `key`"),
        ("{\"key\":\"a\"}{}\n", "row 1, byte 11", "trailing characters"),
        ("{\"key\":\"a\",\"content\":\"00\"}\n", "row 1, byte 0", digest),
        ("\u{feff}{}{}\n", "row 1, byte 4", "missing field `key`"),
        ("7\n", "row 1, byte 0", "invalid type: integer `7`, expected an object with a key"),
        ("{\"key\":\"\\ud800\"}\n", "row 1, byte 14", "unexpected end of hex escape"),
    ];
    let found: Vec<String> =
        bad.iter().map(|(lines, ..)| read_ndjson(lines.as_bytes(), None).unwrap_err().to_string()).collect();
    let wanted: Vec<String> = bad.iter().map(|(_, place, what)| format!("objects.ndjson, {place}: {what}")).collect();
    assert_eq!(found, wanted);
    let error = read_ndjson(b"{\"key\":\"a\"}\n{\"key\":\"\xff\"}\n", None).unwrap_err();
    assert_eq!(error.to_string(), "objects.ndjson, row 2, byte 20: it is no UTF-8");
    let endless = [b"{\"key\":\"".as_slice(), &b"x".repeat(1 << 20)].concat();
    let error = read_ndjson(&endless, None).unwrap_err();
    assert_eq!(error.to_string(), "objects.ndjson, row 1, byte 0: it is longer than 64 KiB, and so no object");
}

#[test]
fn lines_of_other_buckets_are_passed_over() {
    let lines = "{\"key\":\"a\",\"bucket\":\"x\"}\n{\"key\":\"b\",\"bucket\":\"y\"}\n{\"key\":\"c\"}\n";
    let mut reader = NdjsonReader::new("objects.ndjson", lines.as_bytes(), Some("x"));
    let mut batch = Batch::new();
    reader.read(&mut batch, 10).unwrap();
    assert!(batch.iter().eq([ObjectRef::new("a"), ObjectRef::new("c")]));
    assert_eq!(reader.passed_over(), 1);
    assert_eq!(read_ndjson(lines.as_bytes(), None).unwrap().len(), 3);
}

proptest! {
    #[test]
    fn any_key_comes_back_from_ndjson(keys in proptest::collection::btree_set(".{1,8}|[\"\\\\\r\n\0a]{1,5}", 0..40)) {
        let keys: Vec<String> = keys.into_iter().collect();
        let objects = objects(&keys);
        prop_assert_eq!(read_ndjson(&ndjson(&objects), None).unwrap(), objects);
    }

    #[test]
    fn no_ndjson_makes_it_panic(text in "[\"{}:,\\\\keytagsiz0-9\n ]{0,60}") {
        let _ = read_ndjson(text.as_bytes(), None);
    }
}
