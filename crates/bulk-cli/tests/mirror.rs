//! `bulk mirror` on a real PostgreSQL and a real S3 protocol server, from the outside.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::CommandCargoExt;
use bulk_testkit::postgres::{self, Database};
use bulk_testkit::s3::{self, EtagStyle, Store};
use bulk_testkit::snapshot::{self, Compression, Dialect, PLACEHOLDER, SchemaFlavour, Snapshot, Spec, TABLES};

const BUCKET: &str = "com-courtlistener-storage";

/// A bucket folder with a snapshot in it, its server, and a database.
struct Bench {
    folder: tempfile::TempDir,
    bucket: s3::Server,
    database: Database,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("bucket/bulk-data")).unwrap();
        let store = Store::folder(folder.path().join("bucket"), EtagStyle::Multipart);
        let bucket = s3::Server::builder().bucket(BUCKET, store).start().unwrap();
        let database = postgres::shared().unwrap().create_database("mirror").unwrap();
        Self { folder, bucket, database }
    }

    fn with(spec: &Spec) -> (Self, Snapshot) {
        let bench = Self::new();
        let made = snapshot::generate(spec, &bench.data()).unwrap();
        (bench, made)
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("bucket/bulk-data")
    }

    fn file(&self, base: &str) -> std::path::PathBuf {
        self.data().join(format!("{base}-2026-06-30.csv.bz2"))
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::cargo_bin("bulk").unwrap();
        command.args(["mirror", "courtlistener", "--endpoint", &self.bucket.url()]);
        command.arg("--dir").arg(self.folder.path().join("files")).args(more);
        command.env("BULK_DB", self.database.url()).stdin(Stdio::null());
        command
    }

    fn mirror(&self, more: &[&str]) -> Ran {
        Ran::of(self.command(more).output().unwrap())
    }

    fn sql(&self, sql: &str) -> String {
        postgres::shared().unwrap().psql(self.database.url(), sql).unwrap().trim_end().to_owned()
    }

    /// Asserts that each table holds exactly the generator's rows, by count and by a sum of row hashes that the server
    /// computes.
    fn assert_holds(&self, made: &Snapshot) {
        for file in &made.files {
            let table = TABLES.iter().find(|table| table.name == file.table).unwrap();
            let columns: Vec<_> = table.csv.iter().map(|column| format!("\"{column}\"")).collect();
            let sql = format!(
                "SET timezone = 'UTC'; SELECT count(*) || ' ' || coalesce(sum(('x' || substr(md5(ROW({})::text), 1, 15))::bit(60)::bigint), 0) FROM {}",
                columns.join(", "),
                table.name
            );
            assert_eq!(self.sql(&sql), format!("{} {}", file.rows, file.row_md5_sum), "{}", table.name);
        }
    }
}

struct Ran {
    status: Option<i32>,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self { status: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() }
    }

    #[track_caller]
    fn assert(&self, status: i32, said: &[&str]) {
        assert_eq!(self.status, Some(status), "{}", self.stderr);
        for text in said {
            assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        }
    }
}

fn small() -> Spec {
    Spec { scale: 0.02, ..Spec::default() }
}

#[test]
fn nasty_snapshots_of_all_dialects_arrive_as_they_are() {
    for (dialect, date) in
        [(Dialect::A, "2022-08-31"), (Dialect::B, "2023-12-04"), (Dialect::C, "2024-07-31"), (Dialect::D, "2026-06-30")]
    {
        let mut spec = small();
        spec.dialect = dialect;
        spec.date = date.parse().unwrap();
        spec.nasty = true;
        let (bench, made) = Bench::with(&spec);
        // parentheticals always violate a foreign key, so this is not 0.
        bench.mirror(&[]).assert(3, &["search_par_group_id", "stays NOT VALID"]);
        bench.assert_holds(&made);
    }
}

#[test]
fn the_server_reading_the_same_files_gives_the_same_tables() {
    let mut spec = small();
    spec.nasty = true;
    spec.dialect = Dialect::A;
    spec.compression = Compression::None;
    let (bench, _) = Bench::with(&spec);
    bench.mirror(&[]).assert(3, &[]);
    bench.sql("CREATE SCHEMA ref");
    for table in TABLES.iter() {
        let columns = table.csv.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
        let name = table.name;
        bench.sql(&format!("CREATE TABLE ref.{name} AS SELECT {columns} FROM {name} LIMIT 0"));
        let path = bench.data().join(format!("{}-2026-06-30.csv", table.base));
        // The rows go through the server's own CSV reader; psql's \copy would stop at a line that is only \. .
        let copy = format!("COPY ref.{name} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER, ENCODING 'utf8')");
        server_copy(bench.database.url(), &copy, &path);
        let order = if table.csv.contains(&"id") { "id::text COLLATE \"C\"" } else { "1" };
        let dump =
            |from: &str| bench.sql(&format!("COPY (SELECT {columns} FROM {from}.{name} ORDER BY {order}) TO STDOUT"));
        assert!(dump("public") == dump("ref"), "{name} differs");
    }
}

