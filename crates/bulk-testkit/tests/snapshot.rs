//! Snapshots, read back by Python's csv and bz2 modules and by PostgreSQL, and compared with the reference data where
//! that lies beside the project.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{BufWriter, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
};

use bulk_testkit::{
    postgres,
    snapshot::{self, Compression, Dialect, Error, PLACEHOLDER, SchemaFlavour, Snapshot, Spec, TABLES},
};
use bytes::Bytes;
use futures::SinkExt;
use tempfile::TempDir;
use tokio_postgres::NoTls;

fn small() -> Spec {
    Spec { scale: 0.003, compression: Compression::None, ..Spec::default() }
}

fn made(spec: &Spec) -> (TempDir, Snapshot) {
    let dir = tempfile::tempdir().unwrap();
    let made = snapshot::generate(spec, dir.path()).unwrap();
    (dir, made)
}

/// The file of each table.
fn contents(made: &Snapshot) -> BTreeMap<&'static str, Vec<u8>> {
    made.files.iter().map(|file| (file.table, fs::read(made.dir.join(&file.name)).unwrap())).collect()
}

/// All rows of a table, NULL as `None`.
fn all_rows(spec: &Spec, table: &str) -> Vec<Vec<Option<String>>> {
    let mut out = Vec::new();
    snapshot::rows(spec, table, |row| out.push(row.iter().map(|cell| cell.map(str::to_owned)).collect())).unwrap();
    out
}

