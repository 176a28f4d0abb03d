//! Loads that end early, whatever ends them: the next one goes on where they stopped.

mod support;

use std::io::{self, Read};
use std::slice::from_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bulk_pg::{Checkpoint, Dialect, Error, Event, LoadOptions, Plain, Session, load, restart};
use support::{Bench, Counted, HEADER, LINE, Log, broken_after, chain, file, gated, load_t, numbered, table, whole};

const ROWS: usize = 20_000;
/// Lines of a chunk.
const CHUNK: usize = 1000;

fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.chunk_size = (CHUNK * LINE) as u64;
    options
}

/// That the table holds the records of [`numbered`], each once.
fn assert_whole(bench: &Bench, rows: usize) {
    assert_eq!(
        bench.psql("SELECT count(*), count(DISTINCT id), min(id), max(id), bool_and(length(text) = 110) FROM t"),
        format!("{rows}|{rows}|1|{rows}|t")
    );
    assert_eq!(
        bench.psql("SELECT records, finished_at IS NOT NULL, (SELECT sum(records) FROM bulk.chunk) FROM bulk.load"),
        format!("{rows}|t|{rows}")
    );
}

#[tokio::test]
async fn a_load_goes_on_behind_the_last_committed_chunk() {
    let bench = Bench::new("resume", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let identity = file("t.csv", &csv);
    // In the middle of record 12,346, in the thirteenth chunk.
    let open = broken_after(&csv, HEADER + 12_345 * LINE + 50);
    let error = load(from_mut(&mut session), &table("t"), &identity, open, &options()).await.unwrap_err();
    assert_eq!(chain(&error), "cannot read t.csv behind record 12345, decoded byte 1481458: the disk is gone");
    assert!(matches!(error, Error::Read { records: 12_345, offset: 1_481_458, .. }));
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "12000");
    assert_eq!(bench.psql("SELECT finished_at FROM bulk.load"), "");

    let mut again = options();
    let log = Log::default();
    log.observe(&mut again);
    let loaded = load_t(&mut session, &csv, &again).await.unwrap();
    assert_eq!((loaded.records, loaded.sent, loaded.bytes), (20_000, 8000, 8000 * 120));
    assert!(log.lines()[0].ends_with("behind 12000"), "{:?}", log.lines()[0]);
    assert_eq!(log.lines()[1], "t.csv into public.t: 1000 in 120000");
    assert_eq!(log.lines().len(), 1 + 8 + 1);
    assert_whole(&bench, ROWS);
    assert_eq!(bench.psql("SELECT count(*), max(chunk) FROM bulk.chunk"), "20|19");
}

#[tokio::test]
async fn a_load_may_go_on_in_chunks_of_another_size() {
    let bench = Bench::new("sizes", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let identity = file("t.csv", &csv);
    for (chunk, broken, committed) in [(1000, 10_500, 10_000), (3333, 19_000, 16_666), (1, 19_007, 19_007)] {
        let mut options = options();
        options.chunk_size = (chunk * LINE) as u64;
        let open = broken_after(&csv, HEADER + broken * LINE + 1);
        load(from_mut(&mut session), &table("t"), &identity, open, &options).await.unwrap_err();
        assert_eq!(bench.psql("SELECT count(*) FROM t"), committed.to_string());
    }
    let loaded = load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.sent, 993);
    assert_whole(&bench, ROWS);
}