/// COPY FROM STDIN with the file's bytes as they are.
fn server_copy(url: &str, copy: &str, path: &Path) {
    use futures::SinkExt;
    let bytes = std::fs::read(path).unwrap();
    let (url, copy) = (url.to_owned(), copy.to_owned());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut sink = std::pin::pin!(client.copy_in::<_, bytes::Bytes>(&copy).await.unwrap());
        for part in bytes.chunks(1 << 20) {
            sink.as_mut().send(bytes::Bytes::copy_from_slice(part)).await.unwrap();
        }
        sink.finish().await.unwrap();
    });
}

#[test]
fn the_published_schema_with_orphans_loads_in_one_command_and_a_second_run_loads_nothing() {
    let mut spec = small();
    spec.schema = SchemaFlavour::Published;
    spec.orphans = 40;
    let (bench, made) = Bench::with(&spec);
    bench.mirror(&[]).assert(
        3,
        &[
            "5 rows refer to nothing in public.search_opinioncluster",
            "needs a function or table that is neither in the file nor in the database",
            "column filepath_pdf_scan is not in the file; every row gets \"\"",
        ],
    );
    bench.assert_holds(&made);
    assert_eq!(bench.sql("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"), "4");
    assert_eq!(
        bench.sql("SELECT nextval('search_docket_id_seq') = max(id) + 1 FROM search_docket"),
        "t",
        "the sequence stands behind the largest id"
    );
    let requests = bench.bucket.requests().len();
    bench.mirror(&[]).assert(3, &["33 of 33 files had been loaded", "nothing to load", "NOT VALID: 5 rows"]);
    let fetched: Vec<_> = bench.bucket.requests()[requests..]
        .iter()
        .filter_map(|request| request.key.as_deref())
        .filter(|key| key.ends_with(".bz2"))
        .map(str::to_owned)
        .collect();
    assert_eq!(fetched, Vec::<String>::new());
    bench.assert_holds(&made);
}

#[test]
fn killed_in_the_middle_and_run_again_gives_the_same_tables() {
    let spec = Spec { scale: 0.4, ..Spec::default() };
    let (bench, made) = Bench::with(&spec);
    for chunks in [1, 3] {
        let mut child = bench.command(&["--connections", "2"]).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while child.try_wait().unwrap().is_none() {
            let ledger = bench.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL");
            if ledger == "t" && bench.sql("SELECT count(*) FROM bulk.chunk").parse::<u32>().unwrap() >= chunks {
                child.kill().unwrap();
                break;
            }
            assert!(Instant::now() < deadline, "no chunk was committed");
        }
        child.wait().unwrap();
    }
    bench.mirror(&[]).assert(3, &[]);
    bench.assert_holds(&made);
}

#[test]
fn the_newest_complete_snapshot_is_taken_and_placeholders_are_named() {
    let mut spec = small();
    spec.date = "2026-03-31".parse().unwrap();
    let (bench, made) = Bench::with(&spec);
    let mut newer = small();
    newer.seed = 2;
    snapshot::generate(&newer, &bench.data()).unwrap();
    std::fs::write(bench.file("dockets"), PLACEHOLDER).unwrap();
    bench
        .mirror(&[])
        .assert(3, &["passed over 2026-06-30: dockets is a placeholder of 14 bytes", "snapshot 2026-03-31"]);
    bench.assert_holds(&made);
    bench
        .mirror(&["--date", "2026-06-30"])
        .assert(1, &["no snapshot is complete: 2026-06-30: dockets is a placeholder of 14 bytes"]);
    // Another snapshot is not poured into the tables of the first.
    std::fs::remove_file(bench.file("dockets")).unwrap();
    bench
        .mirror(&["--date", "2026-06-30", "--tables", "courts"])
        .assert(1, &["holds the rows of bulk-data/courts-2026-03-31.csv.bz2; load it anew with --restart"]);
}

#[test]
fn an_optional_placeholder_is_left_out_and_said() {
    let (bench, _) = Bench::with(&small());
    std::fs::write(bench.file("unmatched-citations"), PLACEHOLDER).unwrap();
    bench.mirror(&[]).assert(3, &["unmatched-citations of 2026-06-30 is a placeholder of 14 bytes; it is not loaded"]);
    assert_eq!(bench.sql("SELECT count(*) FROM citations_unmatchedcitation"), "0");
}