fn python(script: &str, arguments: &[&str]) -> String {
    let output = Command::new("python3").args(["-c", script]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The reference data beside the project. It is no part of it: only a run that calls itself continuous integration
/// must have it.
#[expect(clippy::print_stderr, reason = "a test that compares less says so")]
fn reference() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/courtlistener");
    if folder.is_dir() {
        return Some(folder);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", folder.display());
    eprintln!("not compared: {} is missing", folder.display());
    None
}

// ---- dialects ----

/// Reads each file twice: with the csv module, which knows no NULL, and with a pattern of the dialect, which does.
const READ: &str = r#"
import csv, json, os, re, sys
folder, dialect = sys.argv[1:]
csv.field_size_limit(1 << 30)
options = {"A": {}, "B": {}, "C": {"quotechar": "`"}, "D": {"doublequote": False, "escapechar": "\\"}}[dialect]
pattern, unescape = {
    "A": (r'"([^"]*(?:""[^"]*)*)"|([^,"\r\n]*)', lambda s: s.replace('""', '"')),
    "B": (r'"([^"]*(?:""[^"]*)*)"|()', lambda s: s.replace('""', '"')),
    "C": (r'`([^`]*(?:``[^`]*)*)`|()', lambda s: s.replace('``', '`')),
    "D": (r'"([^"\\]*(?:\\["\\][^"\\]*)*)"|()', lambda s: re.sub(r'\\(["\\])', r'\1', s)),
}[dialect]
field = re.compile(pattern)
files = rows = nulls = 0
for name in sorted(n for n in os.listdir(folder) if n.endswith(".csv")):
    want = [json.loads(line) for line in open(f"{folder}/{name}.jsonl", encoding="utf-8")]
    text = open(f"{folder}/{name}", encoding="utf-8", newline="").read()
    header, at = text.split("\n", 1)[0], text.index("\n") + 1
    got = []
    while at < len(text):
        row = []
        while True:
            m = field.match(text, at)
            row.append(unescape(m[1]) if m[1] is not None else m[2] or None)
            at = m.end()
            end = text[at]
            at += 1
            if end == "\n":
                break
            assert end == ",", (name, at, end)
        got.append(row)
    assert got == want, name
    with open(f"{folder}/{name}", encoding="utf-8", newline="") as f:
        plain = list(csv.reader(f, strict=True, **options))
    assert plain[0] == header.split(","), name
    assert plain[1:] == [[c or "" for c in row] for row in want], name
    files, rows, nulls = files + 1, rows + len(got), nulls + sum(c is None for row in got for c in row)
print(files, rows, nulls)
"#;

fn reads_back(dialect: Dialect) {
    let spec = Spec { dialect, nasty: true, orphans: 9, ..small() };
    let (dir, made) = made(&spec);
    let mut nulls = 0;
    for file in &made.files {
        let path = dir.path().join(format!("{}.jsonl", file.name));
        let mut out = BufWriter::new(fs::File::create(path).unwrap());
        snapshot::rows(&spec, file.table, |row| {
            let cells: Vec<_> = row.iter().collect();
            nulls += cells.iter().filter(|cell| cell.is_none()).count();
            serde_json::to_writer(&mut out, &cells).unwrap();
            out.write_all(b"\n").unwrap();
        })
        .unwrap();
    }
    let found = python(READ, &[dir.path().to_str().unwrap(), &format!("{dialect:?}")]);
    assert_eq!(found, format!("33 {} {nulls}\n", made.rows));
}

#[test]
fn python_reads_dialect_a_back() {
    reads_back(Dialect::A);
}

#[test]
fn python_reads_dialect_b_back() {
    reads_back(Dialect::B);
}

#[test]
fn python_reads_dialect_c_back() {
    reads_back(Dialect::C);
}

#[test]
fn python_reads_dialect_d_back() {
    reads_back(Dialect::D);
}

#[test]
fn nasty_files_hold_every_trap() {
    let rows = all_rows(&Spec { nasty: true, ..small() }, "opinions");
    let facts = TABLES.iter().find(|table| table.base == "opinions").unwrap();
    let cells: HashSet<&str> = rows.iter().flatten().flatten().map(String::as_str).collect();
    for trap in
        ["\\.", "first line\n\\.\nthird line", "\r", "\n", "\r\n", "a\tb\tc", "\"\"", "`", "ends in a backslash \\"]
    {
        assert!(cells.contains(trap), "{trap:?}");
    }
    for trap in ["\\\"", "", " leading", "trailing ", "12026-01-01 00:00:00+00", "infinity", "1750-01-01 00:00:00+00"] {
        assert!(cells.contains(trap), "{trap:?}");
    }
    assert!(cells.iter().any(|cell| cell.chars().any(|c| c.len_utf8() == 4)));
    for column in ["plain_text", "html_with_citations", "xml_harvard"] {
        let at = facts.csv.iter().position(|name| *name == column).unwrap();
        assert_eq!(rows.iter().filter(|row| row[at].as_ref().is_some_and(|text| text.len() == 1 << 20)).count(), 1);
    }
    let dates: HashSet<_> =
        all_rows(&Spec { nasty: true, ..small() }, "dockets").into_iter().flatten().flatten().collect();
    for trap in ["0044-03-15 BC", "-infinity", "12026-01-01", "0001-01-01"] {
        assert!(dates.contains(trap), "{trap:?}");
    }
}

// ---- the server ----

/// Loads a snapshot with all its constraints into a real server, has that compute rows and hashes, and compares
/// them and the orphans with what the snapshot says of itself. Orphans are deleted before the transaction ends and every
/// deferred foreign key is checked.
async fn load(spec: &Spec) {
    let (_dir, made) = made(spec);
    let server = postgres::shared().unwrap();
    let database = server.create_database("snapshot").unwrap();
    let (mut client, connection) = tokio_postgres::connect(database.url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);

    let schema = fs::read_to_string(made.dir.join(&made.schema)).unwrap();
    let (_, schema) = schema.split_once("\\connect courtlistener\n").unwrap();
    let mine = schema.lines().filter(|line| !line.ends_with(" OWNER TO django;")).collect::<Vec<_>>().join("\n");
    client.batch_execute(&mine).await.unwrap();
    let mend = "ALTER TABLE public.search_opinioncluster ALTER filepath_pdf_scan SET DEFAULT '', \
                ALTER filepath_xml_scan SET DEFAULT ''";
    client.batch_execute(mend).await.unwrap();

    let options = match spec.dialect {
        Dialect::A | Dialect::B => "",
        Dialect::C => ", QUOTE '`'",
        Dialect::D => ", ESCAPE '\\'",
    };
    let transaction = client.transaction().await.unwrap();
    for file in &made.files {
        let facts = TABLES.iter().find(|table| table.name == file.table).unwrap();
        let columns = facts.csv.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
        let sql =
            format!("COPY public.{} ({columns}) FROM STDIN (FORMAT csv, HEADER, ENCODING 'utf8'{options})", file.table);
        let mut sink = pin!(transaction.copy_in(&sql).await.unwrap());
        for part in fs::read(made.dir.join(&file.name)).unwrap().chunks(1 << 20) {
            sink.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), file.rows, "{}", file.name);
    }
    let groups = "INSERT INTO public.search_parentheticalgroup (id, score, size, opinion_id, representative_id) \
                  SELECT group_id, 0, 1, min(described_opinion_id), min(id) FROM public.search_parenthetical \
                  WHERE group_id IS NOT NULL GROUP BY 1";
    assert!(transaction.execute(groups, &[]).await.unwrap() > 0);

    let mut truth = HashMap::new();
    for message in transaction.simple_query(&made.truth_sql()).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            truth.insert(
                row.get(0).unwrap().to_owned(),
                (row.get(1).unwrap().to_owned(), row.get(2).unwrap().to_owned()),
            );
        }
    }
    for file in &made.files {
        assert_eq!(truth[file.table], (file.rows.to_string(), file.row_md5_sum.to_string()), "{}", file.name);
    }
    assert_eq!(truth.len(), made.files.len());

    let mut orphans = HashSet::new();
    for (table, column, parent) in [
        ("search_opinionscited", "cited_opinion_id", "search_opinion"),
        ("search_opinionscited", "citing_opinion_id", "search_opinion"),
        ("search_citation", "cluster_id", "search_opinioncluster"),
    ] {
        let sql = format!(
            "DELETE FROM public.{table} c WHERE NOT EXISTS (SELECT FROM public.{parent} p WHERE p.id = c.{column}) \
             RETURNING id, {column}"
        );
        for row in transaction.query(&sql, &[]).await.unwrap() {
            orphans.insert((table.to_owned(), row.get(0), column.to_owned(), row.get(1)));
        }
    }
    transaction.commit().await.unwrap();
    let listed: HashSet<_> = (made.orphans.iter())
        .map(|o| (o.table.to_owned(), o.id as i32, o.column.to_owned(), o.missing as i32))
        .collect();
    assert_eq!(orphans, listed);
    assert_eq!(made.orphans.len(), spec.orphans as usize);
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_server_takes_dialect_a() {
    load(&Spec { dialect: Dialect::A, nasty: true, orphans: 1, seed: 2, ..small() }).await;
}

