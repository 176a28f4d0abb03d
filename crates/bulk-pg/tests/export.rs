//! Items read out of a database, as of one moment.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bulk_pg::{
    Error, ExportSnapshot, ExportSnapshotOptions, Ident, ItemDeletions, ItemJson, ItemReader, ItemRows, ItemSource,
    Session, Since, Unseen,
};
use bulk_testkit::postgres::{DatabaseUrl, Options, Server};
use support::{Bench, chain, table};

fn ident(name: &str) -> Ident {
    Ident::new(name).unwrap()
}

fn items_of(rows: ItemRows) -> ItemSource {
    let mut source = ItemSource::new("things", rows, ident("id"), ident("grp"));
    source.modified = Some(ident("modified"));
    source
}

fn of_table(name: &str) -> ItemSource {
    items_of(ItemRows::Table(table(name)))
}

fn of_query(query: &str) -> ItemSource {
    items_of(ItemRows::Query(query.to_owned()))
}

async fn snapshot(bench: &Bench) -> ExportSnapshot {
    ExportSnapshot::open(bench.database.url(), ExportSnapshotOptions::default()).await.unwrap()
}

fn since(watermark: &str) -> Since {
    Since { watermark: watermark.to_owned(), overlap: Duration::ZERO }
}

/// A row that outlives its batch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: Option<String>,
    group: Option<String>,
    mtime: i64,
    json: Option<String>,
}

async fn rows(reader: &mut ItemReader) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    while let Some(batch) = reader.next_batch().await? {
        for row in batch.rows() {
            let row = row?;
            rows.push(Row {
                id: row.id.map(str::to_owned),
                group: row.group.map(str::to_owned),
                mtime: row.mtime,
                json: row.json.map(|json| String::from_utf8(json.to_vec()).unwrap()),
            });
        }
    }
    rows.sort();
    Ok(rows)
}

/// All items of one type.
async fn all(bench: &Bench, source: &ItemSource) -> Result<Vec<Row>, Error> {
    let snapshot = snapshot(bench).await;
    let query = snapshot.prepare(source).await?;
    rows(&mut snapshot.read(vec![query.all()])).await
}

/// The ids of what has changed.
async fn changed(bench: &Bench, source: &ItemSource, since: &Since) -> Vec<String> {
    changed_in(bench, source, since, "UTC").await
}

async fn changed_in(bench: &Bench, source: &ItemSource, since: &Since, zone: &str) -> Vec<String> {
    let mut options = ExportSnapshotOptions::default();
    options.time_zone = Some(zone.to_owned());
    let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
    let query = snapshot.prepare(source).await.unwrap();
    let selection = query.changed(since).unwrap();
    let rows = rows(&mut snapshot.read(vec![selection.clone()])).await.unwrap();
    assert_eq!(snapshot.count(&selection).await.unwrap(), rows.len() as u64);
    rows.into_iter().map(|row| row.id.unwrap()).collect()
}

fn row(id: &str, group: &str, mtime: i64, json: &str) -> Row {
    Row { id: Some(id.to_owned()), group: Some(group.to_owned()), mtime, json: Some(json.to_owned()) }
}

/// What a refused export says.
async fn refusal(bench: &Bench, source: &ItemSource) -> Error {
    all(bench, source).await.unwrap_err()
}