#[tokio::test]
async fn a_load_that_stopped_behind_its_last_chunk_is_finished_without_sending() {
    let bench = Bench::new("last", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let identity = file("t.csv", &csv);
    let open = broken_after(&csv, csv.len());
    load(from_mut(&mut session), &table("t"), &identity, open, &options()).await.unwrap_err();
    assert_eq!(
        bench.psql("SELECT count(*), (SELECT count(*) FROM bulk.load WHERE finished_at IS NULL) FROM t"),
        "20000|1"
    );
    let loaded = load_t(&mut session, &csv, &options()).await.unwrap();
    assert_eq!((loaded.records, loaded.sent, loaded.bytes), (20_000, 0, 0));
    assert_whole(&bench, ROWS);
}

/// Lines of the chunks of the three tests below, each of several messages.
const LARGE: usize = 5000;

type Gate = std::sync::mpsc::Sender<()>;

/// Starts a load whose input waits in the middle of the third chunk, and runs `end` when two are committed and the server
/// is in the middle of COPY of the next; the input goes on when `end` drops its gate. Whichever ends first, the load or `end`, drops the other.
async fn interrupt(bench: &Bench, session: &mut Session, csv: &[u8], end: impl AsyncFnOnce(Gate)) -> Option<Error> {
    // What is in the reader's buffer of 256 KiB is not lent before that is full.
    let (open, gate) = gated(csv, HEADER + 14_500 * LINE + 60);
    let (sender, mut committed) = tokio::sync::mpsc::unbounded_channel();
    let mut options = options();
    options.chunk_size = (LARGE * LINE) as u64;
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Committed { .. } = event {
            let _ = sender.send(());
        }
    });
    let (target, identity) = (table("t"), file("t.csv", csv));
    let load = load(from_mut(session), &target, &identity, open, &options);
    let ended = async {
        committed.recv().await.unwrap();
        committed.recv().await.unwrap();
        let in_copy = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = '{}' AND application_name = 'bulk' AND state = 'active' AND query LIKE 'COPY%'",
            bench.database.name()
        );
        while bench.psql(&in_copy) != "1" {
            tokio::task::yield_now().await;
        }
        end(gate).await;
    };
    tokio::select! {
        result = load => Some(result.unwrap_err()),
        () = ended => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_load_leaves_whole_chunks_and_a_session_that_works() {
    let bench = Bench::new("dropped", "CREATE TABLE t (id integer, text text)");
    let csv = numbered(ROWS);
    let mut session = bench.session().await;
    assert!(interrupt(&bench, &mut session, &csv, async |_gate| {}).await.is_none());
    // The same session, at once.
    let row = session.client().query_one("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 10_000);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(bench.psql(locks), "0");
    let state = format!(
        "SELECT state FROM pg_stat_activity WHERE application_name = 'bulk' AND datname = '{}'",
        bench.database.name()
    );
    assert_eq!(bench.psql(&state), "idle");
    let loaded = load_t(&mut session, &csv, &options()).await.unwrap();
    assert_eq!(loaded.sent, 10_000);
    assert_whole(&bench, ROWS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_session_gives_the_table_free() {
    let bench = Bench::new("gone", "CREATE TABLE t (id integer, text text)");
    let csv = numbered(ROWS);
    let mut session = bench.session().await;
    assert!(interrupt(&bench, &mut session, &csv, async |_gate| {}).await.is_none());
    drop(session);
    let loaded = load_t(&mut bench.session().await, &csv, &options()).await.unwrap();
    assert_eq!(loaded.sent, 10_000);
    assert_whole(&bench, ROWS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_is_the_servers_fault_and_loses_one_chunk() {
    let bench = Bench::new("cut", "CREATE TABLE t (id integer, text text)");
    let csv = numbered(ROWS);
    let mut session = bench.session().await;
    let terminate = format!(
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
         WHERE application_name = 'bulk' AND datname = '{}'",
        bench.database.name()
    );
    let error = interrupt(&bench, &mut session, &csv, async |gate| {
        assert_eq!(bench.psql(&terminate), "1");
        // The load ends by itself, as soon as it has something to send.
        drop(gate);
        std::future::pending().await
    });
    let error = error.await.unwrap();
    assert!(error.is_remote(), "{}", chain(&error));
    assert!(chain(&error).starts_with("cannot load t.csv into public.t: "), "{}", chain(&error));
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "10000");
    let loaded = load_t(&mut bench.session().await, &csv, &options()).await.unwrap();
    assert_eq!(loaded.sent, 10_000);
    assert_whole(&bench, ROWS);
}

#[tokio::test]
async fn another_version_of_a_file_is_refused_and_said() {
    let bench = Bench::new("version", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let identity = file("t.csv", &csv);
    load(from_mut(&mut session), &table("t"), &identity, broken_after(&csv, 2_000_000), &options()).await.unwrap_err();
    let mut other = identity.clone();
    other.etag = Some("v2".to_owned());
    let open = || panic!("it was opened");
    let error = load(from_mut(&mut session), &table("t"), &other, open, &options()).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "table public.t holds a part of another version of t.csv (ETag v1, 2400008 bytes; now v2, 2400008 bytes); \
         load it anew with --restart, which deletes all rows of the table"
    );
    load_t(&mut session, &csv, &options()).await.unwrap();
    let longer = bulk_pg::FileIdentity::new("t.csv", Some("v1".to_owned()), 2_400_009);
    let error = load(from_mut(&mut session), &table("t"), &longer, open, &options()).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "table public.t holds all of another version of t.csv (ETag v1, 2400008 bytes; now v1, 2400009 bytes); \
         load it anew with --restart, which deletes all rows of the table"
    );
    assert_whole(&bench, ROWS);
}

#[tokio::test]
async fn a_restart_empties_the_table_and_loads_anew() {
    let bench = Bench::new("restart", "CREATE TABLE t (id integer, text text); CREATE TABLE other (id integer)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    load_t(&mut session, &numbered(5), &options()).await.unwrap();
    bench.psql("INSERT INTO other VALUES (1)");
    restart(&mut session, &[table("t"), table("absent")]).await.unwrap();
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM other)"), "0|1");
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM bulk.load), (SELECT count(*) FROM bulk.chunk)"), "0|0");
    assert_eq!(load_t(&mut session, &csv, &options()).await.unwrap().sent, 20_000);
    assert_whole(&bench, ROWS);
}

#[tokio::test]
async fn a_restart_does_not_touch_the_rows_of_tables_that_refer() {
    let bench = Bench::new(
        "refer",
        "CREATE TABLE t (id integer PRIMARY KEY, text text);
         CREATE TABLE empty_child (id integer REFERENCES t);
         CREATE TABLE child (id integer REFERENCES t);",
    );
    let mut session = bench.session().await;
    load_t(&mut session, b"id,text\n1,a\n", &options()).await.unwrap();
    bench.psql("INSERT INTO child VALUES (1)");
    let error = restart(&mut session, &[table("t")]).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "table public.child refers to a table that is to be loaded anew, and has rows of its own; empty it first"
    );
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.load)"), "1|1");
    restart(&mut session, &[table("t"), table("child")]).await.unwrap();
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM child)"), "0|0");
}