#[tokio::test]
async fn the_server_takes_dialect_b() {
    load(&Spec { dialect: Dialect::B, nasty: true, orphans: 8, seed: 3, ..small() }).await;
}

#[tokio::test]
async fn the_server_takes_dialect_c() {
    load(&Spec { dialect: Dialect::C, nasty: true, orphans: 17, seed: 4, ..small() }).await;
}

#[tokio::test]
async fn the_server_takes_dialect_d() {
    load(&Spec { nasty: true, orphans: 100, seed: 5, ..small() }).await;
}

#[tokio::test]
async fn the_smallest_snapshot_keeps_its_constraints() {
    load(&Spec { scale: f64::MIN_POSITIVE, ..small() }).await;
}

#[tokio::test]
async fn a_snapshot_of_some_size_keeps_its_constraints() {
    load(&Spec { scale: 0.1, seed: u64::MAX, orphans: 300, ..small() }).await;
}

// ---- what a spec asks for ----

#[test]
fn threads_do_not_change_the_bytes_and_seeds_do() {
    let spec = Spec { scale: 0.05, compression: Compression::Bzip2 { level: 1 }, ..Spec::default() };
    let (_one, one) = made(&Spec { threads: NonZeroUsize::new(1), ..spec.clone() });
    let (_three, three) = made(&Spec { threads: NonZeroUsize::new(3), ..spec.clone() });
    assert_eq!(one.files, three.files);
    assert_eq!(contents(&one), contents(&three));

    let (_other, other) = made(&Spec { seed: 2, ..spec });
    for (a, b) in one.files.iter().zip(&other.files) {
        assert_eq!((a.table, a.rows), (b.table, b.rows));
        let fixed = ["people_db_race", "search_court_appeals_to"].contains(&a.table);
        assert_eq!(a.csv_sha256 == b.csv_sha256, fixed, "{}", a.table);
    }
}

/// A change of these is a change of every snapshot: it is allowed, but it must be meant.
#[test]
fn a_seed_gives_these_bytes_everywhere() {
    let (_dir, made) = made(&Spec { nasty: true, orphans: 10, ..small() });
    let hash = |table: &str| &made.files.iter().find(|file| file.table == table).unwrap().csv_sha256[..16];
    let found = ["search_court", "search_docket", "search_opinion", "search_opinionscited"].map(hash);
    assert_eq!(found, ["2264acb561385359", "f135ba37860502ed", "69d6b768946933a3", "3bf50941a5db8b19"]);
}