#[tokio::test]
async fn any_value_arrives_as_it_is() {
    let bench = Bench::new(
        "odd",
        r#"CREATE TYPE place AS (street text, "No." integer);
           CREATE DOMAIN words AS text;
           CREATE TABLE "The ""T""" (id bigint, "Grp" text, "the ""json""" jsonb, modified timestamptz, bulk_item words,
               place place, numbers numeric[], raw bytea, "Ünïcode" float8, day date, nothing text, gone text);
           ALTER TABLE "The ""T""" DROP COLUMN gone;
           INSERT INTO "The ""T""" VALUES
               (-1, E'it''s "x"\n', '{"a": [1, null]}', '1969-12-31 23:59:58.5+00', E'tab\t\\ \r\n\u0001é😀',
                ROW('a, "b"', 1), ARRAY[1.10, NULL, 'NaN'], '\x00ff', 0.1, 'infinity', NULL),
               (9223372036854775807, '', 'null', '2026-06-30 12:00:00.999999+02', '', NULL, '{}', '', 'NaN', NULL, NULL)"#,
    );
    let mut source = ItemSource::new("things", ItemRows::Table(table(r#""The ""T""""#)), ident("id"), ident("Grp"));
    source.modified = Some(ident("modified"));
    let first = r#"{"id":-1,"Grp":"it's \"x\"\n","the \"json\"":{"a": [1, null]},"modified":"1969-12-31T23:59:58.5+00:00","bulk_item":"tab\t\\ \r\n\u0001é😀","place":{"street":"a, \"b\"","No.":1},"numbers":[1.10,null,"NaN"],"raw":"\\x00ff","Ünïcode":0.1,"day":"infinity","nothing":null}"#;
    let second = r#"{"id":9223372036854775807,"Grp":"","the \"json\"":null,"modified":"2026-06-30T10:00:00.999999+00:00","bulk_item":"","place":null,"numbers":[],"raw":"\\x","Ünïcode":"NaN","day":null,"nothing":null}"#;
    let (group, last) = ("it's \"x\"\n", "9223372036854775807");
    let wanted = |jsons: [&str; 2]| vec![row("-1", group, -2, jsons[0]), row(last, "", 1_782_813_600, jsons[1])];
    assert_eq!(all(&bench, &source).await.unwrap(), wanted([first, second]));

    source.json = ItemJson::Columns(vec![ident("the \"json\""), ident("bulk_item"), ident("id")]);
    let columns = [
        r#"{"the \"json\"":{"a": [1, null]},"bulk_item":"tab\t\\ \r\n\u0001é😀","id":-1}"#,
        r#"{"the \"json\"":null,"bulk_item":"","id":9223372036854775807}"#,
    ];
    assert_eq!(all(&bench, &source).await.unwrap(), wanted(columns));

    source.json = ItemJson::Column(ident("the \"json\""));
    assert_eq!(all(&bench, &source).await.unwrap(), wanted(["{\"a\": [1, null]}", "null"]));

    // Text that is JSON, or is not, passes as it stands.
    source.json = ItemJson::Column(ident("bulk_item"));
    assert_eq!(all(&bench, &source).await.unwrap(), wanted(["tab\t\\ \r\n\u{1}é😀", ""]));

    let query = r#"SELECT *, 1 AS "bulk_json" FROM "The ""T""""#;
    source.rows = ItemRows::Query(query.to_owned());
    source.json = ItemJson::Row;
    let with_more =
        [first, second].map(|json| json.replace(",\"nothing\":null}", ",\"nothing\":null,\"bulk_json\":1}"));
    assert_eq!(all(&bench, &source).await.unwrap(), wanted([&with_more[0], &with_more[1]]));
}

#[tokio::test]
async fn rows_depend_on_nothing_but_themselves() {
    let bench = Bench::new(
        "settings",
        "CREATE TABLE t (id int, grp text, modified timestamp, f float4, b bytea, i interval, x xml, d date, z timestamptz);
         INSERT INTO t VALUES (1, 'a', '2026-06-30 12:00', 0.1, '\\x0a', '1 day 2 hours', '<a/>', '2026-06-30', '2026-06-30 12:00+02')",
    );
    let json = r#"{"id":1,"grp":"a","modified":"2026-06-30T12:00:00","f":0.1,"b":"\\x0a","i":"1 day 02:00:00","x":"<a/>","d":"2026-06-30","z":"2026-06-30T10:00:00+00:00"}"#;
    let wanted = [row("1", "a", 1_782_820_800, json)];
    assert_eq!(all(&bench, &of_table("t")).await.unwrap(), wanted);
    let name = bench.psql("SELECT current_database()");
    for setting in [
        "timezone = 'Asia/Tokyo'",
        "bytea_output = escape",
        "extra_float_digits = -3",
        "intervalstyle = iso_8601",
        "datestyle = 'German'",
        "row_security = on",
        "search_path = pg_catalog",
        "default_transaction_isolation = 'read committed'",
        "statement_timeout = '1s'",
        "default_transaction_read_only = on",
    ] {
        bench.psql(&format!("ALTER DATABASE \"{name}\" SET {setting}"));
    }
    let mut options = ExportSnapshotOptions::default();
    options.time_zone = Some("UTC".to_owned());
    let snapshot = ExportSnapshot::open(bench.database.url(), options.clone()).await.unwrap();
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    assert_eq!(rows(&mut snapshot.read(vec![query.all()])).await.unwrap(), wanted);

    // Times without a zone are of the zone that is given; so is what JSON has.
    options.time_zone = Some("America/New_York".to_owned());
    let snapshot = ExportSnapshot::open(bench.database.url(), options.clone()).await.unwrap();
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    let found = rows(&mut snapshot.read(vec![query.all()])).await.unwrap();
    let json = json.replace("10:00:00+00:00", "06:00:00-04:00");
    assert_eq!(found, [row("1", "a", 1_782_820_800 + 4 * 3600, &json)]);

    options.time_zone = Some("Nowhere/At_all".to_owned());
    let error = ExportSnapshot::open(bench.database.url(), options).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "cannot set up a session to read from: invalid value for parameter \"TimeZone\": \"Nowhere/At_all\" [SQLSTATE 22023]"
    );
}

#[tokio::test]
async fn values_of_many_megabytes_arrive_whole() {
    const LEN: usize = 50 << 20;
    let bench = Bench::new(
        "large",
        &format!(
            "CREATE TABLE t (id int, grp text, modified date, body text);
             INSERT INTO t SELECT id, 'g', '1970-01-02', repeat(chr(96 + id), {LEN}) FROM generate_series(1, 3) id"
        ),
    );
    let mut source = of_table("t");
    source.json = ItemJson::Columns(vec![ident("body")]);
    let mut options = ExportSnapshotOptions::default();
    // Less than one of them.
    options.memory = 1 << 20;
    let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
    let query = snapshot.prepare(&source).await.unwrap();
    let mut reader = snapshot.read(vec![query.all()]);
    let mut seen = 0;
    while let Some(batch) = reader.next_batch().await.unwrap() {
        for row in batch.rows() {
            let row = row.unwrap();
            let letter = 96 + row.id.unwrap().parse::<u8>().unwrap();
            let json = row.json.unwrap();
            let body = json.strip_prefix(b"{\"body\":\"").unwrap().strip_suffix(b"\"}").unwrap();
            assert!(body.len() == LEN && body.iter().all(|byte| *byte == letter));
            assert_eq!(row.mtime, 86_400);
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[tokio::test]
async fn all_connections_see_one_moment() {
    const ROWS: u64 = 20_000;
    let ddl = format!(
        "CREATE TABLE a (id int PRIMARY KEY, grp text, modified timestamptz DEFAULT now(), round int DEFAULT 0, more text);
         CREATE TABLE b (LIKE a INCLUDING ALL);
         INSERT INTO a (id, grp, more) SELECT id, 'g' || id % 7, repeat('x', 500) FROM generate_series(1, {ROWS}) id;
         INSERT INTO b SELECT * FROM a"
    );
    let bench = Bench::new("moment", &ddl);
    let mut options = ExportSnapshotOptions::default();
    // Some hundred ranges, and so little memory that the writer is ahead of the readers.
    (options.range, options.memory, options.connections) = (64 << 10, 1, 5);
    let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
    let mut sources = Vec::new();
    for name in ["a", "b"] {
        let mut source = of_table(name);
        source.json = ItemJson::Columns(vec![ident("round")]);
        sources.push(snapshot.prepare(&source).await.unwrap());
    }
    let mut reader = snapshot.read(vec![sources[0].all(), sources[1].all(), sources[0].ids()]);
    let writer = Session::connect(bench.database.url()).await.unwrap();
    let mut found: [BTreeMap<String, String>; 3] = Default::default();
    let mut batches = 0;
    while let Some(batch) = reader.next_batch().await.unwrap() {
        for row in batch.rows() {
            let row = row.unwrap();
            let json = row.json.map_or(String::new(), |json| String::from_utf8(json.to_vec()).unwrap());
            let before = found[batch.selection()].insert(row.id.unwrap().to_owned(), json);
            assert_eq!(before, None, "{row:?} comes twice");
        }
        drop(batch);
        batches += 1;
        if batches % 20 == 1 {
            let write = format!(
                "UPDATE a SET round = round + 1; UPDATE b SET round = round + 1 WHERE id % 3 = 0;
                 DELETE FROM b WHERE id = {batches}; INSERT INTO a (id, grp) VALUES ({}, 'new')",
                ROWS + batches
            );
            writer.client().batch_execute(&write).await.unwrap();
        }
    }
    assert!(batches > 60, "{batches}");
    let of = |json: &str| (1..=ROWS).map(|id| (id.to_string(), json.to_owned())).collect::<BTreeMap<_, _>>();
    assert!(found == [of("{\"round\":0}"), of("{\"round\":0}"), of("")]);
    // Counts are of that moment, too.
    assert_eq!(snapshot.count(&sources[1].all()).await.unwrap(), ROWS);
    assert_eq!(bench.psql("SELECT min(round) > 0 FROM a WHERE grp <> 'new'"), "t");
}

#[tokio::test]
async fn tables_of_any_kind_are_read_whole() {
    let bench = Bench::new(
        "kinds",
        "CREATE TABLE parent (id int, grp text, modified date, more text);
         CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent SELECT id, 'p', NULL, repeat('x', 500) FROM generate_series(1, 2000) id;
         INSERT INTO child SELECT id, 'c', NULL, repeat('x', 500) FROM generate_series(2001, 10000) id;
         CREATE TABLE parted (LIKE parent) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (5000);
         CREATE TABLE high PARTITION OF parted FOR VALUES FROM (5000) TO (20000);
         INSERT INTO parted SELECT * FROM parent;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM parent;
         CREATE TABLE shrunk AS SELECT * FROM kept; DELETE FROM shrunk WHERE id % 100 > 0;
         CREATE TABLE empty (LIKE parent)",
    );
    let mut options = ExportSnapshotOptions::default();
    options.range = 32 << 10;
    let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
    for (name, wanted) in [("parent", 10_000), ("parted", 10_000), ("kept", 10_000), ("shrunk", 100), ("empty", 0)] {
        let query = snapshot.prepare(&of_table(name)).await.unwrap();
        let rows = rows(&mut snapshot.read(vec![query.all()])).await.unwrap();
        let ids: BTreeSet<u64> = rows.iter().map(|row| row.id.as_ref().unwrap().parse().unwrap()).collect();
        assert_eq!((rows.len(), ids.len()), (wanted, wanted), "{name}");
        let sum = bench.psql(&format!("SELECT coalesce(sum(id), 0) FROM {name}"));
        assert_eq!(ids.iter().sum::<u64>().to_string(), sum);
    }
}

#[tokio::test]
async fn what_commits_late_is_read_the_next_time() {
    let bench = Bench::new("late", "CREATE TABLE t (id int, grp text DEFAULT 'g', modified timestamptz DEFAULT now())");
    let source = of_table("t");
    let mut late = Session::connect(bench.database.url()).await.unwrap();
    let transaction = late.client_mut().transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let began: String = transaction.query_one("SELECT now()::text", &[]).await.unwrap().get(0);
    bench.psql("INSERT INTO t VALUES (2)");

    let first = snapshot(&bench).await;
    assert!(first.sees_all());
    let query = first.prepare(&source).await.unwrap();
    let ids = |rows: Vec<Row>| rows.into_iter().map(|row| row.id.unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(rows(&mut first.read(vec![query.all()])).await.unwrap()), ["2"]);
    transaction.commit().await.unwrap();
    let compare = format!("SELECT '{}'::timestamptz = '{began}'::timestamptz", first.watermark());
    assert_eq!(bench.psql(&compare), "t");
    assert_eq!(first.watermark().len(), "2026-06-30T12:00:00.000000+00:00".len());
    assert_eq!(changed(&bench, &source, &since(first.watermark())).await, ["1", "2"]);

    // Nothing is open: the next one begins where this one was.
    drop(first);
    while bench.psql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now()")
        != "0"
    {
        tokio::task::yield_now().await;
    }
    let second = snapshot(&bench).await;
    assert_eq!(changed(&bench, &source, &since(second.watermark())).await, [""; 0]);
    let mut hour = since(second.watermark());
    hour.overlap = Duration::from_secs(3600);
    assert_eq!(changed(&bench, &source, &hour).await, ["1", "2"]);
}

#[tokio::test]
async fn times_of_any_kind_tell_what_has_changed() {
    let bench = Bench::new(
        "times",
        "CREATE TABLE zoned (id int, grp text, modified timestamptz);
         CREATE TABLE nulls (LIKE zoned); CREATE TABLE never (LIKE zoned);
         CREATE TABLE plain (id int, grp text, modified timestamp NOT NULL);
         CREATE DOMAIN day AS date; CREATE TABLE days (id int, grp text, modified day);
         INSERT INTO zoned VALUES (1, 'g', '2026-06-30 11:59:59.999998+00'), (2, 'g', '2026-06-30 11:59:59.999999+00'), (3, 'g', 'infinity'), (4, 'g', '-infinity');
         INSERT INTO nulls VALUES (1, 'g', NULL), (2, 'g', '2000-01-01');
         INSERT INTO plain VALUES (1, 'g', '2026-06-30 11:59:59.999998'), (2, 'g', '2026-06-30 11:59:59.999999');
         INSERT INTO days VALUES (1, 'g', '2026-06-29'), (2, 'g', '2026-06-30')",
    );
    let mut moment = since("2026-06-30T12:00:00.000000+00:00");
    moment.overlap = Duration::from_micros(1);
    assert_eq!(changed(&bench, &of_table("zoned"), &moment).await, ["2", "3"]);
    assert_eq!(changed(&bench, &of_table("plain"), &moment).await, ["2"]);
    assert_eq!(changed(&bench, &of_table("days"), &moment).await, ["2"]);
    assert_eq!(changed(&bench, &of_table("nulls"), &moment).await, ["1"]);
    assert_eq!(changed(&bench, &of_query("SELECT * FROM zoned;"), &moment).await, ["2", "3"]);
    let mtimes: Vec<i64> = all(&bench, &of_table("zoned")).await.unwrap().iter().map(|row| row.mtime).collect();
    assert_eq!(mtimes, [1_782_820_799, 1_782_820_799, 0, 0]);

    // The clocks of New York went back at 06:00 UTC: what was written at 01:10, after that, is not missed.
    bench.psql("INSERT INTO plain VALUES (3, 'g', '2025-11-02 01:10'), (4, 'g', '2025-11-02 00:10')");
    let back = since("2025-11-02T05:50:00.000000+00:00");
    assert_eq!(changed_in(&bench, &of_table("plain"), &back, "America/New_York").await, ["1", "2", "3"]);

    // Those of St. John's did so at 00:01: the day before began once more.
    bench.psql("INSERT INTO days VALUES (3, 'g', '2010-11-06'), (4, 'g', '2010-11-05')");
    let back = since("2010-11-07T02:30:30.000000+00:00");
    assert_eq!(changed_in(&bench, &of_table("days"), &back, "America/St_Johns").await, ["1", "2", "3"]);
    assert_eq!(changed_in(&bench, &of_table("days"), &back, "UTC").await, ["1", "2"]);

    // Without such a column everything may have changed.
    let mut source = of_table("zoned");
    source.modified = None;
    assert_eq!(changed(&bench, &source, &moment).await, ["1", "2", "3", "4"]);
    let error = {
        let snapshot = snapshot(&bench).await;
        let query = snapshot.prepare(&of_table("zoned")).await.unwrap();
        let selection = query.changed(&since("yesterday'; DROP TABLE zoned --")).unwrap();
        rows(&mut snapshot.read(vec![selection])).await.unwrap_err()
    };
    assert!(
        chain(&error)
            .starts_with("cannot read the items of things: invalid input syntax for type timestamp with time zone"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn what_is_gone_is_told_and_what_is_there_is_not() {
    let bench = Bench::new(
        "gone",
        "CREATE TABLE t (id bigint PRIMARY KEY, grp text, modified timestamptz);
         CREATE TABLE \"Graves\" (\"Id\" text, \"At\" timestamp);
         CREATE TABLE codes (id char(4), grp text, modified date);
         INSERT INTO t VALUES (2, 'g', '2026-01-01');
         INSERT INTO codes VALUES ('ab', 'g', '2026-01-01');
         INSERT INTO \"Graves\" VALUES ('1', '2026-06-30 12:00'), ('2', '2026-06-30 12:00'), ('3', '2026-06-29'), ('4', NULL), (NULL, '2026-07-01')",
    );
    let moment = since("2026-06-30T12:00:00.000000+00:00");
    let by_table = ItemDeletions::Table { table: table("\"Graves\""), id: ident("Id"), deleted: ident("At") };
    let query = "SELECT \"Id\", 'more' FROM \"Graves\" WHERE \"At\" >= {since}::timestamp; -- {since}";
    for (deletions, wanted) in [(by_table, &["1", "4"][..]), (ItemDeletions::Query(query.to_owned()), &["1"])] {
        let mut source = of_table("t");
        source.deletions = Some(deletions);
        let snapshot = snapshot(&bench).await;
        let query = snapshot.prepare(&source).await.unwrap();
        let selection = query.gone(&moment).unwrap().unwrap();
        assert_eq!(snapshot.count(&selection).await.unwrap(), wanted.len() as u64);
        let gone: Vec<_> = rows(&mut snapshot.read(vec![selection])).await.unwrap();
        assert_eq!(gone.iter().map(|row| row.id.as_deref().unwrap()).collect::<Vec<_>>(), wanted);
        assert_eq!(gone[0], Row { id: Some("1".to_owned()), group: None, mtime: 0, json: None });
    }
    // Ids of a type whose values are not found by their texts.
    let mut source = of_table("codes");
    source.deletions = Some(ItemDeletions::Query("VALUES ('ab'), ('cd')".to_owned()));
    let snapshot = snapshot(&bench).await;
    let query = snapshot.prepare(&source).await.unwrap();
    let gone = rows(&mut snapshot.read(vec![query.gone(&moment).unwrap().unwrap()])).await.unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].id.as_deref(), Some("cd"));
    assert!(snapshot.prepare(&of_table("t")).await.unwrap().gone(&moment).unwrap().is_none());
}

#[tokio::test]
async fn items_are_found_by_their_ids() {
    let odd = ["", " ", "a,b", "{\"", "\\", "it's", "NULL", "é😀\n"];
    let bench = Bench::new(
        "ids",
        "CREATE TABLE texts (id text, grp text, modified date); CREATE TABLE codes (id uuid PRIMARY KEY, grp text, modified date);
         CREATE TABLE kinds (id varchar(10), grp int, modified date);
         CREATE TABLE numbers (id numeric, grp text, modified date);
         INSERT INTO numbers SELECT n, 'g', NULL FROM generate_series(1, 2500) n;
         INSERT INTO kinds VALUES ('a', 7, NULL), (NULL, 8, NULL), ('b', NULL, NULL);
         INSERT INTO codes VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'g', NULL)",
    );
    let session = bench.session().await;
    for id in odd {
        session.client().execute("INSERT INTO texts VALUES ($1, $1)", &[&id]).await.unwrap();
    }
    let snapshot = snapshot(&bench).await;
    let find = async |name: &str, ids: &[&str]| {
        let query = snapshot.prepare(&of_table(name)).await.unwrap();
        let rows = rows(&mut snapshot.read(vec![query.of_ids(ids).unwrap()])).await.unwrap();
        rows.into_iter().map(|row| row.id.unwrap()).collect::<Vec<_>>()
    };
    let mut sorted = odd.map(str::to_owned).to_vec();
    sorted.sort();
    assert_eq!(find("texts", &odd).await, sorted);
    assert_eq!(find("texts", &["a", "NULL"]).await, ["NULL"]);
    assert_eq!(find("texts", &[]).await, [""; 0]);
    let code = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    assert_eq!(find("codes", &[code]).await, [code]);
    assert_eq!(find("kinds", &["b", "c"]).await, ["b"]);
    // More than one statement takes.
    let numbers: Vec<String> = (1..=2500).map(|number: u32| number.to_string()).collect();
    let found = find("numbers", &numbers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(found.len(), 2500);

    // What has no id or no group is there all the same.
    let query = snapshot.prepare(&of_table("kinds")).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let of = |id, group| Row { id, group, mtime: 0, json: None };
    assert_eq!(
        rows(&mut snapshot.read(vec![query.ids()])).await.unwrap(),
        [of(None, text("8")), of(text("a"), text("7")), of(text("b"), None)]
    );
}

#[tokio::test]
async fn statements_of_the_users_stand_for_tables() {
    let bench = Bench::new(
        "queries",
        "CREATE TABLE t (id int, grp text, modified date); INSERT INTO t VALUES (1, 'a', '1970-01-01'), (2, 'b', '1970-01-01');
         CREATE VIEW v AS SELECT * FROM t WHERE id = 2",
    );
    let json = |id, grp| format!("{{\"id\":{id},\"grp\":\"{grp}\",\"modified\":\"1970-01-01\"}}");
    let wanted = [row("1", "a", 0, &json(1, "a")), row("2", "b", 0, &json(2, "b"))];
    for query in [
        "SELECT * FROM t;",
        "TABLE t -- all of it",
        "WITH x AS (SELECT * FROM t) SELECT id, grp, modified FROM x ORDER BY 1 /* as one likes */ ;",
        "(SELECT * FROM t WHERE id = 1) UNION ALL (SELECT * FROM v)",
    ] {
        assert_eq!(all(&bench, &of_query(query)).await.unwrap(), wanted, "{query}");
    }
    assert_eq!(all(&bench, &of_table("v")).await.unwrap(), wanted[1..]);
    for (query, said) in [
        ("SELECT 1; SELECT 2", "the query of things is more than one statement"),
        (
            "SELECT * FROM nowhere",
            "cannot read the items of things: relation \"nowhere\" does not exist [SQLSTATE 42P01]",
        ),
        (
            "SELECT id, modified FROM t",
            "cannot read the items of things: column bulk_item.grp does not exist [SQLSTATE 42703]",
        ),
        (
            "SELECT id, grp, id AS modified FROM t",
            "things: the column modified is int4, and a time is timestamptz, timestamp or date",
        ),
        (
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "cannot read the items of things: WITH clause containing a data-modifying statement must be at the top level [SQLSTATE 0A000]",
        ),
    ] {
        assert_eq!(chain(&refusal(&bench, &of_query(query)).await), said, "{query}");
    }
    // A function that writes is found out when it is called.
    bench.psql("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t RETURNING 1'");
    let error = refusal(&bench, &of_query("SELECT f() AS id, 'g' AS grp, now() AS modified")).await;
    assert_eq!(
        chain(&error),
        "cannot read the items of things: cannot execute DELETE in a read-only transaction [SQLSTATE 25006]"
    );
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "2");

    let mut source = of_table("t");
    source.json = ItemJson::Column(ident("id"));
    assert_eq!(
        chain(&refusal(&bench, &source).await),
        "things: the column id is int4, and JSON is json, jsonb or text"
    );
    source.json = ItemJson::Columns(Vec::new());
    assert_eq!(chain(&refusal(&bench, &source).await), "things: its JSON has no columns");
    source.json = ItemJson::Row;
    source.deletions = Some(ItemDeletions::Query("SELECT id FROM graves".to_owned()));
    assert_eq!(
        chain(&refusal(&bench, &source).await),
        "cannot read what is gone of things: relation \"graves\" does not exist [SQLSTATE 42P01]"
    );
}

#[tokio::test]
async fn what_may_not_be_seen_is_no_quiet_gap() {
    let role = format!("export_{}", std::process::id());
    let bench = Bench::new(
        "rights",
        &format!(
            "CREATE TABLE secret (id int, grp text, modified date); CREATE TABLE partly (LIKE secret); CREATE TABLE open (LIKE secret);
             ALTER TABLE partly ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON partly USING (grp = 'mine');
             DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'exporter';
             GRANT SELECT ON partly, open TO {role}"
        ),
    );
    let url = bench.database.url_for(&role, "exporter");
    let mut holder = Session::connect(bench.database.url()).await.unwrap();
    let transaction = holder.client_mut().transaction().await.unwrap();
    transaction.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap();
    for (name, said) in [
        ("secret", "cannot read the items of things: permission denied for table secret [SQLSTATE 42501]"),
        (
            "partly",
            "cannot read the items of things: query would be affected by row-level security policy for table \"partly\" [SQLSTATE 42501]",
        ),
    ] {
        let snapshot = ExportSnapshot::open(&url, ExportSnapshotOptions::default()).await.unwrap();
        // What others have open is hidden from it.
        assert!(!snapshot.sees_all());
        let error = match snapshot.prepare(&of_table(name)).await {
            Ok(query) => rows(&mut snapshot.read(vec![query.all()])).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(chain(&error), said);
        assert!(error.is_denied());
    }
    let snapshot = ExportSnapshot::open(&url, ExportSnapshotOptions::default()).await.unwrap();
    let query = snapshot.prepare(&of_table("open")).await.unwrap();
    assert_eq!(rows(&mut snapshot.read(vec![query.all()])).await.unwrap(), []);
    drop((snapshot, transaction));
    bench.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[tokio::test]
async fn a_reader_may_be_left_early() {
    let bench = Bench::new(
        "early",
        "CREATE TABLE t (id int, grp text, modified date, more text);
         INSERT INTO t SELECT id, 'g', NULL, repeat('x', 1000) FROM generate_series(1, 20000) id",
    );
    let mut options = ExportSnapshotOptions::default();
    (options.range, options.memory) = (1 << 20, 1 << 20);
    let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    for _ in 0..3 {
        let mut reader = snapshot.read(vec![query.all()]);
        assert!(reader.next_batch().await.unwrap().is_some());
    }
    assert_eq!(rows(&mut snapshot.read(vec![query.all()])).await.unwrap().len(), 20_000);
    // Nothing selected is nothing read.
    assert!(snapshot.read(Vec::new()).next_batch().await.unwrap().is_none());
}

#[tokio::test]
async fn a_lost_server_is_an_error() {
    let bench = Bench::new(
        "lost",
        "CREATE TABLE t (id int, grp text, modified date, more text);
         INSERT INTO t SELECT id, 'g', NULL, repeat('x', 1000) FROM generate_series(1, 20000) id",
    );
    let mut options = ExportSnapshotOptions::default();
    (options.connections, options.memory) = (1, 1);
    let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    let mut reader = snapshot.read(vec![query.all()]);
    assert!(reader.next_batch().await.unwrap().is_some());
    bench.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname = current_database()");
    let error = rows(&mut reader).await.unwrap_err();
    assert!(error.is_remote(), "{}", chain(&error));
}

// Sessions are closed by another thread, while this one waits for psql.
#[tokio::test(flavor = "multi_thread")]
async fn times_without_a_zone_are_of_one_that_is_said() {
    let bench = Bench::new(
        "zones",
        "CREATE TABLE t (id int, grp text DEFAULT 'g', modified timestamp DEFAULT now());
         CREATE TABLE days (id int, grp text DEFAULT 'g', modified date DEFAULT now());
         CREATE TABLE zoned (id int, grp text DEFAULT 'g', modified timestamptz DEFAULT now());
         CREATE TABLE graves (id int, at timestamp DEFAULT now())",
    );
    let name = bench.psql("SELECT current_database()");
    let live_in = |zone: &str| bench.psql(&format!("ALTER DATABASE \"{name}\" SET timezone = '{zone}'"));
    let mut with_graves = of_table("zoned");
    with_graves.deletions =
        Some(ItemDeletions::Table { table: table("graves"), id: ident("id"), deleted: ident("at") });
    live_in("America/New_York");
    for (source, column, of) in [
        (of_table("t"), "modified", "timestamp"),
        (of_query("SELECT * FROM t"), "modified", "timestamp"),
        (of_table("days"), "modified", "date"),
        (with_graves.clone(), "at", "timestamp"),
    ] {
        assert_eq!(
            chain(&refusal(&bench, &source).await),
            format!(
                "things: the column {column} is {of}, which has no time zone, and that of the database is America/New_York; \
                 say of which zone its times are: time-zone = \"America/New_York\" (what now() writes there), or \"UTC\", at \
                 the top of the spec"
            )
        );
    }
    assert_eq!(all(&bench, &of_table("zoned")).await.unwrap(), []);

    // As it is said, what is written behind an export is read by the next one, west and east of UTC.
    for zone in ["America/New_York", "Asia/Tokyo"] {
        live_in(zone);
        let mut options = ExportSnapshotOptions::default();
        options.time_zone = Some(zone.to_owned());
        let first = ExportSnapshot::open(bench.database.url(), options.clone()).await.unwrap();
        let watermark = since(first.watermark());
        drop(first);
        bench.psql(
            "TRUNCATE t, days, graves; INSERT INTO t VALUES (1); INSERT INTO days VALUES (1); INSERT INTO graves VALUES (2)",
        );
        assert_eq!(changed_in(&bench, &of_table("t"), &watermark, zone).await, ["1"]);
        assert_eq!(changed_in(&bench, &of_table("days"), &watermark, zone).await, ["1"]);
        let snapshot = ExportSnapshot::open(bench.database.url(), options).await.unwrap();
        let query = snapshot.prepare(&with_graves).await.unwrap();
        assert_eq!(snapshot.count(&query.gone(&watermark).unwrap().unwrap()).await.unwrap(), 1);
        // As if it were of UTC it is not: that is what was lost.
        if zone == "America/New_York" {
            assert_eq!(changed_in(&bench, &of_table("t"), &watermark, "UTC").await, [""; 0]);
        }
    }

    // Of a zone whose clocks are those of UTC all year there is no doubt.
    live_in("Africa/Abidjan");
    assert_eq!(all(&bench, &of_table("t")).await.unwrap().len(), 1);
    live_in("Europe/London");
    assert!(chain(&refusal(&bench, &of_table("t")).await).contains("that of the database is Europe/London; "));
}

#[tokio::test]
async fn prepared_transactions_and_those_of_a_primary_are_not_seen() {
    let mut private = Options::default();
    private.database_url = DatabaseUrl::Ignore;
    private.settings = vec![("max_prepared_transactions".to_owned(), "2".to_owned())];
    let server = Server::start(&private).unwrap();
    let psql = |sql: &str| server.psql(server.url(), sql).unwrap().trim_end().to_owned();
    psql(
        "CREATE TABLE t (id int, grp text DEFAULT 'g', modified timestamptz DEFAULT now());
         BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'late'",
    );
    let open = async || ExportSnapshot::open(server.url(), ExportSnapshotOptions::default()).await.unwrap();
    let snapshot = open().await;
    assert_eq!((snapshot.unseen(), snapshot.sees_all()), (&[Unseen::Prepared][..], false));
    let compare = format!("SELECT '{}'::timestamptz = prepared FROM pg_prepared_xacts", snapshot.watermark());
    assert_eq!(psql(&compare), "t");
    drop(snapshot);
    psql("COMMIT PREPARED 'late'");
    assert_eq!(open().await.unseen(), []);

    // A server that stands by for one which it has lost: it has replayed nothing of late, and knows nothing of now.
    let before = psql("SELECT now()");
    std::fs::write(server.data_dir().unwrap().join("standby.signal"), "").unwrap();
    server.restart().unwrap();
    assert_eq!(psql("SELECT pg_is_in_recovery()"), "t");
    let snapshot = open().await;
    assert_eq!((snapshot.unseen(), snapshot.sees_all()), (&[Unseen::Primary][..], false));
    let between = format!(
        "SELECT '{}'::timestamptz BETWEEN '{before}'::timestamptz - interval '1 minute' AND pg_postmaster_start_time()",
        snapshot.watermark()
    );
    assert_eq!(psql(&between), "t", "{} {before}", snapshot.watermark());
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    assert_eq!(rows(&mut snapshot.read(vec![query.ids()])).await.unwrap().len(), 1);
}

// Sessions are closed by another thread, while this one waits for psql.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_emptied_behind_the_snapshot_is_no_empty_one() {
    let bench = Bench::new(
        "emptied",
        "CREATE TABLE t (id int PRIMARY KEY, grp text DEFAULT 'g', modified date);
         CREATE TABLE parted (LIKE t) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (100);
         CREATE TABLE high PARTITION OF parted FOR VALUES FROM (100) TO (200);
         CREATE VIEW v AS SELECT * FROM t;
         CREATE MATERIALIZED VIEW kept AS SELECT 1 AS id, 'g' AS grp, NULL::date AS modified;
         CREATE TABLE graves (id int);
         CREATE SCHEMA made; CREATE SCHEMA old; CREATE TABLE made.t (LIKE t INCLUDING ALL);
         CREATE TABLE twin (LIKE t INCLUDING ALL);
         INSERT INTO t VALUES (1); INSERT INTO low VALUES (1); INSERT INTO high VALUES (100)",
    );
    let mut with_graves = of_table("t");
    with_graves.deletions = Some(ItemDeletions::Query("SELECT id FROM graves".to_owned()));
    let again = "INSERT INTO t VALUES (1), (2)";
    for (source, rewrite, table) in [
        (of_table("t"), format!("TRUNCATE t; {again}"), "t"),
        (of_table("v"), format!("TRUNCATE t; {again}"), "t"),
        (of_query("SELECT * FROM t WHERE id > 0"), format!("TRUNCATE t; {again}"), "t"),
        (of_table("parted"), "TRUNCATE high; INSERT INTO high VALUES (101), (102)".to_owned(), "high"),
        (of_table("t"), "ALTER TABLE t ALTER grp TYPE varchar(9) USING grp || '!'".to_owned(), "t"),
        (of_table("kept"), "REFRESH MATERIALIZED VIEW kept".to_owned(), "kept"),
        (
            of_table("t"),
            "INSERT INTO made.t VALUES (1); ALTER TABLE t SET SCHEMA old; ALTER TABLE made.t SET SCHEMA public"
                .to_owned(),
            "t",
        ),
        (
            of_table("t"),
            "ALTER TABLE t RENAME TO t_old; ALTER TABLE twin RENAME TO t; INSERT INTO t VALUES (1), (2)".to_owned(),
            "t",
        ),
        (of_table("parted"), "ALTER TABLE parted DETACH PARTITION low".to_owned(), "parted"),
        (of_table("parted"), "ALTER TABLE parted ATTACH PARTITION low FOR VALUES FROM (0) TO (100)".to_owned(), "low"),
        (of_table("parted"), "DROP TABLE parted; CREATE TABLE parted AS SELECT * FROM t".to_owned(), "parted"),
        (with_graves, "TRUNCATE graves".to_owned(), "graves"),
    ] {
        if table == "t" {
            bench.psql("DROP VIEW IF EXISTS v");
        }
        if source == of_table("v") {
            bench.psql("CREATE VIEW v AS SELECT * FROM t");
        }
        let first = snapshot(&bench).await;
        bench.psql(&rewrite);
        let error = first.prepare(&source).await.unwrap_err();
        assert_eq!(
            chain(&error),
            format!(
                "things: {table} was emptied, rewritten, replaced or partitioned anew behind the snapshot, in which its rows may be missing; \
                 take another one"
            ),
            "{rewrite}"
        );
        assert!(error.is_remote());
        drop(first);
        let second = snapshot(&bench).await;
        let query = second.prepare(&source).await.unwrap();
        // From here on it is held.
        let session = Session::connect(bench.database.url()).await.unwrap();
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT");
        if table != "kept" {
            let refused = session.client().batch_execute(&lock).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "55P03", "{rewrite}");
        }
        let found = rows(&mut second.read(vec![query.ids()])).await.unwrap();
        assert_eq!(found.len().to_string(), {
            drop(second);
            let name = if let ItemRows::Table(name) = &source.rows { name.to_string() } else { "t".to_owned() };
            bench.psql(&format!("SELECT count(*) FROM {name}"))
        });
    }
    // What is written beside is no rewrite, nor is an index.
    let snapshot = snapshot(&bench).await;
    bench.psql("DELETE FROM t; INSERT INTO t VALUES (7); REINDEX TABLE t; CREATE INDEX ON t (grp); ANALYZE t");
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    assert_eq!(rows(&mut snapshot.read(vec![query.ids()])).await.unwrap().len(), 2);
}

// Sessions are closed by another thread, while this one waits for psql.
#[tokio::test(flavor = "multi_thread")]
async fn what_items_are_made_of_has_a_layout() {
    let ddl = "CREATE TYPE place AS (street text); CREATE TYPE kind AS ENUM ('a');
               CREATE TABLE t (id int, grp text, modified timestamp, places place[], kind kind, price numeric(8, 2))";
    let bench = Bench::new("layout", ddl);
    let mut chosen = of_table("t");
    chosen.json = ItemJson::Columns(vec![ident("id"), ident("places")]);
    let layouts = async || {
        let snapshot = snapshot(&bench).await;
        let row = snapshot.prepare(&of_table("t")).await.unwrap().layout().to_owned();
        (row, snapshot.prepare(&chosen).await.unwrap().layout().to_owned())
    };
    let first = layouts().await;
    assert!(first.0 != first.1);
    // The same of other numbers.
    bench.psql(&format!(
        "DROP TABLE t; DROP TYPE place, kind; {ddl}; CREATE INDEX ON t (id); ALTER TABLE t ALTER id SET NOT NULL"
    ));
    assert_eq!(layouts().await, first);
    bench.psql("ALTER TABLE t ADD more text");
    let second = layouts().await;
    assert!(second.0 != first.0 && second.1 == first.1, "{second:?}");
    let mut before = second;
    for change in [
        "ALTER TYPE place ADD ATTRIBUTE town text",
        "ALTER TABLE t RENAME more TO less; ALTER TABLE t ALTER places TYPE text",
        "ALTER TABLE t ALTER modified TYPE timestamptz",
        "ALTER TABLE t ALTER id TYPE bigint",
    ] {
        bench.psql(change);
        let after = layouts().await;
        assert!(after.0 != before.0 && after.1 != before.1, "{change}: {after:?}");
        before = after;
    }
    bench.psql("ALTER TABLE t ALTER price TYPE numeric(8, 3)");
    assert_ne!(layouts().await.0, before.0);
}

#[tokio::test]
async fn rows_that_share_an_id_have_an_order() {
    let bench = Bench::new(
        "versions",
        "CREATE TABLE t (id text, grp text, modified date);
         INSERT INTO t VALUES ('a', 'g', '2026-01-02'), ('b', 'h', NULL), ('a', 'h', '2026-01-01'), ('b', 'g', NULL),
             ('c', 'g', NULL), ('b', NULL, '-infinity'), ('a', 'Z', '2026-01-02'), ('ä', 'g', NULL);
         CREATE TABLE keyed (LIKE t); ALTER TABLE keyed ADD PRIMARY KEY (id);
         CREATE TABLE partly (LIKE t); CREATE UNIQUE INDEX ON partly (id) WHERE grp = 'g';
         CREATE TABLE pairs (LIKE t); CREATE UNIQUE INDEX ON pairs (id, grp);
         CREATE TABLE lower (LIKE t); CREATE UNIQUE INDEX ON lower (lower(id));
         CREATE TABLE parent (LIKE keyed INCLUDING ALL); CREATE TABLE child () INHERITS (parent);
         CREATE TABLE parted (LIKE t, PRIMARY KEY (id)) PARTITION BY HASH (id);
         CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE VIEW v AS SELECT * FROM keyed",
    );
    let snapshot = snapshot(&bench).await;
    let query = snapshot.prepare(&of_table("t")).await.unwrap();
    let mut reader = snapshot.read(vec![query.versions(&["b", "ä", "a", "none"]).unwrap()]);
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().await.unwrap() {
        for row in batch.rows() {
            let row = row.unwrap();
            found.push(format!("{} {}", row.id.unwrap(), row.group.unwrap_or("-")));
        }
    }
    assert_eq!(found, ["a h", "a Z", "a g", "b g", "b h", "b -", "ä g"]);
    for (name, wanted) in [
        ("t", false),
        ("keyed", true),
        ("partly", false),
        ("pairs", false),
        ("lower", false),
        ("parent", false),
        ("child", false),
        ("parted", true),
        ("v", false),
    ] {
        assert_eq!(snapshot.prepare(&of_table(name)).await.unwrap().ids_are_unique(), wanted, "{name}");
    }
    assert!(!snapshot.prepare(&of_query("SELECT * FROM keyed")).await.unwrap().ids_are_unique());
}