/// Two megabytes without a backslash, and then a record that reads differently as B and as D.
fn ambiguous_at_the_end() -> Vec<u8> {
    let mut csv = b"id,text\n".to_vec();
    for id in 1..ROWS {
        csv.extend_from_slice(format!("\"{id:08}\",\"{:x<106}\"\n", "y").as_bytes());
    }
    csv.extend_from_slice(b"\"00020000\",\"\\\\server\"\n");
    csv
}

#[tokio::test]
async fn a_dialect_in_doubt_is_in_doubt_behind_an_interruption() {
    let bench = Bench::new("guard", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = ambiguous_at_the_end();
    let line = 121 + 1;
    let identity = file("t.csv", &csv);
    load(from_mut(&mut session), &table("t"), &identity, broken_after(&csv, 15_000 * line), &options())
        .await
        .unwrap_err();
    let loaded = bench.psql("SELECT count(*) FROM t");
    assert_eq!(bench.psql("SELECT dialect, (SELECT bool_and(guarded) FROM bulk.chunk) FROM bulk.load"), "B|t");

    let mut again = options();
    let log = Log::default();
    log.observe(&mut again);
    let error = load_t(&mut session, &csv, &again).await.unwrap_err();
    assert!(log.lines()[0].starts_with("t.csv into public.t: B Ambiguous ("), "{}", log.lines()[0]);
    assert!(log.lines()[0].ends_with(&format!("behind {loaded}")), "{}", log.lines()[0]);
    assert!(chain(&error).starts_with("t.csv: record 20000, byte "), "{}", chain(&error));
    assert!(chain(&error).contains("this record reads differently as B"), "{}", chain(&error));

    // What is loaded reads the same in both dialects, so either may be named.
    again.dialect = Some(Dialect::D);
    load_t(&mut session, &csv, &again).await.unwrap();
    assert_eq!(bench.psql("SELECT count(*), max(text) FILTER (WHERE id = 20000) FROM t"), "20000|\\server");
    assert_eq!(bench.psql("SELECT dialect FROM bulk.load"), "D");
}

#[tokio::test]
async fn one_file_is_not_read_by_two_dialects() {
    let bench = Bench::new("mixed", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = ambiguous_at_the_end();
    let identity = file("t.csv", &csv);
    let mut named = options();
    named.dialect = Some(Dialect::B);
    load(from_mut(&mut session), &table("t"), &identity, broken_after(&csv, 2_000_000), &named).await.unwrap_err();
    named.dialect = Some(Dialect::D);
    let error = load_t(&mut session, &csv, &named).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "t.csv: a part of it is loaded as dialect B: quotes \", doubled inside, every value quoted, and it is now to be \
         read as D: quotes \", escaped by a backslash, every value quoted; leave --dialect out, or load it anew with \
         --restart, which deletes all rows of the table"
    );
    // Without the flag it is read on as it was begun.
    load_t(&mut session, &csv, &options()).await.unwrap();
    assert_eq!(bench.psql("SELECT count(*), max(text) FILTER (WHERE id = 20000) FROM t"), "20000|\\\\server");
}

#[tokio::test]
async fn a_file_shorter_than_what_is_loaded_is_refused() {
    let bench = Bench::new("shorter", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let identity = file("t.csv", &csv);
    load(from_mut(&mut session), &table("t"), &identity, broken_after(&csv, 2_000_000), &options()).await.unwrap_err();
    let open = whole(&csv[..HEADER + 10_000 * LINE]);
    let error = load(from_mut(&mut session), &table("t"), &identity, open, &options()).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "t.csv: 1920008 bytes of it are loaded, and it now has only 1200008: it is not the same file; load it anew with \
         --restart, which deletes all rows of the table"
    );
}

#[tokio::test]
async fn a_stopped_load_commits_its_chunk_and_the_next_goes_on_behind_it() {
    let bench = Bench::new("stop", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let mut stopped = options();
    let stop = stopped.stop.clone();
    stopped.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Committed { .. } = event {
            stop.cancel();
        }
    });
    let error = load_t(&mut session, &csv, &stopped).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }));
    assert_eq!(error.to_string(), "the load of t.csv was stopped; what is done is kept");
    assert_eq!(bench.psql("SELECT count(*), (SELECT sum(records) FROM bulk.chunk) FROM t"), "1000|1000");
    let loaded = load_t(&mut session, &csv, &options()).await.unwrap();
    assert_eq!((loaded.records, loaded.sent), (20_000, 19_000));
    assert_whole(&bench, ROWS);
}