#[test]
fn names_carry_the_dates() {
    let spec = Spec { date: jiff::civil::date(2025, 12, 31), tables: vec!["people-db-races".into()], ..small() };
    let (dir, plain) = made(&spec);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["people-db-races-2025-12-31.csv", "schema-2026-01-01.sql"]);
    assert_eq!(plain.files[0].table, "people_db_person_race");
    assert_eq!(plain.schema, names[1]);

    let (_dir, packed) = made(&Spec { compression: Compression::Bzip2 { level: 9 }, ..spec });
    assert_eq!(packed.files[0].name, "people-db-races-2025-12-31.csv.bz2");
}

#[test]
fn a_subset_holds_what_the_whole_holds() {
    let (_all, all) = made(&small());
    let (_two, two) = made(&Spec { tables: vec!["search_citation".into(), "courts".into()], ..small() });
    assert_eq!(two.files.iter().map(|file| file.table).collect::<Vec<_>>(), ["search_court", "search_citation"]);
    for (table, bytes) in contents(&two) {
        assert_eq!(contents(&all)[table], bytes, "{table}");
    }
}

#[test]
fn scale_0_gives_headers_alone() {
    let (_dir, made) = made(&Spec { scale: 0.0, nasty: true, ..small() });
    assert_eq!((made.files.len(), made.rows), (33, 0));
    for (table, bytes) in contents(&made) {
        let facts = TABLES.iter().find(|facts| facts.name == table).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), facts.csv.join(",") + "\n");
    }
}

#[test]
fn a_scale_keeps_its_promise_of_size() {
    let (_dir, made) = made(&Spec { scale: 0.2, ..small() });
    let bytes = |table: &str| made.files.iter().find(|file| file.table == table).unwrap().csv_bytes;
    assert_eq!(made.csv_bytes, made.files.iter().map(|file| file.csv_bytes).sum::<u64>());
    assert!((34_000_000..42_000_000).contains(&made.csv_bytes), "{}", made.csv_bytes);
    assert!(bytes("search_opinion") * 10 > made.csv_bytes * 7);
    let rows = |table: &str| made.files.iter().find(|file| file.table == table).unwrap().rows;
    let counts =
        ["search_opinion", "search_docket", "search_opinionscited", "search_court", "people_db_race"].map(rows);
    assert_eq!(counts, [1_200, 7_200, 10_000, 214, 7]);
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |spec: &Spec| snapshot::generate(spec, dir.path()).unwrap_err().to_string();
    assert_eq!(refused(&Spec { scale: -1.0, ..small() }), "scale -1 is not between 0 and 5000");
    assert_eq!(refused(&Spec { scale: f64::NAN, ..small() }), "scale NaN is not between 0 and 5000");
    assert_eq!(refused(&Spec { tables: vec!["docket".into()], ..small() }), "no table is called docket");
    let nowhere = Spec { tables: vec!["dockets".into()], orphans: 1, ..small() };
    assert_eq!(refused(&nowhere), "no table is left to hold orphans");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let full = fs::File::create(dir.path().join("file")).unwrap();
    drop(full);
    let error = snapshot::generate(&small(), &dir.path().join("file")).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("file")), "{error}");
}

#[test]
fn orphans_go_where_there_is_a_place_for_them() {
    let orphans = |tables: &[&str], orphans| {
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let (_dir, made) = made(&Spec { orphans, tables, ..small() });
        let (_none, none) = made_without_orphans(&made);
        assert_eq!(made.rows, none + u64::from(orphans));
        let of = |table: &str| made.orphans.iter().filter(|orphan| orphan.table == table).count();
        (of("search_opinionscited"), of("search_citation"))
    };
    assert_eq!(orphans(&[], 100), (88, 12));
    assert_eq!(orphans(&["citations", "courts"], 100), (0, 100));
    assert_eq!(orphans(&["citation-map"], 100), (100, 0));
}

/// Rows of the same tables of a snapshot without orphans.
fn made_without_orphans(of: &Snapshot) -> (TempDir, u64) {
    let tables = of.files.iter().map(|file| file.table.to_owned()).collect();
    let (dir, made) = made(&Spec { tables, ..small() });
    (dir, made.rows)
}

#[test]
fn rows_come_in_the_order_of_a_heap() {
    let spec = Spec { scale: 0.2, ..small() };
    let ids: Vec<u64> =
        all_rows(&spec, "dockets").iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    let falls = ids.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert_eq!((ids.len(), falls), (7_200, 1));
    let moved = ids.len() - ids.windows(2).position(|pair| pair[0] > pair[1]).unwrap() - 1;
    assert!((60..170).contains(&moved), "{moved}");
}