#[test]
fn damaged_files_are_named_and_nothing_half_loaded_is_called_done() {
    let (bench, made) = Bench::with(&small());
    let whole = std::fs::read(bench.file("dockets")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for (bytes, said) in
        [(whole[..whole.len() / 2].to_vec(), "dockets-2026-06-30.csv.bz2"), (flipped, "dockets-2026-06-30.csv.bz2")]
    {
        std::fs::write(bench.file("dockets"), bytes).unwrap();
        let ran = bench.mirror(&["--restart"]);
        ran.assert(1, &[said, "1 files are not loaded"]);
        assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NULL"), "1");
        assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "32");
    }
    std::fs::write(bench.file("dockets"), whole).unwrap();
    bench.mirror(&["--restart"]).assert(3, &[]);
    bench.assert_holds(&made);
}

#[test]
fn a_wrong_dialect_by_flag_is_refused() {
    let mut spec = small();
    spec.nasty = true;
    for dialect in [Dialect::A, Dialect::B, Dialect::C, Dialect::D] {
        spec.dialect = dialect;
        let (bench, _) = Bench::with(&spec);
        let wrong = if matches!(dialect, Dialect::D) { "B" } else { "D" };
        let ran = bench.mirror(&["--dialect", wrong, "--tables", "opinion-clusters"]);
        ran.assert(1, &["opinion-clusters-2026-06-30.csv.bz2", "--dialect"]);
        assert_eq!(bench.sql("SELECT count(*) FROM search_opinioncluster"), "0");
    }
}

#[test]
fn a_column_that_may_not_be_null_and_is_not_exported_is_refused_with_the_flag_that_mends_it() {
    let (bench, _) = Bench::with(&small());
    let dataset = bench.folder.path().join("mine.toml");
    std::fs::write(
        &dataset,
        format!(
            "title = 'mine'\nsource = 's3://{BUCKET}/bulk-data/'\nanonymous = true\n[tables]\nopinion-clusters = 'search_opinioncluster'\n"
        ),
    )
    .unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::cargo_bin("bulk").unwrap();
        command.arg("mirror").arg(&dataset).args(["--endpoint", &bench.bucket.url(), "--dir"]);
        command.arg(bench.folder.path().join("files")).args(more).env("BULK_DB", bench.database.url());
        Ran::of(command.output().unwrap())
    };
    run(&[]).assert(
        1,
        &[
            "filepath_pdf_scan",
            "--fill search_opinioncluster.filepath_pdf_scan=VALUE",
            "opinion-clusters-2026-06-30.csv.bz2",
        ],
    );
    let fill =
        ["--fill", "search_opinioncluster.filepath_pdf_scan=", "--fill", "search_opinioncluster.filepath_xml_scan=x"];
    assert!([0, 3].contains(&run(&fill).status.unwrap()));
    assert_eq!(
        bench.sql("SELECT DISTINCT filepath_pdf_scan || '|' || filepath_xml_scan FROM search_opinioncluster"),
        "|x"
    );
}

#[test]
fn what_is_wrong_outside_is_said_with_its_own_status() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&["--tables", "nonsense"]).assert(2, &["--tables nonsense: the data set has no such file"]);
    let mut unreachable = bench.command(&[]);
    unreachable.env("BULK_DB", "postgresql://postgres@127.0.0.1:1/none");
    Ran::of(unreachable.output().unwrap()).assert(4, &["cannot connect to database \"none\" at 127.0.0.1:1"]);

    let mut options = postgres::Options::default();
    options.password = Some("right".to_owned());
    options.database_url = postgres::DatabaseUrl::Ignore;
    let server = postgres::Server::start(&options).unwrap();
    let mut wrong = bench.command(&[]);
    wrong.env("BULK_DB", server.url().replace("right", "wrong"));
    let ran = Ran::of(wrong.output().unwrap());
    ran.assert(6, &["cannot connect to database", "password authentication failed"]);
    assert!(!ran.stderr.contains("wrong"), "the password is not shown: {}", ran.stderr);

    let unknown = Command::cargo_bin("bulk").unwrap().args(["mirror", "nothing", "--db", "x"]).output().unwrap();
    Ran::of(unknown).assert(2, &["there is no data set \"nothing\"; the catalogue has courtlistener"]);
}

#[test]
fn a_table_that_no_schema_makes_is_named() {
    let (bench, _) = Bench::with(&small());
    let schema = bench.data().join("schema-2026-07-01.sql");
    std::fs::write(&schema, "CREATE TABLE public.other (id integer);").unwrap();
    bench.mirror(&["--tables", "courts"]).assert(1, &["table public.search_court does not exist"]);
}

#[test]
fn the_published_fixtures_load() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/courtlistener/real");
    if !shared.is_dir() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is missing", shared.display());
        return;
    }
    let bench = Bench::new();
    for entry in std::fs::read_dir(shared).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".bz2") || name.ends_with(".sql") {
            std::fs::copy(entry.path(), bench.data().join(name)).unwrap();
        }
    }
    let ran = bench.mirror(&[]);
    assert!([0, 3].contains(&ran.status.unwrap()), "{}", ran.stderr);
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "33");
    bench.mirror(&[]).assert(ran.status.unwrap(), &["33 of 33 files had been loaded"]);
}