#[tokio::test]
async fn a_stop_is_heeded_while_a_load_reads_over_what_is_there() {
    let bench = Bench::new("skip", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(ROWS);
    let identity = file("t.csv", &csv);
    load(from_mut(&mut session), &table("t"), &identity, broken_after(&csv, csv.len() - 10), &options())
        .await
        .unwrap_err();
    let stopped = options();
    stopped.stop.cancel();
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted { count: read.clone(), inner: io::Cursor::new(csv.clone()) };
    let open = move || Ok(Box::new(Plain(counted)) as support::Input);
    let error = load(from_mut(&mut session), &table("t"), &identity, open, &stopped).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
    // The sample from which the dialect is told, and no more of 2.4 MB.
    assert_eq!(read.load(Ordering::SeqCst), 1 << 20);
    assert_eq!(load_t(&mut session, &csv, &options()).await.unwrap().records, 20_000);
    assert_whole(&bench, ROWS);
}

/// A file of which each block can be read on its own. It breaks where it is told to.
struct Blocks {
    content: Vec<u8>,
    at: usize,
    breaks_at: usize,
    read: Arc<AtomicU64>,
    skipped: Arc<Mutex<Vec<u64>>>,
}

const BLOCK: usize = 50_000;

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.breaks_at {
            return Err(io::Error::other("the disk is gone"));
        }
        let block_end = (self.at / BLOCK + 1) * BLOCK;
        let end = self.content.len().min(self.breaks_at).min(self.at + buffer.len()).min(block_end);
        let piece = &self.content[self.at..end];
        buffer[..piece.len()].copy_from_slice(piece);
        self.read.fetch_add(piece.len() as u64, Ordering::SeqCst);
        self.at = end;
        Ok(piece.len())
    }
}