#[test]
fn groups_of_parentheticals_are_null_or_missing() {
    let rows = all_rows(&Spec { scale: 0.2, ..small() }, "parentheticals");
    let nulls = rows.iter().filter(|row| row[5].is_none()).count();
    assert!((90..150).contains(&nulls), "{nulls} of {}", rows.len());
}

// ---- one table of any size ----

#[test]
fn a_table_has_the_size_it_was_asked_for() {
    for (table, target) in [("opinions", 3_000_000), ("citation-map", 2_500_000), ("dockets", 1)] {
        let mut csv = Vec::new();
        let (rows, bytes) = snapshot::write_table(&small(), table, target, &mut csv).unwrap();
        assert_eq!(bytes, csv.len() as u64);
        assert!((target..target + 600_000).contains(&bytes), "{table}: {bytes}");
        let mut again = Vec::new();
        snapshot::write_table(&small(), table, target * 2, &mut again).unwrap();
        let facts = TABLES.iter().find(|facts| facts.base == table).unwrap();
        assert!(csv.starts_with((facts.csv.join(",") + "\n").as_bytes()));
        if table == "citation-map" {
            let text = String::from_utf8(csv).unwrap();
            let pairs: HashSet<&str> = text.lines().skip(1).map(|line| line.splitn(3, ',').nth(2).unwrap()).collect();
            assert_eq!(pairs.len() as u64, rows);
        }
    }
}

#[test]
fn a_table_that_cannot_grow_says_so() {
    let refused =
        |table, bytes| snapshot::write_table(&small(), table, bytes, &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(refused("courts", 1_000), "search_court cannot grow to 1000 bytes");
    assert_eq!(refused("citations", u64::MAX), "search_citation cannot grow to 18446744073709551615 bytes");
    let error = snapshot::write_table(&small(), "opinions", 1_000, &mut &mut [0_u8; 10][..]).unwrap_err();
    assert!(matches!(error, Error::Write(_)), "{error}");
}

// ---- compression ----

/// Decodes a file and prints its SHA-256, length and number of streams.
const DECODE: &str = "
import bz2, hashlib, sys
data, plain, streams = open(sys.argv[1], 'rb').read(), b'', 0
while data:
    one = bz2.BZ2Decompressor()
    plain, streams = plain + one.decompress(data), streams + 1
    assert one.eof
    data = one.unused_data
print(hashlib.sha256(plain).hexdigest(), len(plain), streams)
";

#[test]
fn bzip2_files_hold_the_plain_ones() {
    let spec = Spec { scale: 0.05, tables: vec!["opinions".into(), "courts".into()], ..Spec::default() };
    let (_plain, plain) = made(&Spec { compression: Compression::None, ..spec.clone() });
    for (compression, streams) in
        [(Compression::Bzip2 { level: 9 }, ["1", "6"]), (Compression::Bzip2OneStream { level: 9 }, ["1", "1"])]
    {
        let (_packed, packed) = made(&Spec { compression, ..spec.clone() });
        for ((a, b), streams) in plain.files.iter().zip(&packed.files).zip(streams) {
            assert_eq!((&a.csv_sha256, a.csv_bytes, a.bytes), (&b.csv_sha256, b.csv_bytes, a.csv_bytes));
            let path = packed.dir.join(&b.name);
            assert_eq!(fs::metadata(&path).unwrap().len(), b.bytes);
            let found = python(DECODE, &[path.to_str().unwrap()]);
            assert_eq!(found, format!("{} {} {streams}\n", a.csv_sha256, a.csv_bytes), "{}", b.table);
        }
        let [courts, opinions] = &packed.files[..] else { panic!("two tables were asked for") };
        let ratio = opinions.csv_bytes as f64 / opinions.bytes as f64;
        assert!((5.0..7.5).contains(&ratio), "{ratio} of {}", courts.name);
    }
}

#[test]
fn the_placeholder_is_bzip2_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("placeholder.csv.bz2");
    fs::write(&path, PLACEHOLDER).unwrap();
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(python(DECODE, &[path.to_str().unwrap()]), format!("{nothing} 0 1\n"));
}

// ---- truth ----

#[test]
fn truth_names_every_file() {
    let (dir, made) = made(&Spec { orphans: 9, ..small() });
    made.write_truth(dir.path()).unwrap();
    let truth: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join("truth.json")).unwrap()).unwrap();
    assert_eq!(truth["tables"].as_object().unwrap().len(), 33);
    let courts = &truth["tables"]["search_court"];
    let file = made.files.iter().find(|file| file.table == "search_court").unwrap();
    assert_eq!(courts["rows"], 214);
    assert_eq!(courts["row_md5_sum"], file.row_md5_sum.to_string());
    assert_eq!(courts["columns"].as_array().unwrap().len(), 20);
    assert_eq!(truth["orphans"].as_array().unwrap().len(), 9);
    assert_eq!(fs::read_to_string(dir.path().join("truth.sql")).unwrap(), made.truth_sql());
}

// ---- the schema ----

/// The statements of a dump without comments and with single spaces; `\` commands are statements, too.
fn statements(dump: &str) -> Vec<String> {
    let mut out = Vec::new();
    let (mut statement, mut in_body) = (String::new(), false);
    for line in dump.lines().filter(|line| !line.starts_with("--")) {
        if line.starts_with('\\') {
            out.push(line.to_owned());
            continue;
        }
        statement.extend(line.split_whitespace().flat_map(|word| [" ", word]));
        in_body ^= line.matches("$$").count() % 2 == 1;
        if line.ends_with(';') && !in_body {
            out.push(std::mem::take(&mut statement).trim_start().to_owned());
        }
    }
    assert_eq!(statement.trim(), "");
    out
}

fn count(statements: &[String], start: &str) -> usize {
    statements.iter().filter(|statement| statement.starts_with(start)).count()
}

#[test]
fn the_clean_schema_has_everything() {
    let statements = statements(&SchemaFlavour::Clean.sql());
    assert_eq!(count(&statements, "CREATE TABLE"), 37);
    assert_eq!(count(&statements, "CREATE FUNCTION"), 6);
    assert_eq!(count(&statements, "CREATE TRIGGER"), 6);
    assert_eq!(count(&statements, "CREATE INDEX") + count(&statements, "CREATE UNIQUE INDEX"), 186);
    assert_eq!(statements.iter().filter(|statement| statement.contains(" FOREIGN KEY ")).count(), 58);
    assert_eq!(count(&statements, "\\connect courtlistener"), 1);
    assert_eq!(count(&statements, "\\restrict"), 0);
}

#[test]
fn the_published_schema_has_what_cannot_be_loaded() {
    let sql = SchemaFlavour::Published.sql();
    let statements = statements(&sql);
    assert_eq!(count(&statements, "CREATE TABLE"), 44);
    assert_eq!(count(&statements, "CREATE FUNCTION"), 0);
    assert_eq!(count(&statements, "CREATE TRIGGER"), 6);
    assert_eq!(statements.iter().filter(|statement| statement.contains("REFERENCES public.auth_user(id)")).count(), 2);
    assert_eq!(count(&statements, "CREATE TABLE public.auth_user"), 0);
    assert_eq!(count(&statements, "SET transaction_timeout = 0;"), 2);
    assert_eq!(count(&statements, "\\restrict"), 2);
    assert!(sql.contains("\nCREATE DATABASE courtlistener WITH TEMPLATE = template0 ENCODING = 'UTF8' "));
}

#[test]
fn the_schemas_are_those_of_the_reference() {
    let Some(folder) = reference() else { return };
    for (flavour, name) in [(SchemaFlavour::Clean, "schema.sql"), (SchemaFlavour::Published, "schema-published.sql")] {
        let theirs = statements(&fs::read_to_string(folder.join(name)).unwrap());
        let ours = statements(&flavour.sql());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
    }
}

#[test]
fn the_headers_are_those_of_the_reference() {
    let Some(folder) = reference() else { return };
    let mut theirs = BTreeMap::new();
    for entry in fs::read_dir(folder.join("real")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some(base) = name.strip_suffix("-2026-06-30.csv") {
            let text = fs::read_to_string(&path).unwrap();
            theirs.insert(base.to_owned(), text.lines().next().unwrap().to_owned());
        }
    }
    let ours: BTreeMap<_, _> = TABLES.iter().map(|table| (table.base.to_owned(), table.csv.join(","))).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn five_columns_are_not_exported_and_two_of_them_are_required() {
    let missing: Vec<_> = (TABLES.iter())
        .flat_map(|table| table.unexported().map(move |column| (table.name, column.name, column.nullable)))
        .collect();
    assert_eq!(
        missing,
        [
            ("search_originatingcourtinformation", "date_rehearing_denied", true),
            ("search_opinioncluster", "filepath_pdf_scan", false),
            ("search_opinioncluster", "filepath_xml_scan", false),
            ("search_opinion", "ordering_key", true),
            ("search_opinion", "main_version_id", true),
        ]
    );
}