impl bulk_pg::Input for Blocks {
    fn checkpoint(&self) -> Option<Checkpoint> {
        let block = self.at / BLOCK;
        (self.at > 0).then(|| Checkpoint::new((block * BLOCK) as u64, format!("block {block}")))
    }

    fn skip_to(&mut self, checkpoint: &Checkpoint) -> bool {
        let block: usize = checkpoint.text.strip_prefix("block ").unwrap().parse().unwrap();
        assert_eq!(checkpoint.offset, (block * BLOCK) as u64);
        assert!(self.at < block * BLOCK, "it is asked for places behind all that was read alone");
        self.at = block * BLOCK;
        self.skipped.lock().unwrap().push(checkpoint.offset);
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_left_out_where_reading_can_begin_behind_it() {
    const RECORDS: usize = 30_000;
    let csv = numbered(RECORDS);
    for count in [1, 3] {
        let bench = Bench::new("places", "CREATE TABLE t (id integer PRIMARY KEY, text text)");
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(bench.session().await);
        }
        let mut options = LoadOptions::default();
        options.chunk_size = 200_000;
        let mut run = async |breaks_at: usize| {
            let (read, skipped) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
            let blocks =
                Blocks { content: csv.clone(), at: 0, breaks_at, read: read.clone(), skipped: skipped.clone() };
            let open = move || Ok(Box::new(blocks) as support::Input);
            let loaded = load(&mut sessions, &table("t"), &file("t.csv", &csv), open, &options).await;
            let skipped = skipped.lock().unwrap().clone();
            (loaded, read.load(Ordering::SeqCst), skipped)
        };
        run(2_500_000).await.0.unwrap_err();
        let committed: u64 = bench.psql("SELECT max(first_byte + bytes) FROM bulk.chunk").parse().unwrap();
        assert!(committed > 2_000_000, "{committed}");
        // A chunk in the midst is lost.
        bench.psql(
            "DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id OFFSET (SELECT first_record FROM bulk.chunk WHERE chunk = 9)
                                        LIMIT (SELECT records FROM bulk.chunk WHERE chunk = 9));
             DELETE FROM bulk.chunk WHERE chunk = 9",
        );
        let (loaded, read, skipped) = run(usize::MAX).await;
        assert_eq!(loaded.unwrap().records, RECORDS as u64);
        // The sample, the lost chunk, and what is behind the last one; each from the start of its block.
        let [lost, behind] = skipped[..] else { panic!("{skipped:?}") };
        assert!((1_750_000..=1_800_000).contains(&lost), "{lost}");
        assert!(behind <= committed && committed - behind < BLOCK as u64, "{behind} of {committed}");
        assert!(read < csv.len() as u64 - 900_000, "{read} of {}", csv.len());
        assert_eq!(bench.psql("SELECT count(*), sum(id) FROM t"), format!("{RECORDS}|{}", RECORDS * (RECORDS + 1) / 2));
    }
}
